"""A real Grid Engine on this machine: one host, two slots, two stand-in GPUs.

Debian's `gridengine-master`, `gridengine-exec` and `gridengine-client`, started as root. SGE_ROOT
and ports are its own: nothing outside of one folder in /tmp is written. `python -m tests.local_sge`
keeps one up until Ctrl-C, to try the sge profile on, and prints what a shell needs for that.
"""

import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from tests.daemons import Daemons, command, leftovers, missing, running

STATE = Path("/tmp/attention-ablation-sge")
DAEMONS = ("sge_qmaster", "sge_execd")
ENVIRONMENT = {
    "SGE_ROOT": str(STATE),
    "SGE_CELL": "default",
    "SGE_QMASTER_PORT": "16444",
    "SGE_EXECD_PORT": "16445",
}
SPOOL = STATE / "spool"
COMMON = STATE / "default/common"
DEBIAN = Path("/usr/share/gridengine")
TOOLS = Path("/usr/lib/gridengine")

BOOTSTRAP = f"""admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {COMMON};{SPOOL}/qmaster
binary_path /usr/sbin
qmaster_spool_dir {SPOOL}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
PARALLEL = """pe_name smp
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


def why_not() -> str | None:
    """Return why no Grid Engine can be started here, None where it can."""
    if absent := missing(*DAEMONS, "qsub"):
        return (
            "needs Debian's gridengine-master, gridengine-exec and gridengine-client; "
            f"{', '.join(absent)} not found"
        )
    if os.geteuid() != 0:
        return "starting Grid Engine's daemons needs root"
    if set(running(*DAEMONS)) - set(leftovers(STATE, *DAEMONS)):
        return "a Grid Engine is running here already"
    return None


class LocalGridEngine(Daemons):
    """The daemons; a context manager that starts and stops them, and has commands reach them."""

    def __init__(self) -> None:
        super().__init__(STATE)
        # Without SGE_ND a daemon goes into the background.
        self.environment = patch.dict(os.environ, ENVIRONMENT | {"SGE_ND": "1"})

    def __enter__(self) -> "LocalGridEngine":
        self.begin(*DAEMONS)
        self.environment.start()
        try:
            host = socket.gethostname().split(".")[0]
            _install(host)
            self.start("sge_qmaster")
            self.until(lambda: _admit(host), "the master")
            self.start("sge_execd")
            self.until(lambda: f"\n{host} " in command("qhost", check=False), "the host")
            _configure(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "sge_qmaster" in self.daemons:
            command("qdel", "-u", "root", check=False)
            with suppress(TimeoutError):
                self.until(lambda: not command("qstat", check=False), "no job", seconds=30)
        for name in list(self.daemons):
            self.stop(name)
        self.environment.stop()


def _install(host: str) -> None:
    """Write what the master reads when it starts."""
    for folder in (COMMON, SPOOL / "qmaster", SPOOL / "execd"):
        folder.mkdir(parents=True)
    for name in ("bin", "utilbin", "util", "lib"):
        (STATE / name).symlink_to(Path("/var/lib/gridengine") / name)
    (COMMON / "bootstrap").write_text(BOOTSTRAP)
    (COMMON / "act_qmaster").write_text(host)
    # Where the host's name is an alias of 127.0.0.1, this daemon is "localhost" to that one.
    (COMMON / "host_aliases").write_text(f"{host} localhost")
    command(str(TOOLS / "spoolinit"), "classic", "libspoolc", f"{COMMON};{SPOOL}/qmaster", "init")
    text = (DEBIAN / "default-configuration").read_text()
    configuration = _file(
        _changed(text, execd_spool_dir=f"{SPOOL}/execd", min_uid="0", min_gid="0")
    )
    for what, source in {
        "configuration": configuration,
        "complexes": str(DEBIAN / "util/resources/centry"),
        "usersets": str(DEBIAN / "util/resources/usersets"),
        "managers": "root",
    }.items():
        command(str(TOOLS / "spooldefaults"), what, source)


def _admit(host: str) -> bool:
    """Let the host submit jobs; say whether the master took it, which begins to listen slowly."""
    command("qconf", "-as", host, check=False)
    return host in command("qconf", "-ss", check=False).split()


def _configure(host: str) -> None:
    """Give the cluster a queue of two slots, a parallel environment, and two GPUs to ask for."""
    command("qconf", "-Ap", _file(PARALLEL))
    queue = _changed(
        command("qconf", "-sq"),
        qname="main.q", hostlist=host, slots="2", pe_list="smp", load_thresholds="NONE",
        notify="00:00:15",
    )  # fmt: skip
    command("qconf", "-Aq", _file(queue))
    command("qconf", "-Mc", _file(command("qconf", "-sc") + "gpu gpu INT <= YES YES 0 0\n"))
    command("qconf", "-mattr", "exechost", "complex_values", "gpu=2", host)
    scheduler = _changed(
        command("qconf", "-ssconf"),
        schedule_interval="0:0:1", flush_submit_sec="1", flush_finish_sec="1",
    )  # fmt: skip
    command("qconf", "-Msconf", _file(scheduler))


def _changed(text: str, **values: str) -> str:
    for name, value in values.items():
        text = re.sub(rf"(?m)^{name}\s.*$", f"{name} {value}", text)
    return text


def _file(text: str) -> str:
    path = STATE / "new"
    path.write_text(text)
    return str(path)


if __name__ == "__main__":
    if reason := why_not():
        raise SystemExit(f"Grid Engine cannot be started here: {reason}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with LocalGridEngine(), suppress(KeyboardInterrupt):
        print("Grid Engine is up: one host, 2 slots, 2 stand-in GPUs. Ctrl-C stops it. To use it:")
        print("export", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), flush=True)
        signal.pause()
