"""Complexity, runs.csv, tables and figures."""


def files(runs, name):
    return sorted({f"{PLAN.runs_folder}/{run.path}/{name}" for run in runs})


def figure_runs(name):
    return [run for panel in PLAN.study.figures[name].panels for run in PLAN.panel_runs(panel)]


rule complexity:
    output:
        f"{PLAN.folder}/complexity.csv",
    params:
        study=PLAN.study.name,
    log:
        f"{PLAN.folder}/logs/complexity.log",
    priority: 5_000
    shell:
        "attention-ablation complexity --study {params.study} --format csv > {output} 2> {log}"


rule runs:
    input:
        files(PLAN.runs.values(), "metrics.json"),
    output:
        f"{PLAN.folder}/runs.csv",
    params:
        settings=SETTINGS,
    log:
        f"{PLAN.folder}/logs/runs.log",
    shell:
        "attention-ablation render runs {params.settings} > {log} 2>&1"


rule table:
    input:
        lambda wildcards: files(PLAN.table_runs(wildcards.table), "metrics.json"),
        complexity=f"{PLAN.folder}/complexity.csv",
    output:
        multiext(f"{PLAN.folder}/tables/{{table}}", ".csv", ".md", ".tex"),
    params:
        settings=SETTINGS,
    log:
        f"{PLAN.folder}/logs/{{table}}.log",
    shell:
        "attention-ablation render {wildcards.table} {params.settings} > {log} 2>&1"


rule figure:
    input:
        lambda wildcards: files(figure_runs(wildcards.figure), "history.csv"),
    output:
        multiext(f"{PLAN.folder}/figures/{{figure}}", ".svg", ".png"),
    params:
        settings=SETTINGS,
    log:
        f"{PLAN.folder}/logs/{{figure}}.log",
    shell:
        "attention-ablation render {wildcards.figure} {params.settings} > {log} 2>&1"
