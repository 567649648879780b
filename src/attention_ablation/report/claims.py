"""The claim ledger as claims.csv, a line for each comparison, as claims.md, and on the page."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, get_args

import pandas as pd
from tabulate import tabulate

from attention_ablation.base.io import write_text
from attention_ablation.evidence.ledger import JudgedClaim, JudgedPair, Ledger, Verdict, ledger
from attention_ablation.report.markdown import bullets, escape
from attention_ablation.report.notes import doubts
from attention_ablation.report.results import written
from attention_ablation.study.expand import Plan

CLAIMS_CSV, CLAIMS_MD = "claims.csv", "claims.md"
DIGITS = 4  # of differences: a fifth is below a step of any validation set in use
OPEN: tuple[Verdict, ...] = ("undecided", "not run")
Judged = TypeVar("Judged", JudgedPair, JudgedClaim)


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
                    "reason": pair.reason or None,
                    "paper_difference": printed,
                    "paper_verdict": pair.paper_verdict,
                    "seeds_needed": pair.seeds_needed,
                    "p_adjusted": None if pair.p_value is None else f"{pair.p_value:.3g}",
                    "margin": pair.pair.comparison.margin,
                    "published": pair.reference or None,
                }
            )
    return pd.DataFrame(records, dtype=object)


def page_claims(plan: Plan, runs: pd.DataFrame) -> dict[str, Any] | None:
    """Return what the page shows of the ledger, None where the study has none."""
    if not plan.study.claims:
        return None
    judged = ledger(plan, runs)
    pairs = [pair for claim in judged.claims for pair in claim.pairs]
    wrong = sum(claim.paper_verdict == "does not hold" for claim in judged.claims)
    return {
        "summary": f"Claims: {_counts(judged.claims)}. Comparisons: {_counts(pairs)}."
        + f" In the printed cells, claims that do not hold: {wrong}." * plan.study.has_printed,
        "notes": [judged.method, *_doubts(plan, judged, runs)],
        "claims": [
            {
                "judged": claim,
                "decided": claim.verdict not in OPEN,
                "counts": _mixed(claim),
                "comparisons": [
                    (pair.verdict, _line(plan, pair))
                    for pair in decided_first([*claim.pairs, *claim.published])
                ],
            }
            for claim in decided_first(judged.claims)
        ],
    }


def decided_first(judged: Iterable[Judged]) -> list[Judged]:
    """Return what is decided, then what is undecided, then what is not run, each in its order."""
    order = {verdict: place for place, verdict in enumerate(OPEN, 1)}
    return sorted(judged, key=lambda each: order.get(each.verdict, 0))


def _line(plan: Plan, judged: JudgedPair) -> str:
    """Return a comparison with its numbers and what is open, in one line without its verdict."""
    pair = judged.pair
    metric = plan.study.metrics[pair.metric]
    unit = " %" if pair.comparison.predicate == "at-most-more" else metric.points
    form = ".2f" if metric.unit == "%" else ".3g"
    facts = []
    if judged.difference is not None:
        facts.append(written(judged.difference, form, "+") + unit)
        if judged.interval:
            low, high = (written(end, form) for end in judged.interval)
            facts.append(f"95 % interval {low} to {high}")
        facts.append("counted" if metric.counted else f"n = {judged.n}")
        if judged.margin is not None:
            facts.append(f"margin ±{judged.margin:g}{unit}")
    needed = judged.seeds_needed if judged.verdict == "undecided" else None
    seeds = f"about {needed}".replace("about >", "more than ")
    open_ = f"{seeds} seeds would decide such a difference" if needed else ""
    line = f"{judged.text}, {metric.heading} ({pair.table}): {', '.join(facts)}"
    line += "; " * bool(facts and (open_ or judged.reason)) + (open_ or judged.reason)
    if judged.paper_difference is not None:
        line += f"; paper: {judged.paper_verdict}"
        line += f" ({written(judged.paper_difference, '.3g', '+')}{unit})"
    return line


def _markdown(plan: Plan, judged: Ledger, runs: pd.DataFrame) -> str:
    """Return a line for each claim, its comparisons or why they are not run, and the method."""
    printed, claims = plan.study.has_printed, decided_first(judged.claims)
    records = []
    for claim in claims:
        record = {
            "Claim": claim.key,
            "Place": claim.claim.place,
            "What it says": claim.claim.says,
            "Our runs": claim.verdict + f" ({_mixed(claim)})" * bool(_mixed(claim)),
        }
        if printed:
            record["Printed cells"] = _paper(claim)
        records.append({name: escape(text) for name, text in record.items()})
    body = tabulate(records, "keys", tablefmt="pipe", disable_numparse=True)
    lists = []
    for claim in claims:
        made = [pair for pair in decided_first(claim.pairs) if pair.verdict != "not run"]
        lines = [f"{pair.verdict}: {_line(plan, pair)}" for pair in made]
        reasons = Counter(pair.reason for pair in claim.pairs if pair.verdict == "not run")
        for reason, n in reasons.items():
            lines.append(f"not run: {n} comparison{'s' * (n > 1)}: {reason}")
        lists.append(f"**{escape(claim.key)}**: {claim.verdict}\n\n{bullets(lines)}\n")
    seeds = len(plan.seeds)
    notes = [
        judged.method,
        *_doubts(plan, judged, runs),
        f"Tier {plan.config.tier} ({plan.tier.title}); n = {seeds} seed{'s' * (seeds > 1)}. Every "
        "comparison, with its numbers and about how many seeds would decide it, is in claims.csv.",
        *_published(plan, judged),
        plan.tier.limits,
    ]
    return f"**Claims**\n\n{body}\n\n{''.join(lists)}{bullets(notes)}"


def _paper(claim: JudgedClaim) -> str:
    """Return what the printed cells say of a claim, with counts where they disagree."""
    counts = Counter(pair.paper_verdict for pair in claim.pairs)
    printed = counts["holds"] + counts["does not hold"]
    parts = [f"{counts['holds']} of {printed} hold"] * bool(counts["does not hold"])
    parts += [f"{counts['not printed']} not printed"] * bool(printed and counts["not printed"])
    return claim.paper_verdict + f" ({', '.join(parts)})" * bool(parts)


def _mixed(claim: JudgedClaim) -> str:
    """Return how many of its comparisons have which verdict, nothing where all have the same."""
    return _counts(claim.pairs) if len({pair.verdict for pair in claim.pairs}) > 1 else ""


def _counts(judged: Sequence[JudgedPair | JudgedClaim]) -> str:
    found = Counter(each.verdict for each in judged)
    return ", ".join(f"{found[name]} {name}" for name in get_args(Verdict) if found[name])


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
