"""What the rules ask of the plan: runs, their data, and their files."""

# Specs and data come before every training, so that all trainings are ready when the first one is
# chosen and the longest is chosen first.
FIRST = 1_000_000_000
DATASETS = {
    run.spec.recipe.dataset.prepared: run.spec.recipe.dataset
    for run in PLAN.runs.values()
}

# Labels, printed values and notes come from these.
STUDY_FILES = [
    f"workflow/studies/{PLAN.study.name}/{name}" for name in ("study.yaml", "rows.csv")
]
TIER_FILE = f"workflow/tiers/{PLAN.config.tier}.yaml"


def run_of(wildcards):
    return PLAN.runs[f"{wildcards.run}/seed-{wildcards.seed}"]


def composed_data(wildcards):
    prepared = run_of(wildcards).spec.recipe.dataset.prepared
    return f"{PLAN.data_folder}/{prepared}" if prepared else []


def files(runs, name):
    return sorted({f"{PLAN.runs_folder}/{run.path}/{name}" for run in runs})


def figure_input(name):
    shown = "gradcam.json" if name in PLAN.gradcam_figures else "history.csv"
    return files(PLAN.figure_runs(name), shown)


GRADCAM = sorted({path for name in PLAN.gradcam_figures for path in figure_input(name)})
