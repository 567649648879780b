"""What the report page shows of the claim ledger."""

from collections import Counter
from typing import Any

import pandas as pd

from attention_ablation.analysis.claims import JudgedPair, ledger
from attention_ablation.report.claims import claims_doubts
from attention_ablation.report.html_tables import MINUS
from attention_ablation.study.expand import Plan


def page_claims(plan: Plan, runs: pd.DataFrame) -> dict[str, Any] | None:
    """Return what the page shows of the ledger, None where the study has none."""
    if not plan.study.claims:
        return None
    judged = ledger(plan, runs)
    counts = Counter(claim.verdict for claim in judged.claims)
    wrong = sum(claim.paper_verdict == "does not hold" for claim in judged.claims)
    return {
        "summary": f"Of {len(judged.claims)} claims our runs leave "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        + f". {wrong} do not hold in the paper's own cells.",
        "notes": [judged.method, *claims_doubts(plan, judged, runs)],
        "claims": [
            {
                "key": claim.key,
                "place": claim.claim.place,
                "text": " ".join(claim.claim.says.split()),
                "verdict": claim.verdict,
                "paper_verdict": claim.paper_verdict,
                "comparisons": [_comparison(p) for p in (*claim.pairs, *claim.published)],
            }
            for claim in judged.claims
        ],
    }


def _comparison(judged: JudgedPair) -> dict[str, str]:
    unit = _unit(judged)
    ours: str = judged.verdict + f": {judged.reason}" * bool(judged.reason)
    if judged.difference is not None:
        ours += f" ({judged.difference:+.3g}{unit}"
        if judged.interval:
            ours += f", 95 % interval {judged.interval[0]:.3g} to {judged.interval[1]:.3g}"
        if judged.p_value is not None and judged.n > 1:
            ours += f", p = {judged.p_value:.2g} after correction"
        ours += f", n = {judged.n})"
    paper: str = judged.paper_verdict
    if judged.paper_difference is not None:
        paper += f" ({judged.paper_difference:+.3g}{unit})"
    text = f"{judged.pair.table}, {judged.pair.metric}: {judged.text}"
    return {"text": text, "ours": ours.replace("-", MINUS), "paper": paper.replace("-", MINUS)}


def _unit(judged: JudgedPair) -> str:
    if judged.pair.comparison.predicate == "at-most-more":
        return " %"
    return " points" if judged.pair.metric.endswith("error") or "map" in judged.pair.metric else ""
