"""The claim ledger as claims.csv, a line for each comparison, as claims.md, and on the page."""

from collections import Counter
from decimal import Decimal
from typing import Any

import pandas as pd
from tabulate import tabulate

from attention_ablation.base.io import write_text
from attention_ablation.evidence.ledger import JudgedPair, Ledger, ledger
from attention_ablation.report.markdown import bullets, escape
from attention_ablation.report.notes import doubts
from attention_ablation.report.results import MINUS
from attention_ablation.study.expand import Plan

CLAIMS_CSV, CLAIMS_MD = "claims.csv", "claims.md"
DIGITS = 4  # of differences: a fifth is below a step of any validation set in use


def write_claims(plan: Plan, runs: pd.DataFrame) -> None:
    for name, text in rendered_claims(plan, runs).items():
        write_text(plan.folder / name, text)


def rendered_claims(plan: Plan, runs: pd.DataFrame) -> dict[str, str]:
    """Return the ledger's text by the name of its file."""
    judged = ledger(plan, runs)
    return {
        CLAIMS_CSV: claims_frame(judged).to_csv(index=False),
        CLAIMS_MD: _markdown(plan, judged, runs),
    }


def claims_frame(judged: Ledger) -> pd.DataFrame:
    """Return a line for each comparison, in the columns of claims.csv; unknown cells are empty."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, DIGITS)

    records = []
    for claim in judged.claims:
        for pair in (*claim.pairs, *claim.published):
            low, high = pair.interval or (None, None)
            paper = pair.paper_difference
            printed = None if paper is None else f"{round(paper, DIGITS).normalize():f}"
            records.append(
                {
                    "claim": claim.key,
                    "table": pair.pair.table,
                    "metric": pair.pair.metric,
                    "comparison": pair.text,
                    "difference": rounded(pair.difference),
                    "ci_low": rounded(low),
                    "ci_high": rounded(high),
                    "n": pair.n,
                    "verdict": pair.verdict,
                    "paper_difference": printed,
                    "paper_verdict": pair.paper_verdict,
                    "seeds_needed": pair.seeds_needed,
                }
            )
    return pd.DataFrame(records, dtype=object)


def page_claims(plan: Plan, runs: pd.DataFrame) -> dict[str, Any] | None:
    """Return what the page shows of the ledger, None where the study has none."""
    if not plan.study.claims:
        return None
    judged = ledger(plan, runs)
    wrong = sum(claim.paper_verdict == "does not hold" for claim in judged.claims)
    return {
        "summary": f"Of {len(judged.claims)} claims our runs leave "
        f"{_counts([claim.verdict for claim in judged.claims])}. "
        f"{wrong} do not hold in the paper's own cells.",
        "notes": [judged.method, *_doubts(plan, judged, runs)],
        "claims": [
            (claim, [_on_page(plan, pair) for pair in (*claim.pairs, *claim.published)])
            for claim in judged.claims
        ],
    }


def _on_page(plan: Plan, judged: JudgedPair) -> dict[str, str]:
    relative = judged.pair.comparison.predicate == "at-most-more"
    unit = " %" if relative else plan.study.metrics[judged.pair.metric].points
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


def _markdown(plan: Plan, judged: Ledger, runs: pd.DataFrame) -> str:
    """Return a line for each claim, and the method below them."""
    records = []
    for claim in judged.claims:
        verdicts = [pair.verdict for pair in claim.pairs]
        counts = Counter(pair.paper_verdict for pair in claim.pairs)
        printed = counts["holds"] + counts["does not hold"]
        parts = [f"{counts['holds']} of {printed} hold"] * bool(counts["does not hold"])
        parts += [f"{counts['not printed']} not printed"] * bool(printed and counts["not printed"])
        record = {
            "Claim": claim.key,
            "Place": claim.claim.place,
            "What the paper says": claim.claim.says,
            "Our runs": claim.verdict + f" ({_counts(verdicts)})" * (len(set(verdicts)) > 1),
            "The paper's cells": claim.paper_verdict + f" ({', '.join(parts)})" * bool(parts),
        }
        records.append({name: escape(text) for name, text in record.items()})
    body = tabulate(records, "keys", tablefmt="pipe", disable_numparse=True)
    seeds = len(plan.seeds)
    notes = [
        judged.method,
        *_doubts(plan, judged, runs),
        f"Tier {plan.config.tier} ({plan.tier.title}); n = {seeds} seed{'s' * (seeds > 1)}. Every "
        "comparison, with its numbers and the seeds that would decide it, is in claims.csv.",
        *_published(plan, judged),
        plan.tier.limits,
    ]
    return f"**Claims of the paper**\n\n{body}\n\n{bullets(notes)}"


def _counts(verdicts: list[Any]) -> str:
    return ", ".join(f"{n} {verdict}" for verdict, n in Counter(verdicts).most_common())


def _doubts(plan: Plan, judged: Ledger, runs: pd.DataFrame) -> list[str]:
    """Return a line that names the compared runs whose folders fail verification, if any does."""
    rows = dict.fromkeys(
        row
        for claim in judged.claims
        for pair in claim.pairs
        if pair.verdict != "not run" and not plan.study.metrics[pair.pair.metric].counted
        for row in (pair.pair.first, pair.pair.second)
    )
    # Tables share runs, which are named once.
    places = {
        run.path: f"{table}:{key}" for table, key in rows for run in plan.row_runs(table, key)
    }
    return doubts(plan, places, runs)


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
