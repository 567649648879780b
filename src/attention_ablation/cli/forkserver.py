"""A process that has imported torch, and forks the workflow's jobs: short trainings start at once.

The workflow starts it where all of its runs are short, and it ends after the workflow. A verb of
VERBS then hands itself over: the forked process takes its arguments, folder, environment and
output, and goes on as it would have. A crash ends one alone.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import attention_ablation
from attention_ablation.base.signals import STOPS, end_with

# Where its socket is, and the package whose code it runs.
ADDRESS = "ATTENTION_ABLATION_FORKSERVER"
PACKAGE = Path(attention_ablation.__file__).parent
VERBS = {"prepare", "render", "train", "gradcam"}
# Libraries read it when they are imported: who has another value imports them for itself.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
NUMBER = 8  # bytes of each number that is sent


class Job(NamedTuple):
    """A forked process: its number, a descriptor that is readable at its end, and who called."""

    process: int
    ended: int
    caller: socket.socket


def start() -> None:
    """Start a server for the commands that this process calls; it ends after this process.

    Where the system refuses one there is none, and commands import torch for themselves.
    """
    import atexit
    import subprocess
    from shutil import rmtree
    from tempfile import mkdtemp

    if not hasattr(os, "pidfd_open"):  # not Linux
        return
    folder = None
    try:
        folder = Path(mkdtemp(prefix="attention-ablation-"))  # of this user alone
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "socket"))
            listener.listen()  # who calls before torch is imported waits
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder), str(listener.fileno())],
                # Snakemake gives its jobs the first three.
                env=os.environ
                | {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL", "NUMEXPR")}
                | {"PYTHONUTF8": "1"}
                | ONE_THREAD,
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches its jobs by who handed them over
            )
    except OSError:
        if folder:
            rmtree(folder, ignore_errors=True)
        return
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    os.environ[ADDRESS] = f"{folder / 'socket'}{os.pathsep}{PACKAGE}"


def hand_over(arguments: Sequence[str]) -> int | None:
    """Let the server run a command; return its exit code, None where no server does."""
    address, _, package = os.environ.pop(ADDRESS, "").rpartition(os.pathsep)
    alone = "LOCAL_RANK" in os.environ or not ONE_THREAD.items() <= os.environ.items()
    if not address or alone or not VERBS & {*arguments[:1]}:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            # Code that was edited since would be recorded as what ran.
            began = Path(address).stat().st_mtime
            if package != str(PACKAGE) or any(
                path.stat().st_mtime > began for path in PACKAGE.rglob("*.py")
            ):
                return None
            server.connect(address)
            request = json.dumps([list(arguments), str(Path.cwd()), dict(os.environ)]).encode()
            socket.send_fds(server, [_bytes(len(request))], [0, 1, 2])
            server.sendall(request)
            process = _number(server)
        except OSError:
            return None

        def forward(number: int, _: object) -> None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(process, number)

        def pause(_: int, __: object) -> None:  # Ctrl-Z, until `fg` or `bg`
            forward(signal.SIGSTOP, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            forward(signal.SIGCONT, None)

        for stop in STOPS:
            signal.signal(stop, forward)
        signal.signal(signal.SIGTSTP, pause)
        try:
            return _number(server)
        except OSError:  # the server was killed, which stops what it forked
            return 128 + signal.SIGTERM


def serve(listener: socket.socket, workflow: int) -> None:
    """Fork a process for every call, until `workflow`, a pipe, is closed and the last has ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(workflow, select.POLLHUP)
    jobs: dict[int, Job] = {}  # by each of their descriptors
    listening = True
    while listening or jobs:
        for descriptor, _ in poll.poll():
            if descriptor == workflow:
                poll.unregister(workflow)
                poll.unregister(listener)
                listener.close()
                listening = False
            elif descriptor in jobs:
                job = jobs.pop(descriptor)
                poll.unregister(descriptor)
                if descriptor == job.ended:
                    if jobs.pop(job.caller.fileno(), None):
                        poll.unregister(job.caller)
                    _conclude(job)
                else:  # who called was killed
                    signal.pidfd_send_signal(job.ended, signal.SIGTERM)
            elif listening and descriptor == listener.fileno():
                # Where the system refuses a process or a descriptor, who called goes on alone.
                with suppress(OSError):
                    job = _fork(listener, [*jobs])
                    jobs |= {job.ended: job, job.caller.fileno(): job}
                    poll.register(job.ended, select.POLLIN)
                    poll.register(job.caller, select.POLLRDHUP)


def _fork(listener: socket.socket, others: list[int]) -> Job:
    """Answer a call. `others` are the descriptors of other jobs."""
    caller, server = listener.accept()[0], os.getpid()
    process = 0
    try:
        process = os.fork()
        if not process:
            listener.close()
            _become(caller, server, others)
        ended = os.pidfd_open(process)
    except OSError:
        caller.close()
        if process:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        raise
    with suppress(OSError):
        caller.sendall(_bytes(process))
    return Job(process, ended, caller)


def _conclude(job: Job) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(job.process, 0)[1])
    with suppress(OSError):
        job.caller.sendall(_bytes(code if code >= 0 else 128 - code))
    job.caller.close()
    os.close(job.ended)


def _become(caller: socket.socket, server: int, others: list[int]) -> None:
    """Be the command that called, from its arguments to its exit."""
    try:
        end_with(server, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        length, descriptors, _, _ = socket.recv_fds(caller, NUMBER, 3)
        arguments, folder, environment = json.loads(_received(caller, int.from_bytes(length)))
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in (caller.detach(), *descriptors, *others):
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        attention_ablation.STARTED = time.perf_counter()
        sys.argv = ["attention-ablation", *arguments]
        from attention_ablation.cli.main import script

        script()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _bytes(number: int) -> bytes:
    return number.to_bytes(NUMBER)


def _number(sender: socket.socket) -> int:
    return int.from_bytes(_received(sender, NUMBER))


def _received(sender: socket.socket, length: int) -> bytes:
    """Return so many bytes; raises ConnectionError where they do not come."""
    content = b""
    while len(content) < length:
        if not (part := sender.recv(length - len(content))):
            raise ConnectionError
        content += part
    return content


def main(folder: str, descriptor: str) -> None:
    from shutil import rmtree

    # They are its jobs', also where all processes get them, as at a time limit.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    # Importing makes millions of objects that stay; the collector would go through them again and
    # again, and, in each forked process, copy their pages.
    gc.disable()
    import attention_ablation.training.attempt
    import attention_ablation.training.classify
    import attention_ablation.training.run  # noqa: F401

    gc.freeze()
    gc.enable()
    try:
        with socket.socket(fileno=int(descriptor)) as listener:
            serve(listener, sys.stdin.fileno())
    finally:
        rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
