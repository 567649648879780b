"""The command's help: what nobody should wait for."""

import subprocess
import sys

HEAVY = ("numpy", "pandas", "pydantic", "torch", "yaml")
VERBS = """
import sys

from attention_ablation.cli.main import main

try:
    main(sys.argv[1:])
finally:
    print("imported:", *(name for name in {heavy} if name in sys.modules))
"""


def test_the_help_waits_for_no_library() -> None:
    for arguments in (["--help"], ["plan", "--help"], ["data", "download", "--help"]):
        code = VERBS.format(heavy=HEAVY)
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], text=True, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ")
        assert done.stdout.endswith("imported:\n")


def test_a_verb_does_import_them() -> None:
    """Or the test above would pass for a reason of its own."""
    code = VERBS.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", "--tier", "quick", "--set", "tables=[table1]"],
        text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert "pydantic" in done.stdout, done.stderr
