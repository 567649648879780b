"""Specs, data sets, trainings, backbones for detectors, Grad-CAM. A run is addressed by its content: see spec/spec.py."""


wildcard_constraints:
    run="[^/]+",
    seed=r"\d+",


# Small enough for a login node; only trainings go to a cluster.
localrules:
    spec,
    data,
    backbone,


rule spec:
    output:
        f"{RUN}/spec.json",
    priority: FIRST
    params:
        text=lambda wildcards: run_of(wildcards).canonical(),
    # Whole or not at all, however the shell ends.
    shell:
        "printf '%s\\n' {params.text:q} > {output:q}.part && mv -f {output:q}.part {output:q}"


rule data:
    output:
        f"{PLAN.data_folder}/{{prepared}}",
    log:
        f"{PLAN.data_folder}/{{prepared}}.log",
    priority: data_priority
    params:
        dataset=lambda wildcards: COMPOSED[wildcards.prepared].model_dump_json(),
        folder=PLAN.data_folder,
    shell:
        "attention-ablation prepare {params.dataset:q} {params.folder:q} > {log:q} 2>&1"


# Inputs are `ancient`: their content is in the run's id, so their age says nothing. There are no
# params, so that a run is trained again only if its path changes. By-products stay in the folder
# undeclared, because Snakemake deletes declared files before a job and after a failure.
rule train:
    input:
        spec=ancient(f"{RUN}/spec.json"),
        data=ancient(composed_data),
        initial=ancient(initial_weights),
    output:
        metrics=f"{RUN}/metrics.json",
        history=f"{RUN}/history.csv",
    # No `log:` either, for the same reason; an attempt appends to train.log.
    # On a terminal, progress bars would write over the log's end; why it failed is said at the end.
    # A run of before an edit of the tier is in no plan.
    priority: lambda wildcards: COST.priority.get(run_of(wildcards).path, 0)
    threads: 1
    # A profile may set each of these; `launcher` is a command that the training's is appended to.
    resources:
        runtime=lambda wildcards, attempt: job_minutes(wildcards, attempt),
        mem_mb=job_memory,
        attempt=lambda wildcards, attempt: attempt,
        device="auto",
        runs_per_gpu=1,
        launcher="",
    shell:
        """
        trap : TERM INT USR1 USR2 # a shell that dies of it takes the training along before it has saved
        log=$(dirname {input.spec:q})/train.log
        [ -z {resources.launcher:q} ] || unset ATTENTION_ABLATION_FORKSERVER # a launcher is meant for the training
        OMP_NUM_THREADS={threads} {resources.launcher} attention-ablation train {input.spec:q} \
            --data {PLAN.data_folder:q} --datasets {PLAN.datasets_folder:q} \
            --threads {threads} --workers {threads} --device {resources.device} \
            --runs-per-gpu {resources.runs_per_gpu} --attempt {resources.attempt} >>"$log" 2>&1 \
            || {{ code=$?; [ -t 2 ] || tail -n 3 "$log" >&2; exit $code; }}
        """


# The final weights of a run that others start from (a detector's backbone, a front-end), as an output
# that is declared and kept; the run's own weights.pt is not, so that Snakemake never deletes it.
rule backbone:
    input:
        f"{RUN}/metrics.json",
    output:
        f"{RUN}/backbone.pt",
    log:
        f"{RUN}/backbone.log",
    priority: FIRST
    shell:
        "(cp {PLAN.runs_folder:q}/{wildcards.run:q}/seed-{wildcards.seed}/weights.pt {output:q}.part"
        " && mv -f {output:q}.part {output:q}) 2> {log:q}"


# Only for the runs that a Grad-CAM figure shows. A matter of seconds. No params, as above. Metrics are
# not `ancient`: a run that was trained again is explained again.
rule gradcam:
    input:
        spec=ancient(f"{RUN}/spec.json"),
        data=ancient(composed_data),
        metrics=f"{RUN}/metrics.json",
    output:
        multiext(f"{RUN}/gradcam", ".json", ".csv", ".npz"),
    log:
        f"{RUN}/gradcam.log",
    threads: 1
    resources:
        runtime=30,
        mem_mb=job_memory,
        device="auto",
        runs_per_gpu=1,
    shell:
        "OMP_NUM_THREADS={threads} attention-ablation gradcam {input.spec:q}"
        " --data {PLAN.data_folder:q} --datasets {PLAN.datasets_folder:q}"
        " --threads {threads} --workers {threads} --device {resources.device}"
        " --runs-per-gpu {resources.runs_per_gpu} > {log:q} 2>&1"
