"""The project's own results: the studies at the quick tier with five seeds, in docs/results.

    make reference

Runs that are in docs/results/quick/runs.zip are taken from there, the others are trained, and all
but weights and logs goes back into it. A run whose weights are still needed, by a detector that
starts from them or by Grad-CAM, is trained again. Delete the archive to train everything anew.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

from attention_ablation.base.io import write_bytes
from attention_ablation.runs import folder as files
from attention_ablation.study.expand import Plan, load_plan

RESULTS = Path("docs/results")
SEEDS = [0, 1, 2, 3, 4]
STUDIES = ("controls", "cbam", "zoo")
KEPT = (
    *(files.SPEC, files.METRICS, files.RESULT, files.HISTORY, files.DETECTIONS),
    *(files.GRADCAM, files.GRADCAM_IMAGES, files.GRADCAM_MAPS),
)
STAMP = (1980, 1, 1, 0, 0, 0)  # the same runs make the same archive


def main() -> None:
    """Train what is missing, seed by seed, and render; arguments go to Snakemake."""
    plans = [plan_of(study) for study in STUDIES]
    archive = plans[0].runs_folder.with_suffix(".zip")
    unpack(archive, plans)
    # A seed of all rows before the next one: rows are compared within a seed.
    for count in range(1, len(SEEDS) + 1):
        for study in STUDIES:
            choice = [f"study={study}", "tier=quick", f"results={RESULTS}"]
            seeds = f"seeds={SEEDS[:count]}".replace(" ", "")
            command = ["snakemake", "--workflow-profile", "workflow/profiles/default", "--nolock"]
            subprocess.run([*command, *sys.argv[1:], "--config", *choice, seeds], check=True)
            pack(archive, plans)


def plan_of(study: str, root: Path = Path()) -> Plan:
    choice = {"study": study, "tier": "quick", "seeds": SEEDS, "results": str(RESULTS)}
    return load_plan(choice, root)


def unpack(archive: Path, plans: list[Plan]) -> None:
    """Write the files of an archive that are not there, of runs whose weights nothing needs."""
    folder = plans[0].runs_folder
    if archive.exists():
        with zipfile.ZipFile(archive) as packed:
            names = packed.namelist()
            needed = weights_needed(plans, set(names))
            for name in names:
                if str(Path(name).parent) not in needed and not (folder / name).exists():
                    packed.extract(name, folder)


def weights_needed(plans: list[Plan], there: set[str]) -> set[str]:
    """Return the runs that something which is not there is made from, by their paths."""
    runs = {path: run for plan in plans for path, run in plan.runs.items()}
    files_of_figures = {
        Path(file).relative_to(plan.runs_folder)
        for plan in plans
        for name in plan.figures
        for file in plan.study.figures[name].inputs(plan)
        if Path(file).name == files.GRADCAM
    }
    explained = {str(file.parent) for file in files_of_figures if str(file) not in there}
    return explained | {
        run.initial.path
        for path, run in runs.items()
        if run.initial and f"{path}/{files.METRICS}" not in there
    }


def pack(archive: Path, plans: list[Plan]) -> None:
    """Write an archive of all finished runs of the plans."""
    folder = plans[0].runs_folder
    part = archive.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted({path for plan in plans for path in plan.runs}):
            if (folder / path / files.METRICS).exists():
                for name in KEPT:
                    if (file := folder / path / name).exists():
                        info = zipfile.ZipInfo(f"{path}/{name}", STAMP)
                        packed.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)
    write_bytes(archive, part.read_bytes())
    part.unlink()


if __name__ == "__main__":
    main()
