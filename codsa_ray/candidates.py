"""Candidates: what the search compares, those without synthesis first; knows no data and no model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from types import MappingProxyType
from typing import Any

import numpy as np

from codsa_ray.contracts import Allocator
from codsa_ray.domain import FLATTENED, POOLED, TARGET, WAYS, WEIGHTED, WORDS
from codsa_ray.plan import Part, Plan, sainte_lague, size_of
from codsa_ray.regions import Regions
from codsa_ray.seeds import fingerprint

UNDERSAMPLED = (1.0, 3.0, 10.0)
STRENGTHS = (0.5, 1.0)
SIZE_CEILING = 50_000
LARGEST_GAMMA = 4.0
EXTRA = 0.25  # rows of Nakada's second part, times the training rows
LEANING = 3  # regions whose weights are searched one by one
FORMS = ("raw", "offset", "calibrated")
BESIDE = (TARGET, POOLED, FLATTENED, WEIGHTED)  # real rows that drawn rows of a target domain may stand beside


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Args:
        kind: plain, weights, retrained (the last layer, on weights), loss (logit-adjusted), cells (label x group), undersampled,
            synthetic, or corrected_synthesis (bias.py).
        fits: learners whose log-probabilities are averaged (a bag, or one per draw).
        by, strength: weights n^-strength by `class` or `group`.
        ratio: undersampled: rows of each group at most ratio x the smallest group.
        generator: identity of the generator.
        gamma, eta: synthetic size = gamma * gap + eta * rows.
        tilt: share of the synthetic rows spread over all regions by the target mix instead of the allocator's weights.
        lean: log factors on the weights of the regions that matter (see `leaning`), before they are normalised again.
        row_weight: weight of a synthetic row.
        extra, extra_weight: a second part of the plan (Nakada et al. 2024): extra x n rows by the target mix, at this row weight.
        share: of every region's rows, what the generator learns from; below 1 the fit sees only the others (CoDSA's r). 1: both see all.
        variant: which of the learner's settings.
        domains: whose real rows the fits take (domain.py): all domains', the target's or the others' alone, all with importance weights.
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
    lean: tuple[float, ...] = ()
    row_weight: float = 1.0
    extra: float = 0.0
    extra_weight: float = 0.5
    share: float = 1.0
    variant: int = 0
    domains: str = POOLED

    def __post_init__(self) -> None:
        # JSON gives lists back.
        object.__setattr__(self, "lean", tuple(self.lean))

    @property
    def id(self) -> str:
        """Changes with any field."""
        return fingerprint(self.to_json())

    @property
    def name(self) -> str:
        """What people read; unique per field values but for the variant."""
        if self.kind == "plain" and self.domains:
            return WORDS[self.domains] + (f", bag of {self.fits}" if self.fits > 1 else "")
        return self._name + (f", {WORDS[self.domains]}" if self.domains else "")

    @property
    def _name(self) -> str:
        bag = f", bag of {self.fits}" if self.fits > 1 else ""
        if self.kind == "synthetic":
            size = f"gamma {self.gamma:.3g}" + (f" + {self.eta:.3g} n" if self.eta else "")
            tilt = f", tilt {self.tilt:g}" if self.tilt else ""
            lean = f", lean {'/'.join(f'{v:+.2g}' for v in self.lean)}" if any(self.lean) else ""
            extra = f", {self.extra:g} n more at weight {self.extra_weight:g}" if self.extra else ""
            share = f", generator share {self.share:g}" if self.share < 1 else ""
            draws = f", {self.fits} draws" if self.fits > 1 else ""
            return f"{self.generator.rpartition('-')[0]} {size}{tilt}{lean}, row weight {self.row_weight:g}{extra}{share}{draws}"
        if self.kind == "corrected_synthesis":
            return f"bias-corrected interpolation gamma {self.gamma:.3g}"
        if self.kind == "weights":
            return f"{self.by} weights {'full' if self.strength == 1 else f'{self.strength:g}'}{bag}"
        if self.kind == "retrained":
            return f"last layer again, {self.by} weights full{bag}"
        if self.kind == "undersampled":
            return f"undersampled {self.ratio:g} x smallest{bag}"
        return {"plain": "none", "loss": "logit-adjusted loss", "cells": "joint cells"}[self.kind] + bag

    def level(self, form: str) -> str:
        """leave, correct, reweight, bag or augment: what the verdict would say."""
        if self.kind in ("synthetic", "corrected_synthesis"):
            return "augment"
        if self.fits > 1:
            return "bag"
        if self.kind != "plain" or self.domains:
            return "reweight"
        return "leave" if form == "raw" else "correct"

    def plan(self, regions: Regions, allocator: Allocator) -> Plan:
        """Whole rows per region for this candidate on these regions."""
        size, more = size_of(self.gamma, self.eta, regions.gap, regions.rows), round(self.extra * regions.rows)
        if self.kind != "synthetic" or size + more == 0:
            return Plan()
        weights = (1 - self.tilt) * allocator.weights(regions, size, self.row_weight) + self.tilt * regions.shares
        for region, factor in zip(leaning(regions), self.lean, strict=False):
            weights[region] *= np.exp(factor)
        parts = [Part(tuple(map(int, sainte_lague(weights, size))), self.row_weight)] if size else []
        parts += [Part(tuple(map(int, sainte_lague(regions.shares, more))), self.extra_weight)] if more else []
        return Plan(tuple(parts), self.fits)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `domains` only where it is used, so that candidates without it are those of before."""
        return {key: value for key, value in asdict(self).items() if key != "domains" or value}


def leaning(regions: Regions) -> list[int]:
    """The regions that matter most: those that lack the most rows, at most LEANING; none where fewer than two lack any."""
    lacking = np.flatnonzero(regions.deficits >= 1)
    order = lacking[np.argsort(-regions.deficits[lacking], kind="stable")]
    return [int(k) for k in order[:LEANING]] if len(order) > 1 else []


def baselines(
    bag: int,
    offset: bool,
    cells: bool,
    groups_are_classes: bool,
    classes: int,
    variant: int,
    domains: bool = False,
    retrains: bool = False,
) -> list[Candidate]:
    """Every candidate without synthesis but the plain one.

    Args:
        bag: fits of a bag (as many as a synthetic candidate has draws).
        offset: the learner can train with an offset.
        cells: a group is not known when predicting.
        groups_are_classes: group weights would repeat class weights.
        classes: C; 0 for tasks without classes.
        variant: the learner's settings, tuned on the plain candidate.
        domains: there are rows of other domains: a fit, one at full weights and a bag each on the target's rows, on the others', and with
            importance weights.
        retrains: the learner can train its last layer again.
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
    if retrains and classes and not groups_are_classes:
        found += [Candidate("retrained", fits=many, by="group", strength=1.0, variant=variant) for many in (1, fits)]
    full = Candidate("weights", by=ways[-1], strength=1.0, variant=variant)
    each = (Candidate(variant=variant), full, Candidate(fits=fits, variant=variant)) if domains else ()
    return found + [replace(one, domains=way) for way in WAYS[1:] for one in each]


def largest_gamma(regions: Regions) -> float:
    """How far the search goes: up to 4 times full balance, never over SIZE_CEILING rows unless full balance itself is more."""
    return float(min(LARGEST_GAMMA, max(1.0, SIZE_CEILING / max(regions.gap, 1.0))))


def needs_eta(regions: Regions) -> bool:
    """True where the data are nearly balanced, so that a size relative to the gap says little."""
    return regions.gap < 0.1 * regions.rows


def openers(
    generators: list[str],
    draws: int,
    regions: Regions,
    variant: int,
    theory: Mapping[str, float] = MappingProxyType({}),
    domains: bool = False,
) -> list[Candidate]:
    """The first synthetic candidates: several draws at a low weight, full balance, twice that, the theory's size, Nakada's two parts.

    Args:
        theory: the size at which theory.py's bias terms cancel, as a gamma, of the generators for which it is finite.
        domains: there are rows of other domains: drawn rows stand beside real rows of the ways BESIDE in turn.
    """
    gamma, eta = (0.0, 1.0) if needs_eta(regions) else (1.0, 0.0)
    largest = largest_gamma(regions)

    def candidate(generator: str, times: float, weight: float, fits: int, extra: float = 0.0) -> Candidate:
        scaled = min(times * gamma, largest)
        return Candidate(
            "synthetic", fits, generator=generator, gamma=scaled, eta=times * eta, row_weight=weight, extra=extra, variant=variant
        )

    shapes = [(1.0, 1.0, 1), (1.0, 0.2, draws), (0.3, 1.0, draws), (2.0, 0.2, draws)]
    found = [candidate(generator, *shape) for shape in shapes for generator in generators]
    found += [candidate(g, min(theory[g], largest), 1.0, draws) for g in generators if g in theory and gamma]
    found += [candidate(generator, 1.0, 1.0, draws, EXTRA) for generator in generators]
    found = list(dict.fromkeys(found))
    return [replace(one, domains=way) for one, way in zip(found, cycle(BESIDE), strict=False)] if domains else found
