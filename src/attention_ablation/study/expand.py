"""From config, study and tier to rows, and from rows to runs: equal specs are one run."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from attention_ablation.base.errors import UserError, require
from attention_ablation.base.model import Model
from attention_ablation.detectors.record import Detector, DetectorSize, check_fit, gates_in_backbone
from attention_ablation.gates.record import Attention
from attention_ablation.networks.record import BACKBONES, Backbone, BackboneSize, FrontEnd
from attention_ablation.spec.recipes import ClassificationRecipe, Recipe
from attention_ablation.spec.spec import DetectionSpec, RowSpec, Run, Spec
from attention_ablation.study.checks import check_folder
from attention_ablation.study.config import Config, Row, Study, Tier
from attention_ablation.study.confounds import check_comparisons
from attention_ablation.study.files import load_study, load_tier, parse

# Of a classifier's learning rate, at which an autoencoder, whose layers are linear, may diverge.
FRONT_END_RATE = 0.1
RecipeType = TypeVar("RecipeType", bound=Recipe)


@dataclass(frozen=True)
class Plan:
    """A study at a tier: which rows are wanted, and the run of every row and seed."""

    config: Config
    study: Study
    tier: Tier
    tables: list[str]
    root: Path
    specs: dict[tuple[str, str], RowSpec] = field(default_factory=dict)  # by table and row key

    @property
    def seeds(self) -> list[int]:
        return self.config.seeds or self.tier.seeds

    @property
    def follows_paper(self) -> bool:
        """Whether the tier trains as the study's paper did, so that numbers can be compared."""
        return self.study.name in self.tier.protocol_of

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Every distinct run, by its folder below `results/<tier>/runs`.

        Those that a row shows come first, then those that only give backbones or front-ends their
        weights.
        """
        shown = [run for table, key in self.specs for run in self.row_runs(table, key)]
        initial = [run.initial for run in shown]
        return {run.path: run for run in [*shown, *initial] if run}

    @property
    def runs_folder(self) -> Path:
        """Where the runs of this tier go, whatever the study."""
        return Path(self.config.results) / self.config.tier / "runs"

    @property
    def folder(self) -> Path:
        """Where this study's tables and figures go at this tier."""
        return self.runs_folder.parent / self.study.name

    @property
    def data_folder(self) -> Path:
        """Where composed data sets and lists of files go, whatever the tier."""
        return Path(self.config.results) / "data"

    @property
    def datasets_folder(self) -> Path:
        """Where the data sets that are not composed lie, each by its name."""
        return Path(self.config.data) if self.config.data else self.data_folder

    @property
    def calibration_folder(self) -> Path:
        """Where the measured rates of devices go, whatever the tier."""
        return Path(self.config.results) / "calibration"

    @property
    def study_folder(self) -> Path:
        return self.root / "workflow/studies" / self.study.name

    @property
    def tier_file(self) -> Path:
        return self.root / f"workflow/tiers/{self.config.tier}.yaml"

    @property
    def reference_files(self) -> list[str]:
        """The published curves of the study."""
        references = self.study.references.values()
        files = [curve.file for reference in references for curve in reference.curves.values()]
        return [(self.study_folder / file).as_posix() for file in files]

    @property
    def module_files(self) -> list[str]:
        """The files of the gates of a user's own that rows of the study have."""
        gates = [self.study.attentions[row.attention] for row in self.study.rows]
        return sorted({gate.module_file for gate in gates if gate.module_file})

    @property
    def figures(self) -> list[str]:
        """The figures that show rows of the selected tables only."""
        return [
            name
            for name, figure in self.study.figures.items()
            if all(table in self.tables for table, _ in figure.shown)
        ]

    def rows(self, table: str) -> list[Row]:
        return self.study.table_rows(table)

    def groups(self, table: str) -> list[list[Row]]:
        """Return a table's rows in groups that are each compared."""
        by = self.study.tables[table].group_by
        groups: dict[tuple[str | None, float], list[Row]] = {}
        for row in self.rows(table):
            groups.setdefault((by and row.backbone, row.times or 1), []).append(row)
        return list(groups.values())

    def row_runs(self, table: str, key: str) -> list[Run]:
        """Return a row's runs, one for each seed."""
        return [Run(seed=seed, spec=self.specs[table, key]) for seed in self.seeds]

    def table_runs(self, table: str) -> list[Run]:
        return [run for row in self.rows(table) for run in self.row_runs(table, row.key)]

    @property
    def summary(self) -> str:
        tables, rows, seeds = len(self.tables), len(self.specs), len(self.seeds)
        distinct = len(self.runs) // seeds
        shown = len({spec.canonical() for spec in self.specs.values()})
        asides = []
        if shared := rows - shown:
            asides.append(f"{shared} row{'s share' if shared > 1 else ' shares'} another row's")
        if first := distinct - shown:
            asides.append(f"{first} more only to start others from")
        return (
            f"{self.config.study}, tier {self.config.tier}: {_count(tables, 'table')} with "
            f"{_count(rows, 'row')} need{'s' * (tables == 1)} {_count(distinct, 'training')} a seed"
            + f" ({'; '.join(asides)})" * bool(asides)
            + f"; {_count(seeds, 'seed')}, {distinct * seeds} in all."
        )


def load_plan(config: Config | dict[str, Any], root: Path = Path()) -> Plan:
    """Expand a config, given itself or its keys; `root` holds `workflow/`.

    Raises UserError for any mistake in the config, the study or the tier, and where a table or a
    figure compares rows that the tier trains unequally.
    """
    # Snakemake and the command line hand over keys, which may come from either.
    where = "config.yaml or --config"
    if isinstance(config, dict):
        config = parse(Config, config, where)
    check_folder(Path(config.results), where)
    study = load_study(root / "workflow/studies", config.study, where)
    tier = load_tier(root / "workflow/tiers", config.tier, where)
    tables = config.tables
    if tables == "all":
        tables = _trained_tables(study, tier, root / f"workflow/tiers/{config.tier}.yaml")
    require("table", tables, study.tables, where)
    plan = Plan(config, study, tier, tables, root)
    rows = [row for table in tables for row in plan.rows(table)]
    plan = replace(plan, specs={(row.table, row.key): _spec(row, plan) for row in rows})
    check_comparisons(plan)
    return plan


def _trained_tables(study: Study, tier: Tier, where: Path) -> list[str]:
    """Return the study's tables that a tier, whose file is `where`, is for and has recipes of."""
    meant = tier.tables or list(study.tables)
    require("table", meant, study.tables, f"{where}: tables")
    trained = [
        table
        for table in study.tables
        if table in meant
        and {row.detector for row in study.table_rows(table)} <= {None, *tier.detection}
    ]
    if not trained:
        raise UserError(
            f"{where}: there is no table of the study '{study.name}' that this tier is for and has "
            "recipes of; add a recipe, or choose another tier."
        )
    return trained


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"


def _spec(row: Row, plan: Plan) -> RowSpec:
    where = f"{plan.study_folder / 'rows.csv'}: {row.table}: {row.label}"
    attention = plan.study.attentions[row.attention]
    if row.detector is None:
        given = plan.tier.classification.sizing(row.backbone).recipe
        changed = _recipe(given, row, plan, where)
        return _classification(row.backbone, attention, plan.tier, where, changed, row.front_end)
    if row.detector not in plan.tier.detection:
        raise UserError(
            f"{where}: expected a recipe for {row.detector} below detection in the tier; add one, "
            "or leave the table out."
        )
    sized = plan.tier.detection[row.detector].sizing(row.backbone)
    detector = parse(Detector, {"name": row.detector} | _size(sized, DetectorSize), where)
    inside = gates_in_backbone(detector)
    first = _classification(row.backbone, attention if inside else Attention(), plan.tier, where)
    gate = first.attention if inside else attention.sized(sized.reduction, sized.start)
    check_fit(gate, first.backbone, where, detector)
    parts = {"backbone": first.backbone, "attention": gate, "detector": detector}
    initial = first if sized.initial else None
    recipe = _recipe(sized.recipe, row, plan, where)
    return parse(DetectionSpec, parts | {"recipe": recipe, "initial": initial}, where)


def _recipe(recipe: RecipeType, row: Row, plan: Plan, where: str) -> RecipeType:
    """Return the tier's recipe with what a table sets and a row varies."""
    table = plan.study.tables[row.table]
    if table.recipe:
        keys = recipe.model_dump(mode="json") | table.recipe
        where_set = f"{plan.study_folder / 'study.yaml'}: tables.{row.table}.recipe"
        recipe = parse(type(recipe), keys, where_set)
    if row.times and table.varies:
        recipe = parse(type(recipe), recipe.multiplied(table.varies, row.times), f"{where}: times")
    return recipe


def _classification(
    name: str,
    attention: Attention,
    tier: Tier,
    where: str,
    recipe: ClassificationRecipe | None = None,
    front_end: FrontEnd | None = None,
) -> Spec:
    """Return a tier's spec of a backbone, a gate and a front-end, with its recipe or another one.

    A front-end's recipe is the tier's and not the row's: rows of networks of one size share its
    training.
    """
    sized = tier.classification.sizing(name)
    size = _size(sized, BackboneSize)
    if sized is tier.classification and "stem" not in BACKBONES[name].keys:
        size["stem"] = None  # what a tier has for all is for those that can have it
    backbone = parse(Backbone, {"name": name, "front_end": front_end} | size, where)
    gate = attention.sized(sized.reduction, sized.start)
    check_fit(gate, backbone, where)
    parts: dict[str, Any] = {"backbone": backbone, "attention": gate}
    if front_end:
        slower = sized.recipe.multiplied("learning_rate", FRONT_END_RATE)
        trained_by = tier.classification.front_end or slower
        parts["initial"] = {"front_end": front_end, "recipe": trained_by}
    return parse(Spec, parts | {"recipe": recipe or sized.recipe}, where)


def _size(sized: Model, size: type[Model]) -> dict[str, Any]:
    return sized.model_dump(include=set(size.model_fields))
