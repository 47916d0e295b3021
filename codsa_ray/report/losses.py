"""Losses: what report.json says of every candidate, of the curve and of every group; judges nothing anew."""

from typing import Any

import numpy as np

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.judge import NEVER_SHIPPED, title
from codsa_ray.outcomes import Outcome, Truth
from codsa_ray.report.scored import Pair, Scored
from codsa_ray.risk import estimate
from codsa_ray.rows import FINAL

EMPTY = dict.fromkeys(("loss", "se", "test_loss", "test_se", "gap", "gap_se", "test_gap", "test_gap_se"))


def candidates(scored: Scored, bench: Bench) -> list[dict[str, Any]]:
    """One row per candidate and form, then what could not be shipped and so was not compared, then the failed ones with their reasons."""
    found = []
    for candidate, form in scored.decision.entries:
        found.append(_row(bench, candidate, form, scored.table.outcomes[candidate.id]) | _estimates(scored, (candidate, form)))
    found += _aside(scored, bench)
    failed = [o for o in scored.table.outcomes.values() if o.left_out]
    return found + [_row(bench, o.candidate, "", o) | EMPTY for o in failed]


def _aside(scored: Scored, bench: Bench) -> list[dict[str, Any]]:
    its, found = scored.losses(scored.decision.chosen), []
    for outcome in scored.table.outcomes.values():
        if outcome.candidate.kind == NEVER_SHIPPED and not outcome.left_out:
            for form in ("offset", "calibrated"):
                mine = scored.table.losses[outcome.candidate.id, form].astype(np.float64)
                row = _row(bench, outcome.candidate, form, outcome) | EMPTY | _named("", mine, its, scored.truth, scored.mix)
                found.append(row | {"name": f"{row['name']} (not compared: cannot be written as a table)"})
    return found


def _estimates(scored: Scored, pair: Pair) -> dict[str, float | None]:
    """Losses with their standard errors; gaps are paired differences to the verdict's candidate, below 0 where this one is better."""
    chosen = scored.decision.chosen
    value = EMPTY | _named("", scored.losses(pair), scored.losses(chosen), scored.truth, scored.mix)
    tested, against = scored.test_losses(pair), scored.test_losses(chosen)
    if tested is not None and against is not None:
        value |= _named("test_", tested, against, scored.test, scored.mix)
    return value


def _named(prefix: str, mine: np.ndarray, its: np.ndarray, truth: Truth, mix: np.ndarray) -> dict[str, float]:
    found = estimate(np.stack([mine, mine - its], axis=1), truth.group, mix, truth.unit)
    names = ((f"{prefix}loss", f"{prefix}se"), (f"{prefix}gap", f"{prefix}gap_se"))
    pairs = zip(names, found.mean, found.se, strict=True)
    return {key: float(number) for (mean, se), m, s in pairs for key, number in ((mean, m), (se, s))}


def _row(bench: Bench, candidate: Candidate, form: str, outcome: Outcome) -> dict[str, Any]:
    size = candidate.plan(bench.regions(FINAL, candidate.share), bench.allocator).size
    return {
        "name": title(candidate, form) if form else candidate.name,
        "kind": candidate.kind,
        "level": candidate.level(form),
        "form": form,
        "generator": candidate.generator.rpartition("-")[0],
        "gamma": candidate.gamma,
        "eta": candidate.eta,
        "tilt": candidate.tilt,
        "row_weight": candidate.row_weight,
        "draws": candidate.fits,
        "size": size,
        "seconds": outcome.seconds,
        "failed": outcome.left_out,
    }


def curve(rows: list[dict[str, Any]], task: str, chosen: Candidate) -> dict[str, Any]:
    """Loss against size, calibrated like the lines without synthesis it is held against.

    Args:
        rows: of `candidates`.
        chosen: the verdict's, whose point is marked in whatever form it was chosen.
    """
    form = "raw" if task == "regression" else "calibrated"
    points: dict[str, list[dict[str, Any]]] = {}
    lines = []
    for row in (r for r in rows if not r["failed"]):
        if row["kind"] == "synthetic" and row["form"] == form:
            points.setdefault(row["generator"], []).append({key: row[key] for key in ("size", "gamma", "loss", "se", "name")})
        elif row["level"] != "augment":
            lines.append({key: row[key] for key in ("name", "loss", "se")})
    return {
        "generators": [{"name": name, "points": sorted(found, key=lambda p: p["size"])} for name, found in points.items()],
        "lines": lines,
        "chosen": title(chosen, form),
    }


def groups(scored: Scored, bench: Bench) -> list[dict[str, Any]]:
    """Per group: rows and losses before (best without synthesis) and after (the verdict)."""
    rows = bench.rows
    before, after = _by_group(scored, scored.decision.base), _by_group(scored, scored.decision.chosen)
    train, test = rows.group_counts(FINAL), rows.counts[-1]
    return [
        {
            "name": group.name,
            "mix": rows.groups.mix[g],
            "train": int(train[g]),
            "test": int(test[g]),
            "before": before[g],
            "after": after[g],
        }
        for g, group in enumerate(rows.groups.items)
    ]


def _by_group(scored: Scored, pair: Pair) -> list[dict[str, float | None]]:
    own, tested = scored.losses(pair), scored.test_losses(pair)
    found = []
    for g in range(len(scored.mix)):
        loss, se = _mean(own[scored.truth.group == g])
        test_loss, test_se = _mean(tested[scored.test.group == g]) if tested is not None else (None, None)
        found.append({"loss": loss, "se": se, "test_loss": test_loss, "test_se": test_se})
    return found


def _mean(values: np.ndarray) -> tuple[float | None, float | None]:
    if not len(values):
        return None, None
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
