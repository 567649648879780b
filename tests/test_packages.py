"""Packages that a user's gate imports: part of its run's identity, and held to when it is made."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from attention_ablation.base.errors import UserError
from attention_ablation.cli.main import main
from attention_ablation.gates.build import build_gate
from attention_ablation.gates.packages import providers
from attention_ablation.gates.record import Attention, seal
from attention_ablation.networks.record import Backbone
from attention_ablation.report.collect import collect
from attention_ablation.spec.spec import Spec
from tests.conftest import plan_from, tiny_project
from tests.test_own_gate import GATE, add_row


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a package `thermo` installed, which is imported as `thermopile`."""
    (tmp_path / "site/thermopile").mkdir(parents=True)
    (tmp_path / "site/thermopile/__init__.py").write_text("")
    (tmp_path / "site/helpers.py").write_text("")
    install(tmp_path, "1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    providers.cache_clear()
    yield tmp_path
    providers.cache_clear()


def install(folder: Path, version: str) -> None:
    about = folder / "site/thermo-1.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thermo\nVersion: {version}\n")
    (about / "RECORD").write_text("thermopile/__init__.py,,\n")


def own(imports: str, **given: object) -> Attention:
    Path("my_module.py").write_text(f"{imports}\n{GATE}")
    return seal(Attention.model_validate({"module": "my_module.py:MyGate", **given}), Path(), "it")


@pytest.mark.parametrize(
    "imports",
    [
        "import thermopile",
        "import math, thermopile.parts as parts",
        "from thermopile.parts import one",
        "def later():\n    import thermopile",
        "try:\n    import thermopile\nexcept ImportError:\n    thermopile = None",
    ],
)
def test_an_imported_package_is_recorded_by_its_name_and_version(imports: str) -> None:
    assert own(imports).packages == {"thermo": "1.0"}


@pytest.mark.parametrize(
    "imports",
    [
        "",
        "import json, numpy, torch.nn, torchvision\nfrom attention_ablation.gates import parts",
        "import helpers  # a file of the user's own",
        "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None",
        "# import thermopile",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import thermopile",
        "import typing as t\nif t.TYPE_CHECKING:\n    import nowhere\nelse:\n    import math",
    ],
)
def test_other_imports_leave_the_record_as_it_was(imports: str) -> None:
    assert "packages" not in own(imports).model_dump(exclude_none=True)


def test_what_stands_beside_an_import_for_type_checkers_is_recorded() -> None:
    imports = "if TYPE_CHECKING:\n    import nowhere\nelse:\n    import thermopile"
    assert own(f"from typing import TYPE_CHECKING\n{imports}").packages == {"thermo": "1.0"}


def test_an_optional_package_that_is_absent_is_planned_and_made_without(folder: Path) -> None:
    optional = "try:\n    import nowhere.parts\nexcept ImportError:\n    nowhere = None"
    assert dict(build_gate(own(optional), 16).named_parameters())
    tiny_project(folder)
    add_row(folder)
    assert main(["plan"]) == 0
    assert main(["check", "my_module.py:MyGate", "--channels", "16"]) == 0


def test_a_package_that_is_not_installed_is_a_sentence_without_running_the_file() -> None:
    with pytest.raises(UserError, match=r"my_module.py: it imports 'nowhere' \(line 2\), which is"):
        own("raise SystemExit\nfrom nowhere.parts import one")


def test_another_version_is_another_run_and_not_the_planned_one(folder: Path) -> None:
    planned = own("import thermopile")
    install(folder, "1.1")
    now = own("import thermopile")
    assert now.module_sha256 == planned.module_sha256
    assert canonical(now) == canonical(planned).replace('"1.0"', '"1.1"')
    assert dict(build_gate(now, 16).named_parameters())
    with pytest.raises(UserError, match=r"expected thermo 1.0, which my_module.py was planned wit"):
        build_gate(planned, 16)
    with pytest.raises(UserError, match=r"got thermo 1.1. Plan the run again"):
        own("import thermopile", packages={"thermo": "1.0"})
    with pytest.raises(UserError, match=r"got no packages"):
        own("", packages={"thermo": "1.0"})


def canonical(gate: Attention) -> str:
    spec = Spec.model_construct(backbone=Backbone(name="resnet18"), attention=gate, recipe=None)
    return spec.canonical()


def test_the_plan_says_so_in_a_runs_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_project(folder)
    add_row(folder)

    def ids() -> set[str]:
        assert main(["plan", "--runs"]) == 0
        return {word for word in capsys.readouterr().out.split() if "mygate" in word}

    (folder / "my_module.py").write_text(GATE)
    plain = ids()
    install(folder, "1.1")
    assert ids() == plain
    (folder / "my_module.py").write_text("import thermopile\n" + GATE)
    first = ids()
    install(folder, "1.2")
    assert not first & plain
    assert not first & ids()


def test_runs_csv_has_columns_of_packages_where_a_gate_has_some(folder: Path) -> None:
    tiny_project(folder)
    add_row(folder)

    def columns() -> set[str]:
        found = collect(plan_from(Path("config.yaml"))).columns
        return {name for name in found if re.search("packages|initial|front_end", name)}

    (folder / "my_module.py").write_text(GATE)
    assert columns() == set()
    (folder / "my_module.py").write_text("import thermopile\n" + GATE)
    assert columns() == {"attention.packages.thermo"}
