"""The claim ledger as files: claims.csv, a line for each comparison, and claims.md."""

from collections import Counter

import pandas as pd

from attention_ablation.base.io import write_text
from attention_ablation.evidence.ledger import JudgedClaim, JudgedPair, Ledger, ledger
from attention_ablation.report.markdown import bullets, escape
from attention_ablation.report.notes import doubts
from attention_ablation.study.expand import Plan

CLAIMS_CSV, CLAIMS_MD = "claims.csv", "claims.md"
DIGITS = 4  # of differences: a fifth is below a step of any validation set in use


def write_claims(plan: Plan, runs: pd.DataFrame) -> None:
    """Write `claims.csv` and `claims.md`."""
    for name, text in rendered_claims(plan, runs).items():
        write_text(plan.folder / name, text)


def rendered_claims(plan: Plan, runs: pd.DataFrame) -> dict[str, str]:
    """Return the ledger's text by the name of its file."""
    judged = ledger(plan, runs)
    return {
        CLAIMS_CSV: claims_frame(judged).to_csv(index=False),
        CLAIMS_MD: claims_markdown(plan, judged, runs),
    }


def claims_frame(judged: Ledger) -> pd.DataFrame:
    """Return a line for each comparison, in the columns of claims.csv; unknown cells are empty."""
    return pd.DataFrame(
        [
            _record(claim.key, pair)
            for claim in judged.claims
            for pair in (*claim.pairs, *claim.published)
        ],
        dtype=object,
    )


def claims_markdown(plan: Plan, judged: Ledger, runs: pd.DataFrame) -> str:
    """Return a line for each claim, and the method below them."""
    records = [
        {
            "Claim": claim.key,
            "Place": claim.claim.place,
            "What the paper says": claim.claim.says,
            "Our runs": _ours(claim),
            "The paper's cells": _paper(claim),
        }
        for claim in judged.claims
    ]
    body = pd.DataFrame(records).map(escape).to_markdown(index=False, disable_numparse=True)
    seeds = len(plan.seeds)
    notes = [
        judged.method,
        *claims_doubts(plan, judged, runs),
        f"Tier {plan.config.tier} ({plan.tier.title}); n = {seeds} seed{'s' * (seeds > 1)}. Every "
        "comparison, with its numbers and the seeds that would decide it, is in claims.csv.",
        *_published(plan, judged),
        plan.tier.limits,
    ]
    return f"**Claims of the paper**\n\n{body}\n\n{bullets(notes)}"


def _published(plan: Plan, judged: Ledger) -> list[str]:
    """Return a note for each reference: what it is, and the differences on its curves."""
    notes = []
    for reference in plan.study.references.values():
        found = [
            f"{claim.key}, {pair.pair.metric}: {pair.pair.text}: {pair.difference:+.2f}"
            for claim in judged.claims
            for pair in claim.published
            if pair.reference == reference.title
        ]
        if found:
            notes.append(
                f"Published by others: {reference.title} ({reference.source}), "
                f"{reference.protocol}. One run of each row decides nothing, and "
                f"no verdict above counts it; differences, in points: {'; '.join(found)}."
            )
    return notes


def claims_doubts(plan: Plan, judged: Ledger, runs: pd.DataFrame) -> list[str]:
    """Return a line that names the compared runs whose folders fail verification, if any does."""
    rows = {
        row: None
        for claim in judged.claims
        for pair in claim.pairs
        if pair.verdict != "not run" and not plan.study.metrics[pair.pair.metric].counted
        for row in (pair.pair.first, pair.pair.second)
    }
    # Tables share runs, which are named once.
    places = {
        run.path: f"{table}:{key}" for table, key in rows for run in plan.row_runs(table, key)
    }
    return doubts(plan, places, runs)


def _record(key: str, judged: JudgedPair) -> dict[str, object]:
    low, high = judged.interval or (None, None)
    paper = judged.paper_difference
    return {
        "claim": key,
        "table": judged.pair.table,
        "metric": judged.pair.metric,
        "comparison": judged.text,
        "difference": _rounded(judged.difference),
        "ci_low": _rounded(low),
        "ci_high": _rounded(high),
        "n": judged.n,
        "verdict": judged.verdict,
        "paper_difference": None if paper is None else f"{round(paper, DIGITS).normalize():f}",
        "paper_verdict": judged.paper_verdict,
        "seeds_needed": judged.seeds_needed,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _ours(claim: JudgedClaim) -> str:
    counts = Counter(pair.verdict for pair in claim.pairs)
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return claim.verdict + f" ({parts})" * (len(counts) > 1)


def _paper(claim: JudgedClaim) -> str:
    counts = Counter(pair.paper_verdict for pair in claim.pairs)
    printed = counts["holds"] + counts["does not hold"]
    parts = [f"{counts['holds']} of {printed} hold"] * bool(counts["does not hold"])
    parts += [f"{counts['not printed']} not printed"] * bool(printed and counts["not printed"])
    return claim.paper_verdict + f" ({', '.join(parts)})" * bool(parts)
