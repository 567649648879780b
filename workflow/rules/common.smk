"""What the rules ask of the plan: runs, their data, and their files."""

import re

RUN = f"{PLAN.runs_folder}/{{run}}/seed-{{seed}}"
# Specs come before every training, so that trainings are chosen in the order of the plan. Tables,
# too: each is there as soon as its last run is.
FIRST = 1_000_000_000
WORKER_MB = 1000  # of a process that decodes image files
COMPOSED = {
    run.spec.recipe.dataset.prepared: run.spec.recipe.dataset
    for run in PLAN.runs.values()
    if run.spec.recipe.dataset.prepared
}

# Labels, printed values and notes come from these.
STUDY_FILES = [
    f"workflow/studies/{PLAN.study.name}/{name}"
    for name in ("study.yaml", "rows.csv", PLAN.study.times and PLAN.study.times.file)
    if name
]
CLAIMS_FILE = f"workflow/studies/{PLAN.study.name}/claims.yaml"  # optional
TIER_FILE = PLAN.tier_file.as_posix()


def run_of(wildcards):
    path = f"{wildcards.run}/seed-{wildcards.seed}"
    # A job that waited while the tier was edited still trains what it was submitted for.
    return PLAN.runs.get(path) or read_run(PLAN.runs_folder / path / "spec.json")


def job_minutes(wildcards, attempt):
    run = run_of(wildcards)
    # An attempt after one that failed by itself says so and ends at once.
    ends_at_once = attempt > 1 and (PLAN.runs_folder / run.path / FAILURE).exists()
    return 5 if ends_at_once else COST.minutes(run.spec)


def job_memory(wildcards, threads, attempt):
    files = not run_of(wildcards).spec.recipe.dataset.in_memory
    # A job that was killed for its memory leaves no other trace than being tried again.
    return (COST.memory_mb + files * threads * WORKER_MB) * min(attempt, 2)


def composed_data(wildcards):
    prepared = run_of(wildcards).spec.recipe.dataset.prepared
    return f"{PLAN.data_folder}/{prepared}" if prepared else []


def data_priority(wildcards):
    """Compose data right before the first training that needs them."""
    return 0.5 + max(
        COST.priority[path]
        for path, run in PLAN.runs.items()
        if run.spec.recipe.dataset.prepared == wildcards.prepared
    )


def initial_weights(wildcards):
    first = run_of(wildcards).initial
    return f"{PLAN.runs_folder}/{first.path}/{BACKBONE}" if first else []


def files(runs, name):
    return sorted({f"{PLAN.runs_folder}/{run.path}/{name}" for run in runs})


def figure(name):
    return PLAN.study.figures[name]


def any_of(names):
    return "|".join(map(re.escape, sorted(names))) or "(?!)"  # which nothing matches


# What the report shows.
RENDERED = [
    f"{PLAN.folder}/runs.csv",
    *expand(f"{PLAN.folder}/tables/{{table}}.md", table=PLAN.tables),
    *expand(f"{PLAN.folder}/figures/{{figure}}.svg", figure=PLAN.figures),
    *[f"{PLAN.folder}/claims.md"] * bool(PLAN.study.claims),
]
# What figures show of runs is in runs.csv, too, if it is Grad-CAM.
FIGURE_FILES = {path for name in PLAN.figures for path in figure(name).inputs(PLAN)}
GRADCAM = sorted(path for path in FIGURE_FILES if path.endswith("/gradcam.json"))
