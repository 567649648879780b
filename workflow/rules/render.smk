"""Complexity, runs.csv, tables and figures."""


rule complexity:
    output:
        f"{PLAN.folder}/complexity.csv",
    log:
        f"{PLAN.folder}/logs/complexity.log",
    params:
        study=PLAN.study.name,
    shell:
        "attention-ablation complexity --study {params.study} --format csv > {output} 2> {log}"


rule runs:
    input:
        files(PLAN.runs.values(), "metrics.json"),
    output:
        f"{PLAN.folder}/runs.csv",
    log:
        f"{PLAN.folder}/logs/runs.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render runs {params.settings} > {log} 2>&1"


rule table:
    input:
        lambda wildcards: files(PLAN.table_runs(wildcards.table), "metrics.json"),
        complexity=f"{PLAN.folder}/complexity.csv",
    output:
        multiext(f"{PLAN.folder}/tables/{{table}}", ".csv", ".md", ".tex"),
    log:
        f"{PLAN.folder}/logs/{{table}}.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render {wildcards.table} {params.settings} > {log} 2>&1"


rule figure:
    input:
        lambda wildcards: files(figure_runs(wildcards.figure), "history.csv"),
    output:
        multiext(f"{PLAN.folder}/figures/{{figure}}", ".svg", ".png"),
    log:
        f"{PLAN.folder}/logs/{{figure}}.log",
    params:
        settings=SETTINGS,
    shell:
        "attention-ablation render {wildcards.figure} {params.settings} > {log} 2>&1"
