"""What the tests share: the repository's study, and a project folder with a tier of seconds."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from attention_ablation.cli.main import main
from attention_ablation.study.config import Config, Study
from attention_ablation.study.expand import Plan, load_plan
from attention_ablation.study.files import load_study, merged
from tests.controls import load
from tests.photos import CLASSES, encoded, folder, photo
from tests.run_folders import ROWS, SEEDS, finished

ROOT = Path(__file__).parents[1]
# A busy machine is no fault of what is tested.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def study() -> Study:
    """The CBAM study."""
    return load_study(ROOT / "workflow/studies", "cbam", "a test")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the workflow whose default tier, 'tiny', trains a network in a second."""
    return tiny_project(tmp_path)


def tiny_project(folder: Path) -> Path:
    """Write that copy into a folder, and return it."""
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    shutil.copy(ROOT / "Snakefile", folder)
    tier = yaml.safe_load((ROOT / "workflow/tiers/quick.yaml").read_text())
    recipe = tier["classification"]["recipe"]
    recipe["dataset"] |= {"train_images": 64, "validation_images": 50}
    recipe |= {"epochs": 2, "batch_size": 16}
    tier["classification"].pop("backbones")
    for detector in tier["detection"].values():
        detector.pop("backbones", None)
        recipe = detector["recipe"]
        recipe["dataset"] |= {"train_images": 16, "validation_images": 8}
        recipe |= {"epochs": 2, "evaluate_every": 2, "batch_size": 4}
    write_yaml(folder / "workflow/tiers/tiny.yaml", tier)
    config = {"study": "cbam", "tier": "tiny", "tables": ["table3"]}
    write_yaml(folder / "config.yaml", config)
    return folder


@pytest.fixture
def tiny(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Table 3 at the tiny tier, three seeds, with the project as the working folder."""
    monkeypatch.chdir(project)
    return load_plan(Config(study="cbam", tier="tiny", tables=["table3"], seeds=[0, 1, 2]))


@pytest.fixture
def faithful(tiny: Plan) -> Plan:
    """The same, of a tier that says that it follows the paper's protocol."""
    path = tiny.tier_file
    write_yaml(path, yaml.safe_load(path.read_text()) | {"protocol_of": ["cbam"]})
    return load_plan(tiny.config)


@pytest.fixture
def done(tiny: Plan) -> Plan:
    """Table 3 with all runs finished, and rendered."""
    for number, key in enumerate(ROWS):
        for run in tiny.row_runs("table3", key):
            finished(tiny, run, 20.0 + 4 * number + 2 * run.seed)
    assert main(["render", *SEEDS]) == 0
    return tiny


@pytest.fixture
def controls(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The study controls at the tiny tier, three seeds, with the project as the working folder."""
    monkeypatch.chdir(project)
    return load()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of data sets, with OWN: 4 images a class to train on; 2, 2, 3 to evaluate."""
    folder(tmp_path / "own", CLASSES, 4, 2)
    (tmp_path / "own/val/n02979186/more.png").write_bytes(encoded(photo(99), "PNG"))
    (tmp_path / "own/val/n02979186/readme.txt").write_text("no image, and not taken for one")
    return tmp_path


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Trainings run with deterministic algorithms only, on one thread here."""
    import torch  # here, because most of the plan's tests do without

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def plan_from(config: Path, root: Path = Path()) -> Plan:
    """Expand a config's file; `root` holds `workflow/`."""
    return load_plan(merged([config], {}), root)


def shrink_study(project: Path, rows: str, figures: dict[str, Any] | None = None) -> None:
    """Leave the project's study these lines of rows.csv with their tables, and these figures.

    Without discrepancies, references and claims, which are about rows that are gone. The tier is
    'tiny'.
    """
    folder = project / "workflow/studies/cbam"
    (folder / "rows.csv").write_text(rows)
    study = yaml.safe_load((folder / "study.yaml").read_text())
    shown = {line.partition(",")[0] for line in rows.splitlines()}
    study["tables"] = {name: table for name, table in study["tables"].items() if name in shown}
    study |= {"discrepancies": {}, "figures": figures or {}, "references": {}}
    write_yaml(folder / "study.yaml", study)
    (folder / "claims.yaml").unlink()
    write_yaml(project / "config.yaml", {"study": "cbam", "tier": "tiny"})


def write_yaml(path: Path, data: object) -> None:
    """Write `data` as YAML."""
    path.write_text(yaml.safe_dump(data, sort_keys=False))
