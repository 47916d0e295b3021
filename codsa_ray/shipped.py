"""Shipped: how the verdict's candidate is trained on what was written, and the correction that goes with it; fits nothing."""

from typing import Any

import numpy as np

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.correct import Calibration, Correction, Offset
from codsa_ray.domain import OTHERS, POWERS, TARGET
from codsa_ray.plan import Plan
from codsa_ray.regions import Regions
from codsa_ray.rows import FINAL

ONE = {
    "plain": "fit on all rows",
    "weights": "fit on all rows with `_weight` as sample weights",
    "retrained": "fit on all rows; then fit the last layer again, alone, on rows that taught no other, with `_weight` as sample weights",
    "loss": "fit on all rows with the log share of each label added to its score while training and left out when predicting",
    "cells": "fit on all rows with `_region` as the target, one label per cell, in the order of `cells`",
    "undersampled": "fit on at most {most} random rows of every `_region`",
    "synthetic": "fit on the real rows and the rows of `_draw` 0 with `_weight` as sample weights",
}
MANY = {
    "undersampled": "fit {fits} models, each on at most {most} random rows of every `_region`; average their {scores}",
    "synthetic": "fit {fits} models, one per `_draw`, on the real rows and that draw's with `_weight`; average their {scores}",
}
SCORES = {"classification": "log-probabilities", "regression": "predictions", "anomaly": "log-odds"}
SHARED = "; leave out the real rows of `_weight` 0: the generator has learned from them"
LEFT_OUT = "; leave out the real rows of `_weight` 0: they are of "
ASIDE = {TARGET: f"{LEFT_OUT}other domains", OTHERS: f"{LEFT_OUT}the target domain"}
BAG = "{fits} times, each on a bootstrap sample within every `_region`: {one}; average their {scores}"


def real_weights(candidate: Candidate, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(G,) weight of a real row of each group: 1, or n^-strength of its class or group, scaled to keep the total.

    Args:
        counts: (G,) training rows. labels: (G,) class of each group (anything where the candidate does not weigh by class).
    """
    counts = np.maximum(counts, 1).astype(float)
    if candidate.kind not in ("weights", "retrained"):
        return np.ones(len(counts))
    cell = np.bincount(labels, counts)[labels] if candidate.by == "class" else counts
    factor = cell**-candidate.strength
    return np.asarray(factor * counts.sum() / (factor * counts).sum())


def real_counts(bench: Bench, candidate: Candidate) -> np.ndarray:
    """(G,) weight of the real rows that one of the candidate's fits on all training rows takes, before weights by class or group."""
    if candidate.domains in POWERS:
        real = bench.training(FINAL, candidate.share)
        weight = real.weight * bench.importance(FINAL, POWERS[candidate.domains], candidate.share)
        return np.bincount(real.group, weight, len(bench.rows.groups))
    own, others = bench.regions(FINAL, candidate.share).group_counts, np.array(bench.rows.others or [0])
    return np.asarray(own * (candidate.domains != OTHERS) + others * (candidate.domains != TARGET))


def fit_weights(candidate: Candidate, regions: Regions, labels: np.ndarray, plan: Plan, counts: np.ndarray | None = None) -> np.ndarray:
    """(G,) all weight of one of the candidate's fits in each group, as the offset wants it: trial.py in closed form.

    Args:
        regions: that the plan is of.
        counts: (G,) weight of the real rows of the fit (`real_counts`); the rows of the regions when left out.
    """
    counts = regions.group_counts if counts is None else counts
    weight = counts * real_weights(candidate, counts, labels)
    if candidate.kind == "loss":
        return np.asarray(weight / np.maximum(np.bincount(labels, weight)[labels], 1e-12))
    if candidate.kind == "undersampled":
        return np.minimum(weight, _most(candidate, counts))
    for part in plan.parts:
        weight = weight + np.bincount(regions.groups, np.array(part.counts) * part.row_weight, len(weight))
    return np.asarray(weight)


def _most(candidate: Candidate, counts: np.ndarray) -> int:
    return max(1, round(candidate.ratio * int(counts[counts > 0].min())))


def recipe(candidate: Candidate, counts: np.ndarray, task: str = "classification") -> str:
    """How to train what the verdict chose on `augmented/`, in one sentence."""
    words = {"fits": candidate.fits, "most": _most(candidate, counts), "scores": SCORES[task]}
    one = ONE["weights" if candidate.kind == "plain" and candidate.domains else candidate.kind].format(**words)
    sentence = one if candidate.fits == 1 else MANY.get(candidate.kind, BAG).format(one=one, **words)
    return sentence + (SHARED if candidate.share < 1 else "") + ASIDE.get(candidate.domains, "")


def correction_of(bench: Bench, candidate: Candidate, form: str, title: str, calibration: Calibration | None) -> dict[str, Any]:
    """correction.json: how to train, and what to do to the (averaged) scores.

    Args:
        form: raw, offset or calibrated.
        title: what people call the candidate.
        calibration: the one that ships.
    """
    schema, groups = bench.rows.schema(FINAL), bench.rows.groups
    regions = bench.regions(FINAL, candidate.share)
    scaling = calibration if form == "calibrated" else None
    counts = real_counts(bench, candidate)
    words = {"candidate": title, "train": recipe(candidate, counts, schema.task)}
    if not bench.classes:
        return {**Correction(schema.task, calibration=scaling).to_json(), **words}
    coarse, onto = bench.coarse(FINAL)
    labels = groups.labels(schema.classes)
    weight = fit_weights(candidate, regions, labels, candidate.plan(regions, bench.allocator), counts)
    joint = candidate.kind == "cells"
    offset = Offset.of(weight, np.array(groups.mix), labels, bench.classes, None if joint else onto)
    cells = groups.items if joint else coarse.items
    by_cell = not joint and form != "raw" and len(cells) > bench.classes
    correction = Correction(schema.task, tuple(schema.classes), None if form == "raw" else offset, scaling, by_cell, joint)
    return {**correction.to_json(), "cells": [group.name for group in cells], **words}
