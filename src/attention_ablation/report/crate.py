"""A study's results as an archive: a Workflow Run RO-Crate, which is a project's folder, too.

RO-Crate 1.1, Workflow RO-Crate 1.0 and the Workflow Run Crate profile 0.5 (Leo et al. 2024,
doi:10.1371/journal.pone.0309210), the newest that the public validator (rocrate-validator) knows.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import metadata
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import yaml

from attention_ablation import __version__
from attention_ablation.base.errors import UserError
from attention_ablation.base.io import read_bytes, read_text, replacing
from attention_ablation.evidence.complexity import COMPLEXITY_CSV
from attention_ablation.report.claims import CLAIMS_CSV, CLAIMS_MD
from attention_ablation.report.collect import RUNS_CSV, collect
from attention_ablation.report.html import REPORT
from attention_ablation.runs import folder as files
from attention_ablation.runs.records import Metrics
from attention_ablation.study.expand import Plan

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
# What `make tables` needs beside the package and the study, and what says how it was made.
PROJECT = (
    *("Snakefile", "workflow/rules/*", "workflow/report/*", "workflow/profiles/*/*"),
    *("workflow/throughput.yaml", "requirements.lock", "LICENSE", "CITATION.cff"),
)
OF_RUNS = (
    *(files.SPEC, files.METRICS, files.RESULT, files.HISTORY, files.DETECTIONS),
    *(files.GRADCAM, files.GRADCAM_IMAGES, files.GRADCAM_MAPS),
)
NO_INPUT = ("README.md", "LICENSE", "CITATION.cff")
# The same results make the same archive, whatever media types a system adds (.smk is a video's).
STAMP, TYPES = (1980, 1, 1, 0, 0, 0), MimeTypes()
TYPES.add_type("text/markdown", ".md")  # which not every Python knows
README = """# {name}

{summary}

A Workflow Run RO-Crate: `ro-crate-metadata.json` describes what is here. It is a project's folder,
too. With attention-ablation {version} installed,

    attention-ablation verify{without}

compares every number with the run that it comes from. `{folder}/report.html` shows all.

{citation}
"""


def write_crate(plan: Plan, path: Path, weights: bool, by: str | None = None) -> str:
    """Write the archive, whole or not at all, and return a line about it.

    `by` is who ran it. Raises UserError where no run has finished, or nothing was rendered.
    """
    finished = {
        run: metrics
        for run in plan.runs
        if (metrics := files.read_outcome(plan.runs_folder / run).metrics)
    }
    if not finished:
        raise UserError(f"{plan.runs_folder}: expected a finished run of this choice, got none.")
    inputs, rendered = dict(_inputs(plan)), dict(_rendered(plan))
    made = {
        "README.md": _readme(plan, weights).encode(),
        "config.yaml": yaml.safe_dump(_choice(plan), sort_keys=False).encode(),
    }
    crate = _described(plan, finished, [*made, *inputs], list(rendered), by)
    made |= {f"{_folder(plan)}/runs/{run}/": b"" for run in finished}  # folders are named, too
    made["ro-crate-metadata.json"] = json.dumps(crate, indent=1, ensure_ascii=False).encode()
    sources = inputs | rendered | dict(_of_runs(plan, list(finished), weights))
    with replacing(path) as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name in sorted([*made, *sources]):
            content = made[name] if name in made else read_bytes(sources[name])
            entry = ZipInfo(name, STAMP)
            # Else `unzip` makes folders that nobody may enter and scripts that nobody may run.
            runs = name in sources and os.access(sources[name], os.X_OK)
            entry.external_attr = (0o755 if entry.is_dir() or runs else 0o644) << 16
            archive.writestr(entry, content, ZIP_DEFLATED)
    return f"{path}: {len(finished)} of {len(plan.runs)} runs."


def _choice(plan: Plan) -> dict[str, Any]:
    """Return the config that chooses these results in the archive."""
    here = {"tables": plan.tables, "seeds": plan.seeds, "results": _results(plan), "data": None}
    return plan.config.model_dump(mode="json") | here


def _results(plan: Plan) -> str:
    """Return the folder of the results in the archive: as on the page, if that is below it."""
    folder = Path(plan.config.results)
    return "results" if folder.is_absolute() or ".." in folder.parts else folder.as_posix()


def _folder(plan: Plan) -> str:
    return f"{_results(plan)}/{plan.config.tier}"


def _inputs(plan: Plan) -> Iterator[tuple[str, Path]]:
    """Yield the files that the results are made from, by their names in the archive."""
    study = plan.study_folder.relative_to(plan.root)
    tier = plan.tier_file.relative_to(plan.root)
    for pattern in (*PROJECT, f"{study}/**/*", str(tier), *plan.module_files):
        for path in sorted(plan.root.glob(pattern)):
            if path.is_file():
                yield path.relative_to(plan.root).as_posix(), path


def _rendered(plan: Plan) -> Iterator[tuple[str, Path]]:
    """Yield what is rendered of the choice. Raises UserError where it was not."""
    there = {name: plan.folder / name for name in (RUNS_CSV, REPORT)}
    absent = [file for file in there.values() if not file.is_file()]
    if absent or read_text(there[RUNS_CSV]) != collect(plan).to_csv():
        raise UserError(
            f"{(absent or [there[RUNS_CSV]])[0]}: expected what the runs of this choice give; "
            "`attention-ablation render` with the same choice writes it."
        )
    patterns = [RUNS_CSV, REPORT, COMPLEXITY_CSV, CLAIMS_CSV, CLAIMS_MD]
    patterns += [f"tables/{name}.*" for name in plan.tables]
    patterns += [f"figures/{name}.*" for name in plan.figures]
    for pattern in patterns:
        for path in sorted(plan.folder.glob(pattern)):
            inside = path.relative_to(plan.folder).as_posix()
            yield f"{_folder(plan)}/{plan.study.name}/{inside}", path


def _of_runs(plan: Plan, runs: list[str], weights: bool) -> Iterator[tuple[str, Path]]:
    for run in runs:
        for name in (*OF_RUNS, *[files.WEIGHTS] * weights):
            if (path := plan.runs_folder / run / name).is_file():
                yield f"{_folder(plan)}/runs/{run}/{name}", path


def _readme(plan: Plan, weights: bool) -> str:
    return README.format(
        name=_name(plan), summary=plan.summary, version=__version__, citation=plan.study.citation,
        folder=f"{_folder(plan)}/{plan.study.name}", without=" --without-weights" * (not weights),
    )  # fmt: skip


def _name(plan: Plan) -> str:
    return f"{plan.study.title}: tier {plan.config.tier}"


def _described(
    plan: Plan, finished: dict[str, Metrics], inputs: list[str], rendered: list[str], by: str | None
) -> dict[str, Any]:
    """Return ro-crate-metadata.json: an action for the whole, and one for each training."""
    from rocrate.rocrate import ContextEntity, ROCrate

    crate = ROCrate(version="1.1")

    def entity(identifier: str, type_: str, **properties: Any) -> Any:
        return crate.add(ContextEntity(crate, identifier, {"@type": type_, **properties}))

    licence = metadata("attention-ablation")["License-Expression"]
    agent = {"agent": entity("#agent", "Person", name=by)} if by else {}
    ends = [metrics.finished for metrics in finished.values()]
    root = crate.root_dataset
    root["name"], root["description"] = _name(plan), f"{plan.summary} {plan.tier.limits}"
    if by:
        root["author"] = agent["agent"]
    root["datePublished"] = _time(max(ends))
    root["license"] = entity(f"https://spdx.org/licenses/{licence}", "CreativeWork", name=licence)
    root["citation"] = entity("#cited", "CreativeWork", name=plan.study.citation)
    root["conformsTo"] = [
        entity(url, "CreativeWork", name=name, version=url.rpartition("/")[2])
        for url, name in PROFILES.items()
    ]
    commits = dict.fromkeys(metrics.git_commit or "unknown" for metrics in finished.values())
    workflow = crate.add_workflow(
        None, "Snakefile", main=True, lang="snakemake",
        properties={
            "name": "attention-ablation", "version": ", ".join(commits),
            "encodingFormat": "text/plain",
        },
    )  # fmt: skip
    package = entity(
        "#attention-ablation", "SoftwareApplication", name="attention-ablation",
        softwareVersion=", ".join(dict.fromkeys(m.attention_ablation for m in finished.values())),
    )  # fmt: skip
    names = [*inputs, *rendered]
    data = {name: _file(crate, name) for name in names if name != "Snakefile"}
    data["README.md"]["about"] = root
    if "requirements.lock" in data:
        package["softwareRequirements"] = data["requirements.lock"]
    runs = {run: f"{_folder(plan)}/runs/{run}" for run in finished}
    specs = {run: _file(crate, f"{runs[run]}/{files.SPEC}") for run in finished}
    folders = {
        run: crate.add_dataset(None, f"{runs[run]}/", properties={"name": f"Run {run}"})
        for run in finished
    }

    def action(identifier: str, start: float, end: float, **properties: Any) -> None:
        times = {"startTime": _time(start), "endTime": _time(end)}
        root.append_to(
            "mentions", entity(identifier, "CreateAction", **times, **agent, **properties)
        )

    complete = len(finished) == len(plan.runs)
    given = [data[name] for name in inputs if name in data.keys() - set(NO_INPUT)]
    action(
        "#regeneration", min(m.started for m in finished.values()), max(ends),
        name=_name(plan), description=f"{plan.summary} {len(finished)} have finished.",
        instrument=workflow, object=given,
        result=[*(data[name] for name in rendered), *folders.values()],
        **{"actionStatus": "http://schema.org/CompletedActionStatus"} if complete else {},
    )  # fmt: skip
    for run, facts in finished.items():
        action(
            f"#{run}", facts.started, facts.finished, name=f"Training of {run}",
            description=f"{facts.status} after {facts.epochs} epochs on {facts.device}, with "
            f"Python {facts.python}, torch {facts.torch}, torchvision {facts.torchvision}",
            instrument=package, object=specs[run], result=folders[run],
            actionStatus="http://schema.org/CompletedActionStatus",
        )  # fmt: skip
    described: dict[str, Any] = crate.metadata.generate()
    return described


def _file(crate: Any, name: str) -> Any:
    media_type = TYPES.guess_type(name)[0] or "text/plain"
    return crate.add_file(None, name, properties={"encodingFormat": media_type})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
