"""Grad-CAM of the same images by several rows, beside each other (the paper's Figure 5)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import write_text
from attention_ablation.base.model import Names
from attention_ablation.study.figure import RowsFigure

if TYPE_CHECKING:
    from attention_ablation.study.config import Study
    from attention_ablation.study.expand import Plan


class GradCamFigure(RowsFigure):
    """Where rows of one table look: Grad-CAM of the same validation images, a line for each row."""

    run_file: ClassVar[str] = "gradcam.json"
    numbers: ClassVar[str] = (
        "How much of the Grad-CAM maps of {name} is in the target's box, over all validation "
        "images, with 95 % intervals: a line for each row and metric, and for each difference to "
        "the first row."
    )

    kind: Literal["gradcam"]
    rows: Names = Field(
        description="Rows with one backbone; the others are compared with the first."
    )

    def check(self, study: "Study", where: str) -> None:
        """Raise UserError for rows with several backbones."""
        rows = [row for row in study.table_rows(self.table) if row.key in self.rows]
        backbones = list(dict.fromkeys(row.backbone for row in rows))
        if len(backbones) > 1:
            raise UserError(
                f"{where}: expected rows with one backbone, whose maps come from the same images "
                f"and the same layer, got {', '.join(backbones)}; leave some out."
            )

    def csv(self, plan: "Plan") -> str:
        from attention_ablation.figures.parts.gradcam import gradcam_frame

        return gradcam_frame(plan, self).to_csv(index=False)

    def write(self, plan: "Plan", name: str) -> None:
        """Draw the maps of the first seed, and write the CSV."""
        from attention_ablation.figures.parts.gradcam import draw, gradcam_frame

        means = gradcam_frame(plan, self)
        write_text(plan.folder / "figures" / f"{name}.csv", means.to_csv(index=False))
        draw(plan, self, name, means)
