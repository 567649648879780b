# make tables   create the environment and regenerate the study's tables and figures
# make plan     say what `make tables` will cost: runs, GPU-hours, wall time (GPUS=, PRICE=)
# make status   say which runs are done, running, failed and missing
# make watch    show the runs under way, live, until all have ended
# make verify   hold every number in the tables to the folder of its run
# make test     create the environment and run the tests
# make lint     ruff, mypy, import-linter, snakefmt and snakemake's own linter
# make reference  the project's own results in docs/results: trains what is not there, for hours
# make benchmark  after `make tables`: the first figures in benchmarks/README.md
# make benchmark-cluster  checkpoints and 500 runs through a local Slurm (needs it, and root)
# make benchmark-loader  how fast images are read, beside torchvision's reference loader
# make benchmark-detection  how fast detectors train, beside torchvision's
# make benchmark-gates  what gates cost in a step at 224 px, run as they are and compiled
# make benchmark-trainer  how fast a ResNet50 trains, beside torchvision's and timm's loops (needs timm)
# make benchmark-gpu  prove the GPU path on one GPU, in eight minutes, and write its figures
# make benchmark-start  how long a training takes to its first step
# make benchmark-kills  kill 200 trainings and 50 renderings; all must end as if they never were
# make lock     pin every package again, from pyproject.toml (needs uv)
#
# Choose with STUDY=, TIER=, TABLES= (a comma-separated list) and SEEDS= (likewise), for example
#   make tables TABLES=table1,table3 SEEDS=0,1,2
# What is not given stays as config.yaml has it. CORES= limits the trainings that run at a time.
# PROFILE= is a folder of workflow/profiles: default, gpus, sge, slurm. OPTIONS= goes to snakemake as it is.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
PROFILE ?= default
SNAKEMAKE = snakemake --workflow-profile $(call quoted,workflow/profiles/$(PROFILE))
quoted = '$(subst ','\'',$(1))'
given = $(if $($(1)),$(2) $(call quoted,$(3)))
# The choice as words for the shell, each after what is passed.
choice = $(call given,STUDY,$(1),study=$(STUDY)) $(call given,TIER,$(1),tier=$(TIER)) $(call given,SEEDS,$(1),seeds=[$(SEEDS)]) \
    $(call given,TABLES,$(1),tables=$(if $(filter all,$(TABLES)),all,[$(TABLES)]))
# The lock ends with its holder, so a killed run leaves none behind; Snakemake's own would stay.
LOCK := flock --close --nonblock --conflict-exit-code 75 results/.lock

CHOOSABLE := STUDY TIER TABLES SEEDS CORES PROFILE OPTIONS GPUS PRICE PYTHON VENV
UNKNOWN := $(foreach name,$(filter-out $(CHOOSABLE),$(.VARIABLES)),$(if $(filter command,$(origin $(name))),$(name)))
$(if $(strip $(UNKNOWN)),$(error unknown $(strip $(UNKNOWN)); valid are: $(CHOOSABLE)))

# Files are UTF-8 in any locale.
export PYTHONUTF8 := 1

.PHONY: tables plan status watch verify reference benchmark benchmark-cluster benchmark-loader \
    benchmark-detection benchmark-gates benchmark-trainer benchmark-start benchmark-gpu benchmark-kills test lint format lock

tables: $(READY)
	@test -f $(call quoted,workflow/profiles/$(PROFILE)/config.yaml) || { \
	    echo $(call quoted,PROFILE=$(PROFILE)): expected one of $$(ls workflow/profiles). >&2; exit 2; }
	@mkdir -p results
	@$(RUN) $(LOCK) $(SNAKEMAKE) $$([ ! -t 2 ] || echo --logger rich) --nolock $(OPTIONS) \
	    $(call given,CORES,--cores,$(CORES)) $(if $(strip $(choice)),--config $(choice)) || { code=$$?; \
	    [ $$code != 75 ] || echo "Another 'make tables' is running in this folder; wait for it." >&2; \
	    exit $$code; }

plan: $(READY)
	@$(RUN) attention-ablation plan $(call choice,--set) \
	    $(call given,GPUS,--gpus,$(GPUS)) $(call given,PRICE,--price,$(PRICE))

status: $(READY)
	@$(RUN) attention-ablation status $(call choice,--set)

watch: $(READY)
	@$(RUN) attention-ablation status --watch $(call choice,--set)

verify: $(READY)
	@$(RUN) attention-ablation verify $(call choice,--set)

reference: $(READY)
	$(RUN) python -m benchmarks.reference $(OPTIONS) $(call given,CORES,--cores,$(CORES))

benchmark: $(READY)
	$(RUN) python -m benchmarks.quick

benchmark-cluster: $(READY)
	$(RUN) python -m benchmarks.cluster

benchmark-loader: $(READY)
	$(RUN) python -m benchmarks.loader

benchmark-detection: $(READY)
	$(RUN) python -m benchmarks.detection

benchmark-gates: $(READY)
	$(RUN) python -m benchmarks.gates

benchmark-trainer: $(READY)
	$(RUN) python -m benchmarks.trainer

benchmark-gpu: $(READY)
	$(RUN) python -m benchmarks.gpu

benchmark-start: $(READY)
	$(RUN) python -m benchmarks.start --write

benchmark-kills: $(READY)
	$(RUN) python -m benchmarks.kills

test: $(READY)
	$(RUN) pytest

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports --no-cache
	$(RUN) snakefmt --check Snakefile workflow
	-$(RUN) snakemake --lint # what it still says is explained in the Snakefile

format: $(READY)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .
	$(RUN) snakefmt Snakefile workflow

lock:
	uv pip compile pyproject.toml --extra dev --extra sge --extra slurm --extra tensorboard \
	    --universal --python-version 3.11 --upgrade --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	    --output-file requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Expected Python 3.11 or newer, got $$($(PYTHON) --version). Set PYTHON=python3.11 or newer." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
