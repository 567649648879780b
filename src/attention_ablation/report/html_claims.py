"""What the report page shows of the claim ledger."""

from collections import Counter
from decimal import Decimal
from typing import Any

import pandas as pd

from attention_ablation.evidence.ledger import JudgedPair, ledger
from attention_ablation.report.claims import claims_doubts
from attention_ablation.report.results import MINUS
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
                "text": claim.claim.says,
                "verdict": claim.verdict,
                "paper_verdict": claim.paper_verdict,
                "comparisons": [_comparison(plan, p) for p in (*claim.pairs, *claim.published)],
            }
            for claim in judged.claims
        ],
    }


def _comparison(plan: Plan, judged: JudgedPair) -> dict[str, str]:
    counted = judged.pair.comparison.predicate == "at-most-more"
    unit = " %" if counted else plan.study.metrics[judged.pair.metric].points
    ours: str = judged.verdict + f": {judged.reason}" * bool(judged.reason)
    if judged.difference is not None:
        ours += f" ({_number(judged.difference, '+.3g')}{unit}"
        if judged.interval:
            low, high = (_number(end, ".3g") for end in judged.interval)
            ours += f", 95 % interval {low} to {high}"
        if judged.p_value is not None and judged.n > 1:
            ours += f", p = {_number(judged.p_value, '.2g')} after correction"
        ours += f", n = {judged.n})"
    paper: str = judged.paper_verdict
    if judged.paper_difference is not None:
        paper += f" ({_number(judged.paper_difference, '+.3g')}{unit})"
    text = f"{judged.pair.table}, {judged.pair.metric}: {judged.text}"
    return {"text": text, "ours": ours, "paper": paper}


def _number(value: float | Decimal, form: str) -> str:
    return f"{value:{form}}".replace("-", MINUS)
