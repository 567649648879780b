#!/bin/sh
# properties = {properties}
# Grid Engine warns every process of a job, by SIGUSR1 and SIGUSR2. What is started here passes over
# that; a training, which meets the warning, stops with a checkpoint.
trap '' USR1 USR2
# For status.sh. A job that is killed leaves no such file.
trap 'echo $? > ".snakemake/sge/$JOB_ID.exit"' EXIT
# A folder of this job alone, where no other training would see which GPU it has locked.
unset TMPDIR TMP
{exec_job}
