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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attention_ablation
from attention_ablation.base.signals import STOPS, end_with

ADDRESS = "ATTENTION_ABLATION_FORKSERVER"  # the path of its socket
# Read when torch is imported: who has another value imports it for itself.
THREADS = {"OMP_NUM_THREADS": "1"}
VERBS = {"prepare", "render", "train", "gradcam"}
NUMBER = 8  # bytes of each number that is sent


def start() -> None:
    """Start a server for the trainings that this process calls; it ends after this process."""
    import atexit
    import subprocess
    from tempfile import mkdtemp

    if not hasattr(os, "pidfd_open"):  # not Linux
        return
    folder = Path(mkdtemp(prefix="attention-ablation-"))  # of this user alone
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()  # who calls before torch is imported waits
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(listener.fileno())],
            env=os.environ | THREADS,
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # where it fails, trainings do not need it
            start_new_session=True,  # Ctrl-C reaches trainings by who handed them over
        )
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    os.environ[ADDRESS] = str(folder / "socket")


def hand_over(arguments: Sequence[str]) -> int | None:
    """Let the server run a command; return its exit code, None where no server does."""
    address = os.environ.pop(ADDRESS, None)
    alone = "LOCAL_RANK" in os.environ or not THREADS.items() <= os.environ.items()
    if address is None or alone or not VERBS & {*arguments[:1]}:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
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

        for stop in STOPS:
            signal.signal(stop, forward)
        try:
            return _number(server)
        except OSError:  # the server was killed, which stops what it forked
            return 128 + signal.SIGTERM


def serve(listener: socket.socket, workflow: int) -> None:
    """Fork a process for every call, until `workflow`, a pipe, is closed and the last has ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(workflow, select.POLLHUP)
    called: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of the process
    callers: dict[int, int] = {}  # the same descriptors by those of the sockets
    listening, server = True, os.getpid()
    while listening or called:
        for descriptor, _ in poll.poll():
            if descriptor == workflow:
                poll.unregister(workflow)
                poll.unregister(listener)
                listening = False
            elif descriptor in callers:  # who called was killed
                poll.unregister(descriptor)
                signal.pidfd_send_signal(callers[descriptor], signal.SIGTERM)
            elif descriptor in called:
                poll.unregister(descriptor)
                process, caller = called.pop(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                with suppress(OSError):
                    caller.sendall(_bytes(code if code >= 0 else 128 - code))
                with suppress(KeyError):
                    poll.unregister(caller)
                del callers[caller.fileno()]
                caller.close()
                os.close(descriptor)
            elif listening:
                caller = listener.accept()[0]
                process = os.fork()
                if not process:
                    _become(caller, server, [listener.fileno(), *called, *callers])
                descriptor = os.pidfd_open(process)
                called[descriptor], callers[caller.fileno()] = (process, caller), descriptor
                poll.register(descriptor, select.POLLIN)
                poll.register(caller, select.POLLRDHUP)
                with suppress(OSError):
                    caller.sendall(_bytes(process))


def _become(caller: socket.socket, server: int, unneeded: list[int]) -> None:
    """Be the command that called, from its arguments to its exit."""
    from attention_ablation.cli.main import script

    try:
        end_with(server, signal.SIGTERM)
        length, descriptors, _, _ = socket.recv_fds(caller, NUMBER, 3)
        request = _received(caller, int.from_bytes(length))
        arguments, folder, environment = json.loads(request)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in (caller.detach(), *descriptors, *unneeded):
            os.close(descriptor)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        attention_ablation.STARTED = time.perf_counter()
        sys.argv = ["attention-ablation", *arguments]
        script()
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
    # Importing makes millions of objects that stay; the collector would go through them again and
    # again, and, in each forked process, copy their pages.
    gc.disable()
    from shutil import rmtree

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
