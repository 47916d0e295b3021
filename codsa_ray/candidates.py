"""Candidates: what the search compares, those without synthesis first; knows no data and no model."""

from dataclasses import asdict, dataclass
from typing import Any

from codsa_ray.contracts import Allocator
from codsa_ray.plan import Part, Plan, sainte_lague, size_of
from codsa_ray.regions import Regions
from codsa_ray.seeds import fingerprint

UNDERSAMPLED = (1.0, 3.0, 10.0)
STRENGTHS = (0.5, 1.0)
SIZE_CEILING = 50_000
LARGEST_GAMMA = 4.0
FORMS = ("raw", "offset", "calibrated")


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Args:
        kind: plain, weights, loss (logit-adjusted), cells (label x group), undersampled, or synthetic.
        fits: learners whose log-probabilities are averaged (a bag, or one per draw).
        by, strength: weights n^-strength by `class` or `group`.
        ratio: undersampled: rows of each group at most ratio x the smallest group.
        generator: identity of the generator.
        gamma, eta: synthetic size = gamma * gap + eta * rows.
        tilt: share of the synthetic rows spread over all regions by the target mix instead of the allocator's weights.
        row_weight: weight of a synthetic row.
        variant: which of the learner's settings.
    """

    kind: str = "plain"
    fits: int = 1
    by: str = ""
    strength: float = 0.0
    ratio: float = 0.0
    generator: str = ""
    gamma: float = 0.0
    eta: float = 0.0
    tilt: float = 0.0
    row_weight: float = 1.0
    variant: int = 0

    @property
    def id(self) -> str:
        """Changes with any field."""
        return fingerprint(asdict(self))

    @property
    def name(self) -> str:
        """What people read; unique per field values but for the variant."""
        bag = f", bag of {self.fits}" if self.fits > 1 else ""
        if self.kind == "synthetic":
            size = f"gamma {self.gamma:.3g}" + (f" + {self.eta:.3g} n" if self.eta else "")
            tilt = f", tilt {self.tilt:g}" if self.tilt else ""
            draws = f", {self.fits} draws" if self.fits > 1 else ""
            return f"{self.generator.rpartition('-')[0]} {size}{tilt}, row weight {self.row_weight:g}{draws}"
        if self.kind == "weights":
            return f"{self.by} weights {'full' if self.strength == 1 else f'{self.strength:g}'}{bag}"
        if self.kind == "undersampled":
            return f"undersampled {self.ratio:g} x smallest{bag}"
        return {"plain": "none", "loss": "logit-adjusted loss", "cells": "joint cells"}[self.kind] + bag

    def level(self, form: str) -> str:
        """leave, correct, reweight, bag or augment: what the verdict would say."""
        if self.kind == "synthetic":
            return "augment"
        if self.fits > 1:
            return "bag"
        if self.kind != "plain":
            return "reweight"
        return "leave" if form == "raw" else "correct"

    def plan(self, regions: Regions, allocator: Allocator) -> Plan:
        """Whole rows per region for this candidate on these regions."""
        size = size_of(self.gamma, self.eta, regions.gap, int(regions.counts.sum()))
        if self.kind != "synthetic" or size == 0:
            return Plan()
        weights = allocator.weights(regions, size, self.row_weight)
        weights = (1 - self.tilt) * weights + self.tilt * regions.shares
        counts = sainte_lague(weights, size)
        return Plan((Part(tuple(map(int, counts)), self.row_weight),), self.fits)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def baselines(bag: int, offset: bool, cells: bool, groups_are_classes: bool, classes: int, variant: int) -> list[Candidate]:
    """Every candidate without synthesis but the plain one.

    Args:
        bag: fits of a bag (as many as a synthetic candidate has draws).
        offset: the learner can train with an offset.
        cells: a group is not known when predicting.
        groups_are_classes: group weights would repeat class weights.
        classes: C; 0 for tasks without classes.
        variant: the learner's settings, tuned on the plain candidate.
    """
    ways = ("class",) if groups_are_classes else ("class", "group") if classes else ("group",)
    found = [Candidate("weights", by=by, strength=s, variant=variant) for by in ways for s in STRENGTHS]
    if offset and classes:
        found.append(Candidate("loss", variant=variant))
    if cells and classes:
        found.append(Candidate("cells", variant=variant))
    fits = max(bag, 2)
    found += [Candidate("undersampled", fits=fits, ratio=ratio, variant=variant) for ratio in UNDERSAMPLED]
    found.append(Candidate(fits=fits, variant=variant))
    found += [Candidate("weights", fits=fits, by=ways[-1], strength=s, variant=variant) for s in STRENGTHS]
    if cells and classes:
        found.append(Candidate("cells", fits=fits, variant=variant))
    return found


def largest_gamma(regions: Regions) -> float:
    """How far the search goes: up to 4 times full balance, never over SIZE_CEILING rows unless full balance itself is more."""
    return float(min(LARGEST_GAMMA, max(1.0, SIZE_CEILING / max(regions.gap, 1.0))))


def needs_eta(regions: Regions) -> bool:
    """True where the data are nearly balanced, so that a size relative to the gap says little."""
    return regions.gap < 0.1 * regions.counts.sum()


def openers(generators: list[str], draws: int, regions: Regions, variant: int) -> list[Candidate]:
    """The first synthetic candidates, the same for every data set: several draws at a low weight, full balance, twice that."""
    gamma, eta = (0.0, 1.0) if needs_eta(regions) else (1.0, 0.0)
    sizes = [(1.0, 1.0, 1), (1.0, 0.2, draws), (0.3, 1.0, draws), (2.0, 0.2, draws)]
    found = []
    for times, weight, fits in sizes:
        for generator in generators:
            scaled = min(times * gamma, largest_gamma(regions))
            found.append(
                Candidate("synthetic", fits, generator=generator, gamma=scaled, eta=times * eta, row_weight=weight, variant=variant)
            )
    return list(dict.fromkeys(found))
