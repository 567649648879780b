"""Regenerate a study: config.yaml -> runs -> tables, figures, claims, report.

`make tables` runs this on one machine; see the README for tiers, tables and seeds.

`snakemake --lint` leaves three messages. No rule names a conda environment, because all of them call
one installed command, whose environment is requirements.lock or environment.yml. The rule `spec` has
no log, because its printf has nothing to say; `train` keeps its own, which survives a new attempt.
"""

import json
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import min_version

from attention_ablation.base.errors import UserError
from attention_ablation.cli import forkserver
from attention_ablation.cost.bill import describe, over_budget
from attention_ablation.cost.cost import load_cost
from attention_ablation.runs.folder import BACKBONE, FAILURE, METRICS, read_run
from attention_ablation.study.expand import load_plan
from attention_ablation.study.files import merged
from attention_ablation.training.slots import granted

# Before it a priority cannot be a function.
min_version("9.17")


configfile: "config.yaml"


CONFIG = "ATTENTION_ABLATION_CONFIG"


CORES = workflow.resource_settings.cores

try:
    if CORES is not None and CORES < 1:
        raise UserError(f"--cores: expected 1 or more, got {CORES}.")
    # Jobs parse this file again, perhaps after config.yaml was edited: they inherit what it was.
    if workflow.is_main_process or CONFIG not in os.environ:
        # Read by our own loader: Snakemake's takes 010 for 8, and of two equal keys the last.
        files = filter(Path.exists, [Path("config.yaml")])
        settings = workflow.config_settings
        config = merged([*files, *settings.configfiles], settings.config)
        os.environ[CONFIG] = json.dumps(config)
    config = json.loads(os.environ[CONFIG])
    PLAN = load_plan(config)
    COST = load_cost(PLAN)
except UserError as error:
    # An exception would be shown with lines of this file, where there is nothing to mend.
    sys.exit(str(error))

# What the render verb needs to see the same plan, whatever `--config` changed.
SETTINGS = " ".join(
    f"--set {shlex.quote(f'{key}={json.dumps(getattr(PLAN.config, key))}')}"
    for key in config
)

if workflow.is_main_process:
    logger.info(PLAN.summary)
    # A job that failed is logged as such, and again as an exception, with its whole command.
    logger.addFilter(
        lambda record: getattr(record, "exception", None) != "RuleException"
    )
    # Bars that move once a second, not eight times, which takes 8 % of a core.
    for handler in getattr(workflow.logger_manager, "plugin_handlers", []):
        if live := getattr(handler, "live_display", None):
            live.refresh_per_second = 1


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/render.smk"


rule all:
    default_target: True
    input:
        # Listed although runs.csv needs them too: Snakemake does not miss the input of a file
        # that is there, and a table rendered without a failed run is.
        files(PLAN.runs.values(), "metrics.json"),
        GRADCAM,
        RENDERED,
        f"{PLAN.folder}/report.html",


onerror:
    # Some trainings failed; the tables still show what there is, with dashes for the rest.
    from attention_ablation.report.summary import describe_results

    refused = shell(f"attention-ablation render {SETTINGS} 2>&1 || true", read=True)
    logger.info(refused + describe_results(PLAN))


onstart:
    from attention_ablation.datasets.contract import require_dataset

    if refusal := over_budget(COST):
        sys.exit(f"{describe(COST)}\n\nNothing was started: {refusal}")
    try:
        for run in PLAN.runs.values():
            require_dataset(run.spec.recipe.dataset, PLAN.datasets_folder)
    except UserError as error:
        sys.exit(f"Nothing was started: {error}")
    # What failed in an earlier call is tried again; what fails in this one is not.
    for path in PLAN.runs:
        with suppress(OSError):  # none, or a folder, which the training refuses
            (PLAN.runs_folder / path / FAILURE).unlink()
    ended = [(PLAN.runs_folder / path / METRICS).exists() for path in PLAN.runs]
    # Not beside a GPU, where it was never tried.
    if workflow.local_exec and COST.all_short and not all(ended) and not granted():
        forkserver.start()
    # With its own limit, 100 jobs a second, Snakemake (9.27) looks for new jobs once a second for
    # every job that has ever ended, so that it is the busier the longer it runs.
    limiter = workflow.scheduler.job_rate_limiter
    if limiter and limiter.max_jobs == 100:
        workflow.scheduler.job_rate_limiter = None


onsuccess:
    from attention_ablation.report.summary import describe_results

    logger.info(describe_results(PLAN))
