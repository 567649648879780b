"""Composed data sets in their files: damage is seen and made good, and a kill leaves nothing."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attention_ablation.cli.main import main
from attention_ablation.datasets.contract import Folders, load
from attention_ablation.datasets.digits import ClutteredDigits, ClutteredScenes
from attention_ablation.datasets.reading.kept import composed_arrays, keep
from attention_ablation.study.expand import Plan
from tests import test_data, test_detection_data
from tests.test_training import history, small_run, spec_file

DIGITS, SCENES = test_data.dataset(), test_detection_data.dataset()
Composed = ClutteredDigits | ClutteredScenes
Changed = dict[str, Any]


def fingerprint(dataset: Composed, folder: Path) -> str:
    return str(load(dataset, Folders(folder, folder)).fingerprint)


def bit(arrays: Changed) -> None:
    arrays["train_images"][3, 5, 7] ^= 1


def shuffled(arrays: Changed) -> None:
    arrays["train_labels"] = arrays["train_labels"][::-1]


def half(arrays: Changed) -> None:
    for name in [name for name in arrays if name.startswith("train_")]:
        arrays[name] = arrays[name][: len(arrays[name]) // 2]


def smaller(arrays: Changed) -> None:
    for split in ("train", "validation"):
        arrays[f"{split}_images"] = arrays[f"{split}_images"][:, ::2, ::2]


def validation_is_training(arrays: Changed) -> None:
    for name in [name for name in arrays if name.startswith("train_")]:
        arrays[name.replace("train", "validation")] = arrays[name]


def missing(arrays: Changed) -> None:
    del arrays["validation_labels"]


def of_other_types(arrays: Changed) -> None:
    arrays["train_images"] = arrays["train_images"].astype(float)


class Opened:
    """What makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("unpickled",)


def pickled(arrays: Changed) -> None:
    arrays["train_labels"] = np.array([Opened()], object)


def rewrite(change: Callable[[Changed], None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with np.load(path) as found:
            arrays = {name: found[name].copy() for name in found}
        change(arrays)
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return write


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def of_another_data_set(path: Path) -> None:
    other = DIGITS.model_copy(update={"seed": 1})
    composed_arrays(other, path.parent / "other")
    path.write_bytes((path.parent / "other" / other.prepared).read_bytes())


CHANGES = [
    *map(rewrite, [bit, shuffled, half, smaller, validation_is_training]),
    *map(rewrite, [missing, of_other_types, pickled]),
    *(flip, cut, of_another_data_set),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(pickle.dumps(Opened())),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dataset", [DIGITS, SCENES], ids=["digits", "scenes"])
def test_a_composed_file_that_was_changed_is_composed_again_and_said_to_be(
    dataset: Composed,
    change: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = fingerprint(dataset, tmp_path)
    path = tmp_path / dataset.prepared
    whole = dict(composed_arrays(dataset, tmp_path))
    assert capsys.readouterr().err == ""
    change(path)
    assert fingerprint(dataset, tmp_path) == expected
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {path}: expected the file as it was written, but ")
    assert warning.endswith("It is made again.\n")
    found = composed_arrays(dataset, tmp_path)
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values)
    assert capsys.readouterr().err == ""
    assert not Path("unpickled").exists()


def test_a_file_that_another_version_of_a_package_composed_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("attention_ablation.datasets.reading.kept.version", lambda name: "0.1")
        earlier.setattr(
            "attention_ablation.datasets.digits.MASK_LEVEL", 99
        )  # as if it drew otherwise
        earlier.setattr("attention_ablation.datasets.digits.FRAGMENT_SHARE", 0.5)
        other = load(DIGITS, Folders(tmp_path, tmp_path))
    again = load(DIGITS, Folders(tmp_path, tmp_path))
    assert again.fingerprint == other.fingerprint != fingerprint(DIGITS, tmp_path / "new")
    assert again.composed_with == "numpy 0.1, scikit-learn 0.1, torch 0.1"
    assert capsys.readouterr().err == ""


def test_a_training_on_damaged_data_has_the_numbers_of_one_on_sound_data(
    tiny: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_file(small_run(tiny, "resnet50+se"))
    dataset = small_run(tiny, "resnet50+se").spec.recipe.dataset
    assert main(["train", str(spec)]) == 0
    expected = history(spec.parent)
    for path in spec.parent.iterdir():
        if path != spec:
            path.unlink()
    rewrite(shuffled)(tiny.data_folder / dataset.prepared)
    assert main(["train", str(spec)]) == 0
    assert "It is made again." in capsys.readouterr().err
    assert history(spec.parent) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
from attention_ablation.cli.main import main
Path.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
main(["prepare", *sys.argv[1:]])
"""


def test_a_kill_while_composing_leaves_nothing_that_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [DIGITS.model_dump_json(), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir() if path.name != ".lock"] == [".part"]
    assert main(["prepare", *arguments]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", DIGITS.prepared]
    output = capsys.readouterr()
    assert (output.out, output.err) == (f"{tmp_path / DIGITS.prepared}\n", "")


def test_of_several_that_need_a_file_one_makes_it(tmp_path: Path) -> None:
    path, made = tmp_path / "data/file", []

    def make() -> dict[str, Any]:
        made.append(path)
        time.sleep(0.2)  # the others come meanwhile
        return {"whole": np.arange(3)}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: keep(path, make), range(8)))
    assert [arrays["whole"].tolist() for arrays in found] == [[0, 1, 2]] * 8
    assert len(made) == 1


RECORD = DIGITS.model_dump_json()


@pytest.mark.parametrize(
    ("record", "folder", "message"),
    [
        (RECORD, "file", r"file: expected a folder that can be written, got: File exists\."),
        (RECORD, "file/below", r"below: expected a folder that .* got: Not a directory\."),
        ("{", "data", r"prepare: this is not valid JSON: .* line 1"),
        ("[" * 100_000, "data", r"prepare: this is not valid JSON: .*recursion"),
        ("3", "data", r"prepare: dataset: input should be a valid dictionary .* got 3"),
        ("{}", "data", r"prepare: the key 'dataset\.name' is missing"),
        ('{"name": "cluttered-digitz"}', "data", r"did you mean 'cluttered-digits'\?"),
        (RECORD.replace("32", '"32"'), "data", r"dataset\.image_size: input should be a valid int"),
    ],
)
def test_prepare_refuses_in_sentences(
    record: str,
    folder: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["prepare", record, folder]) == 2
    error = capsys.readouterr().err
    assert error.startswith("attention-ablation: ")
    assert re.search(message, error)
