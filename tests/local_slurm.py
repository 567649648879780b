"""A real Slurm on this machine: one node, two cores, two stand-in GPUs, no accounting.

Debian's `slurm-wlm` and `munge`, started as root. The configuration has to lie in /etc/slurm,
because the executor starts `srun` inside jobs without SLURM_CONF; a configuration that is not ours
is left alone. `python -m tests.local_slurm` keeps one up until Ctrl-C, to try the slurm profile on.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.daemons import Daemons, command, leftovers, missing, running

CONFIGURATION = Path("/etc/slurm")
STATE = Path("/tmp/attention-ablation-slurm")
MARK = "# Written by attention-ablation's tests; safe to delete.\n"
DAEMONS = ("slurmctld", "slurmd")
GPUS = ("/dev/null", "/dev/zero")  # devices that every machine has and nobody's job misses


def why_not() -> str | None:
    """Return why no Slurm can be started here, None where it can."""
    if absent := missing(*DAEMONS, "sbatch", "munged"):
        return f"needs Debian's slurm-wlm and munge; {', '.join(absent)} not found"
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    file = CONFIGURATION / "slurm.conf"
    if file.exists() and MARK not in file.read_text():
        return f"{file} is a real cluster's"
    if set(running(*DAEMONS)) - set(leftovers(STATE, *DAEMONS)):
        return "a Slurm is running here already"
    return None


class LocalSlurm(Daemons):
    """The daemons; a context manager that starts and stops them."""

    def __init__(self) -> None:
        super().__init__(STATE)

    def __enter__(self) -> "LocalSlurm":
        self.begin(*DAEMONS)
        for name in ("state", "spool"):
            (STATE / name).mkdir()
        try:
            _configure()
            _start_munge()
            self.start("slurmctld", "-D", "-c")
            self.start("slurmd", "-D")
            self.until(lambda: "idle" in command("sinfo", "--noheader", "-o", "%T"), "an idle node")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "slurmctld" in self.daemons:
            command("scancel", "--signal=KILL", "--full", "--user=root", check=False)
            with suppress(TimeoutError, RuntimeError):
                self.until(lambda: not jobs(), "no job", seconds=15)
        for name in list(self.daemons):
            self.stop(name)
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)


def jobs(states: str = "PENDING,RUNNING") -> dict[str, str]:
    """Return the jobs in some states: Slurm's id and the comment, which names rule and run."""
    lines = command("squeue", "--noheader", f"--states={states}", "--format=%i %k").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _configure() -> None:
    host = socket.gethostname().split(".")[0]
    CONFIGURATION.mkdir(exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    settings = f"""ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
MinJobAge=300
KillWait=60
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0
StateSaveLocation={STATE}/state
SlurmdSpoolDir={STATE}/spool
SlurmctldPidFile={STATE}/slurmctld.pid
SlurmdPidFile={STATE}/slurmd.pid
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory * 3 // 4} Gres=gpu:{len(GPUS)}
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE
"""
    (CONFIGURATION / "slurm.conf").write_text(MARK + settings)
    devices = "".join(f"Name=gpu File={device}\n" for device in GPUS)
    (CONFIGURATION / "gres.conf").write_text(MARK + devices)


def _start_munge() -> None:
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge", "munge")
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)


if __name__ == "__main__":
    if reason := why_not():
        raise SystemExit(f"Slurm cannot be started here: {reason}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with LocalSlurm(), suppress(KeyboardInterrupt):
        print("Slurm is up: one node, 2 CPUs, 2 stand-in GPUs. Ctrl-C stops it.", flush=True)
        signal.pause()
