"""What the tests share: the repository's study, and a project folder with a tier of seconds."""

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import settings

from attention_ablation.study.config import Config, Study, load_study
from attention_ablation.study.expand import Plan, load_plan

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
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    shutil.copy(ROOT / "Snakefile", tmp_path)
    tier = yaml.safe_load((ROOT / "workflow/tiers/quick.yaml").read_text())
    recipe = tier["classification"]["recipe"]
    recipe["dataset"] |= {"train_images": 64, "validation_images": 50}
    recipe |= {"epochs": 2, "batch_size": 16}
    tier["classification"].pop("backbones")
    write_yaml(tmp_path / "workflow/tiers/tiny.yaml", tier)
    config = {"study": "cbam", "tier": "tiny", "tables": ["table3"]}
    write_yaml(tmp_path / "config.yaml", config)
    return tmp_path


@pytest.fixture
def tiny(project: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Table 3 at the tiny tier, three seeds, with the project as the working folder."""
    monkeypatch.chdir(project)
    return load_plan(Config(study="cbam", tier="tiny", tables=["table3"], seeds=[0, 1, 2]))


def write_yaml(path: Path, data: object) -> None:
    """Write `data` as YAML."""
    path.write_text(yaml.safe_dump(data, sort_keys=False))
