"""Complexity, runs.csv, tables, figures, claims and the report that shows them all."""


localrules:
    complexity,
    runs,
    table,
    figure,
    figure_and_csv,
    claims,
    report,


rule complexity:
    input:
        STUDY_FILES,
        # Gates of a user's own; their content is in the ids of runs, and counted.
        PLAN.module_files,
    output:
        f"{PLAN.folder}/complexity.csv",
    log:
        f"{PLAN.folder}/logs/complexity.log",
    priority: FIRST
    # No params: the count is the same for every choice of seeds and tables.
    shell:
        "attention-ablation render complexity {SETTINGS} > {log:q} 2>&1"


rule runs:
    input:
        files(PLAN.runs.values(), "metrics.json"),
        GRADCAM,
        STUDY_FILES,
        TIER_FILE,
    output:
        f"{PLAN.folder}/runs.csv",
    log:
        f"{PLAN.folder}/logs/runs.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render runs {params.settings} > {log:q} 2>&1"


rule table:
    input:
        lambda wildcards: files(PLAN.table_runs(wildcards.table), "metrics.json"),
        STUDY_FILES,
        TIER_FILE,
        complexity=f"{PLAN.folder}/complexity.csv",
    output:
        csv=report(
            f"{PLAN.folder}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        md=f"{PLAN.folder}/tables/{{table}}.md",
        tex=f"{PLAN.folder}/tables/{{table}}.tex",
    log:
        f"{PLAN.folder}/logs/{{table}}.log",
    priority: FIRST
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render {wildcards.table} {params.settings} > {log:q} 2>&1"


rule figure:
    input:
        lambda wildcards: figure(wildcards.figure).inputs(PLAN),
        STUDY_FILES,
        TIER_FILE,
    output:
        svg=report(
            f"{PLAN.folder}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png=f"{PLAN.folder}/figures/{{figure}}.png",
    log:
        f"{PLAN.folder}/logs/{{figure}}.log",
    wildcard_constraints:
        figure=any_of(name for name in PLAN.figures if not figure(name).numbers),
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render {wildcards.figure} {params.settings} > {log:q} 2>&1"


# A figure whose numbers are in a CSV.
use rule figure as figure_and_csv with:
    output:
        svg=report(
            f"{PLAN.folder}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        png=f"{PLAN.folder}/figures/{{figure}}.png",
        csv=report(
            f"{PLAN.folder}/figures/{{figure}}.csv",
            caption="../report/numbers.rst",
            category="Figures",
            labels={"figure": "{figure}, numbers"},
        ),
    wildcard_constraints:
        figure=any_of(name for name in PLAN.figures if figure(name).numbers),
    params:
        settings=SETTINGS,
        numbers=lambda wildcards: figure(wildcards.figure).numbers.format(
            name=wildcards.figure
        ),


rule claims:
    input:
        files(PLAN.runs.values(), "metrics.json"),
        GRADCAM,
        STUDY_FILES,
        CLAIMS_FILE,
        PLAN.reference_files,
        TIER_FILE,
        complexity=f"{PLAN.folder}/complexity.csv",
    output:
        csv=report(
            f"{PLAN.folder}/claims.csv",
            caption="../report/claims.rst",
            category="Claims",
            labels={"claims": "ledger"},
        ),
        md=f"{PLAN.folder}/claims.md",
    log:
        f"{PLAN.folder}/logs/claims.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render claims {params.settings} > {log:q} 2>&1"


rule report:
    input:
        RENDERED,
    output:
        report(
            f"{PLAN.folder}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"report": "everything on one page"},
        ),
    log:
        f"{PLAN.folder}/logs/report.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render report {params.settings} > {log:q} 2>&1"
