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
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
STATE = Path("/tmp/attention-ablation-slurm")
MARK = "# Written by attention-ablation's tests; safe to delete.\n"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
GPUS = ("/dev/null", "/dev/zero")  # devices that every machine has and nobody's job misses


def why_not() -> str | None:
    """Return why no Slurm can be started here, None where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"needs Debian's slurm-wlm and munge; {', '.join(missing)} not found"
    if os.geteuid() != 0:
        return "starting Slurm's daemons needs root"
    file = CONFIGURATION / "slurm.conf"
    if file.exists() and MARK not in file.read_text():
        return f"{file} is a real cluster's"
    if set(_running()) - set(_leftovers()):
        return "a Slurm is running here already"
    return None


class LocalSlurm:
    """The daemons; a context manager that starts and stops them."""

    def __init__(self) -> None:
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "LocalSlurm":
        for pid in _leftovers():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(STATE, ignore_errors=True)
        for name in ("state", "spool", "log"):
            (STATE / name).mkdir(parents=True)
        (STATE / "owner").write_text(str(os.getpid()))
        try:
            _configure()
            _start_munge()
            self.start("slurmctld", "-c")
            self.start("slurmd")
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

    def start(self, name: str, *options: str) -> None:
        """Start a daemon, in the foreground of a process of its own."""
        program = shutil.which(name, path=_path())
        assert program
        with (STATE / "log" / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [program, "-D", *options], stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, name: str) -> None:
        """Kill a daemon as a power cut would; jobs that run go on."""
        process = self.daemons.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def until(
        self, holds: Callable[[], object], what: str, seconds: float = 300, pause: float = 0.2
    ) -> None:
        """Wait until `holds()`, asking every `pause` seconds.

        Raises TimeoutError that names `what` was awaited.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                logs = [path.read_text()[-2000:] for path in (STATE / "log").glob("*.log")]
                raise TimeoutError(f"waited {seconds} s for {what}\n" + "\n".join(logs))
            time.sleep(pause)


def jobs(states: str = "PENDING,RUNNING") -> dict[str, str]:
    """Return the jobs in some states: Slurm's id and the comment, which names rule and run."""
    lines = command("squeue", "--noheader", f"--states={states}", "--format=%i %k").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def command(*arguments: str, check: bool = True) -> str:
    """Run one of Slurm's commands and return what it printed."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin"


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


def _running() -> list[int]:
    """Return the processes of Slurm's daemons on this machine."""
    done = subprocess.run(
        ["pgrep", "-x", "slurmctld|slurmd"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in done.stdout.split()]


def _leftovers() -> list[int]:
    """Return the daemons of an earlier run of the tests that was itself killed."""
    owner = STATE / "owner"
    if not owner.exists() or Path("/proc", owner.read_text()).exists():
        return []
    files = [file for file in STATE.glob("*.pid") if file.read_text().strip()]
    return [pid for file in files if (pid := int(file.read_text())) in _running()]


if __name__ == "__main__":
    if reason := why_not():
        raise SystemExit(f"Slurm cannot be started here: {reason}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with LocalSlurm(), suppress(KeyboardInterrupt):
        print("Slurm is up: one node, 2 CPUs, 2 stand-in GPUs. Ctrl-C stops it.", flush=True)
        signal.pause()
