"""Complexity, runs.csv, tables and figures."""


localrules:
    complexity,
    runs,
    table,
    figure,


rule complexity:
    input:
        STUDY_FILES,
    output:
        f"{PLAN.folder}/complexity.csv",
    log:
        f"{PLAN.folder}/logs/complexity.log",
    params:
        study=PLAN.study.name,
    shell:
        "attention-ablation complexity --study {params.study:q} --format csv > {output:q} 2> {log:q}"


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
        multiext(f"{PLAN.folder}/tables/{{table}}", ".csv", ".md", ".tex"),
    log:
        f"{PLAN.folder}/logs/{{table}}.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render {wildcards.table} {params.settings} > {log:q} 2>&1"


rule figure:
    input:
        lambda wildcards: figure_input(wildcards.figure),
        STUDY_FILES,
        TIER_FILE,
    output:
        multiext(f"{PLAN.folder}/figures/{{figure}}", ".svg", ".png"),
    log:
        f"{PLAN.folder}/logs/{{figure}}.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render {wildcards.figure} {params.settings} > {log:q} 2>&1"
