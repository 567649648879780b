"""A training that is killed at any moment of its end leaves what an undisturbed one leaves."""

import shutil
import signal
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from attention_ablation.cli.main import main
from attention_ablation.study.expand import Plan
from attention_ablation.training.classify import Classification
from tests.forked import Child, die_at_write
from tests.test_training import history, small_run, spec_file


# Twenty processes that train for a moment, and as many that go on from there.
def test_killed_at_any_write_of_its_end_a_training_leaves_what_another_one_leaves(
    tiny: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_file(small_run(tiny, epochs=2)).resolve()
    folder, saved = spec.parent, tmp_path / "saved"

    def dies(_: Classification, row: dict[str, float]) -> str:
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(Classification, "describe", dies)
        with pytest.raises(KeyboardInterrupt):
            main(["train", str(spec)])
    shutil.copytree(folder, saved)
    assert len(list(saved.glob("checkpoint-*.pt"))) == 2  # nothing but the end is left to do
    assert main(["train", str(spec)]) == 0
    names, expected = names_in(folder), history(folder)
    left = set()
    for number in count(1):
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)
        child = Child(["train", str(spec)], tmp_path / "log", partial(die_at_write, number))
        assert child.wait(child.ended, 60)
        if child.code == 0:
            break
        assert child.code == -signal.SIGKILL
        left |= names_in(folder) - names
        if (folder / "metrics.json").exists():  # the workflow takes that for a run that is done
            assert names_in(folder) == names
        assert main(["train", str(spec)]) == 0
        assert names_in(folder) == names
        assert history(folder) == expected
    assert number > 10
    assert {".result.json.part", ".metrics.json.part", "checkpoint.part"} <= left


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
