"""Evaluation: metrics and reliability of the learner as it is, of the best without synthesis and of the verdict; decides nothing."""

from typing import Any

import numpy as np

from codsa_ray.audit.intervals import LEVEL, RESAMPLES, Resamples, measured
from codsa_ray.audit.metrics import BINS, Sample
from codsa_ray.audit.reliability import reliability
from codsa_ray.audit.thresholds import move_thresholds
from codsa_ray.errors import InternalError
from codsa_ray.judge import title
from codsa_ray.outcomes import Truth
from codsa_ray.report.scored import Pair, Scored
from codsa_ray.risk import row_weights

WHERE = {"test": "the test rows", "out_of_fold": "held-out training rows"}
ANOMALY = ("usual", "anomaly")


def evaluation(scored: Scored, groups: tuple[str, ...], labels: tuple[str, ...], seed: int) -> dict[str, Any]:
    """The report's parts `metrics` and `reliability`.

    Args:
        groups, labels: their names (no labels for a regression).
        seed: the job's.

    Raises:
        InternalError: the verdict's candidate has no test scores.
    """
    if scored.test_scores(scored.decision.chosen) is None:
        raise InternalError(str(scored.refused(scored.decision.chosen) or "the verdict's candidate has no test scores; run again"))
    named = ANOMALY if scored.task == "anomaly" else labels
    found = {where: _measured(scored, where, groups, named, seed) for where in WHERE}
    names = list(dict.fromkeys(name for part in found.values() for way in part["ways"] for name in way["values"]))
    settings = {"level": LEVEL, "resamples": RESAMPLES, "bins": BINS}
    return {"metrics": {"names": names, **settings, **found}, "reliability": _reliability(scored)}


def _measured(scored: Scored, where: str, groups: tuple[str, ...], labels: tuple[str, ...], seed: int) -> dict[str, Any]:
    truth = scored.test if where == "test" else scored.truth
    known = _known(truth, scored.task)
    unit = None if truth.unit is None else truth.unit[known]
    sample = Sample.of(scored.task, truth.truth[known], truth.group[known], unit, scored.mix, groups, labels)
    draws = Resamples.draw(sample, seed)
    ways, notices = [], []
    for pair, names in _ways(scored).items():
        scores = scored.test_scores(pair) if where == "test" else scored.scores(pair)
        if scores is None:
            notices.append(scored.refused(pair) or f"{title(*pair)} has no scores on {WHERE[where]}")
            continue
        values, why = measured(sample, scores[known], draws)
        ways.append({"ways": names, "candidate": title(*pair), "values": values})
        if why and f"{why} ({WHERE[where]})" not in notices:
            notices.append(f"{why} ({WHERE[where]})")
    if where == "test" and scored.task == "classification" and (scores := scored.test_scores(scored.plain)) is not None:
        terms = move_thresholds(scored.table.outcomes[scored.plain[0].id].raw.astype(np.float64), scored.truth.truth)
        values, _ = measured(sample, scores[known], draws, terms)
        ways.append({"ways": ["moved"], "candidate": title(*scored.plain), "values": values})
    return {"rows": len(sample), "looked_at": len(draws.rows), "ways": ways, "notices": notices}


def _known(truth: Truth, task: str) -> np.ndarray:
    """Rows of a group, and for classification of a label, that training rows had."""
    known = truth.group >= 0
    return known & (truth.truth >= 0) if task == "classification" else known


def _ways(scored: Scored) -> dict[Pair, list[str]]:
    """What is measured, and under which names; a candidate of several names is measured once."""
    found: dict[Pair, list[str]] = {}
    for name, pair in (("plain", scored.plain), ("base", scored.decision.base), ("chosen", scored.decision.chosen)):
        found.setdefault(pair, []).append(name)
    return found


def _reliability(scored: Scored) -> dict[str, Any] | None:
    """On the test rows: the learner as it is before, the verdict after."""
    before, after = scored.test_scores(scored.plain), scored.test_scores(scored.decision.chosen)
    if scored.task != "classification" or before is None or after is None:
        return None
    return reliability(before, after, scored.test.truth, row_weights(scored.test.group, scored.mix))
