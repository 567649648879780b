"""Regenerate a paper's tables: the verbs that the workflow calls, and a person may."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from attention_ablation import __version__
from attention_ablation.base.errors import UserError
from attention_ablation.base.registry import modules
from attention_ablation.cli.forkserver import hand_over


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 for a bad finding, 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options) or 0)
    except UserError as error:
        print(f"attention-ablation: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    """Return the command with a verb for every module of this package that has a `run`.

    Such a module says what the verb does in its first line and adds its options in `add_options`;
    it imports torch, pandas and matplotlib in `run` alone, so that the help of all is fast.
    """
    parser = argparse.ArgumentParser(prog="attention-ablation", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for module in modules("attention_ablation.cli"):
        if run := getattr(module, "run", None):
            title = (module.__doc__ or "").splitlines()[0]
            name = module.__name__.rpartition(".")[2]
            verb = verbs.add_parser(name, help=title, description=title)
            verb.set_defaults(verb=run)
            module.add_options(verb)
    return parser


def script() -> None:
    """Run one verb as a command, and leave at once, however it ends.

    Python's own end waits for other processes, and takes torch apart, which takes 0.7 s.
    """
    # In a locale of old: all files and output are UTF-8.
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    code = 1
    try:
        forked = hand_over(sys.argv[1:])
        code = main() if forked is None else forked
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        pass
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the disk is full, or nobody reads
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    script()
