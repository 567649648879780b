"""The Machine Learning Reproducibility Checklist (Pineau et al., v2.0, 2020), filled in.

Its questions are shortened. An answer says no more than the plan and the runs' records do.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from attention_ablation.evidence.complexity import Counts
from attention_ablation.study.expand import Plan

FACTS = ("git_commit", "git_dirty", "device", "seconds")
NONE_YET = "No run has finished yet."


class Item(NamedTuple):
    """A question, 'yes', 'partly', 'no' or 'not applicable', and why."""

    question: str
    answer: str
    text: str


def checklist(plan: Plan, runs: pd.DataFrame, counts: Counts, energy: str) -> dict[str, list[Item]]:
    """Return the items by their section; `energy` says what is known of it, '' nothing."""
    ended = runs[runs["status"].isin(["completed", "diverged"])].reindex(columns=[*FACTS])
    return {
        "Models and algorithms": [
            Item("Description", "yes", "A gate is one file of code; the package's have their "
                 "equations in it. A number's dialog has its runs' whole specs."),
            Item("Assumptions", "yes", "At the top stands what this tier can say. Rows that are "
                 "compared have one recipe; tables whose runs were not made alike are not shown."),
            _complexity(plan, counts),
        ],
        "Theoretical claims": [
            Item("Statement and proof", "not applicable", "There are none; claims are about runs."),
        ],
        "Data sets": _data(plan, runs),
        "Code": [
            Item("Dependencies", "yes", "requirements.lock pins every package; what the runs were "
                 "made with stands under Environment."),
            _code(ended),
            Item("Evaluation", "yes", "A training ends with it; attention-ablation evaluate "
                 "gives a classification's errors again from the run's weights."),
            Item("Trained models", "partly", "Each run leaves weights.pt in its folder, with its "
                 "digest in metrics.json; whether they are published is not known here."),
            Item("Command that gives these results", "yes", f"{_command(plan)}, with the files of "
                 "this study and tier, which an archive holds; that commit may not have them."),
        ],
        "Experimental results": [
            Item("Hyper-parameters", "partly", "All that were used are in the specs. What else "
                 "was tried, and how it was chosen, is recorded only where the tier's file says."),
            Item("Number of runs", "yes", f"{len(runs)} trainings, {states(runs)}. Each is "
                 "evaluated on the validation set, at the least after its last epoch."),
            Item("Measures", "yes", "Those of the headings, as defined below each table: "
                 f"{', '.join(_measures(plan))}."),
            _spread(plan, runs),
            _time(ended, energy),
            Item("Infrastructure", "yes" if len(ended) else "no", _counted(ended["device"])),
        ],
    }  # fmt: skip


def _complexity(plan: Plan, counts: Counts) -> Item:
    counted = all(place in counts for place in plan.specs)
    text = "Parameters and multiply-accumulates are counted on the full-size networks"
    text += ". " if counted else ", but not yet of every row here. "
    text += "Time and memory of each training are measured; sample complexity is not studied."
    return Item("Complexity", "partly", text)


def _data(plan: Plan, runs: pd.DataFrame) -> list[Item]:
    recipes = [run.spec.recipe for run in plan.runs.values()]
    sets = {recipe.dataset: None for recipe in recipes}
    sizes = [
        f"{data.name} at {data.image_size} px: {data.train_images:,} images to train on, "
        f"{data.validation_images:,} to validate on, {data.classes:,} classes"
        for data in sets
    ]
    remarks = [f"{text}. " for text in _known(runs, "dataset_remarks")]
    augmented = ", ".join(dict.fromkeys(recipe.augmentation for recipe in recipes))
    composed = all(data.prepared for data in sets)
    source = "docs/datasets.md and docs/detection-data.md say where they come from."
    if composed:
        source = "Every image is composed by the code, from its seed; nothing is downloaded."
    return [
        Item("Statistics", "yes", f"{'; '.join(dict.fromkeys(sizes))}."),
        Item("Splits", "yes", "Numbers are those of the validation set after the last epoch, so "
             "that no epoch was chosen by them. There is no further test set."),
        Item("Exclusions and pre-processing", "partly", f"{''.join(remarks)}Augmentation: "
             f"{augmented}; the specs have sizes. What the sources left out is not known here."),
        Item("Link to the data", "yes" if composed else "partly", source),
        Item("New data", "not applicable", "The workflow collects none."),
    ]  # fmt: skip


def _code(ended: pd.DataFrame) -> Item:
    commits = [str(commit)[:12] for commit in _known(ended, "git_commit")]
    unknown = int(ended["git_commit"].isna().sum())
    dirty = int(ended["git_dirty"].eq(True).sum())
    text = f"Git commit {', '.join(commits)}." if commits else "No commit is recorded."
    text += f" Of {_runs(unknown)} no commit is recorded." * bool(commits and unknown)
    text += f" {_runs(dirty)} had uncommitted changes." * bool(dirty)
    answer = "yes" if commits and not unknown and not dirty else "partly"
    return Item("Training", answer, text) if len(ended) else Item("Training", "no", NONE_YET)


def _command(plan: Plan) -> str:
    seeds, tables = (",".join(map(str, names)) for names in (plan.seeds, plan.tables))
    choice = {"STUDY": plan.study.name, "TIER": plan.config.tier, "TABLES": tables, "SEEDS": seeds}
    return f"make tables {' '.join(f'{name}={value}' for name, value in choice.items())}"


def _measures(plan: Plan) -> Iterable[str]:
    tables = [plan.study.tables[table] for table in plan.tables]
    return dict.fromkeys(plan.study.metrics[n].heading for table in tables for n in table.columns)


def _spread(plan: Plan, runs: pd.DataFrame) -> Item:
    """Say how many rows have a spread: two completed runs or more."""
    completed = set(runs.index[runs["status"] == "completed"])
    several = sum(
        sum(run.path in completed for run in plan.row_runs(*place)) > 1 for place in plan.specs
    )
    text = "One run of a row has no spread, so that none is shown."
    if several:
        text = (
            f"Mean ± standard deviation over seeds, in {several} of {len(plan.specs)} rows; "
            "differences have 95 % intervals."
            + " Other rows have one run, without a spread, or none."
            * (several < len(plan.specs))
        )
    answer = "yes" if several == len(plan.specs) else "partly" if several else "no"
    return Item("Central tendency and variation", answer, text)


def _time(ended: pd.DataFrame, energy: str) -> Item:
    if not len(ended):
        return Item("Run time or energy", "no", NONE_YET)
    seconds = ended["seconds"].astype(float)
    hours = seconds.sum() / 3600
    whole = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
    text = f"A training took {seconds.mean():.0f} s on average, all of them "
    text += f"{whole}, after interruptions that of the last process only."
    return Item("Run time or energy", "yes", f"{text} {energy or 'Energy was not measured.'}")


def _known(runs: pd.DataFrame, column: str) -> list[object]:
    return list(runs[column].dropna().unique()) if column in runs else []


def states(runs: pd.DataFrame) -> str:
    """Return how many runs are completed, failed and so on."""
    return ", ".join(f"{n} {status}" for status, n in runs["status"].value_counts().items())


def _runs(n: int) -> str:
    return f"{n} run{'s' * (n > 1)}"


def _counted(values: "pd.Series[str]") -> str:
    texts = [f"{name}: {_runs(int(n))}" for name, n in values.value_counts().items()]
    return f"{'; '.join(texts)}." if texts else NONE_YET
