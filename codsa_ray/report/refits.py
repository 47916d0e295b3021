"""Refits: the few fits that the report itself needs for CoDSA's trade-off, on one fold, and what they said, kept in the run folder.

At most 10 fits: a pilot at the balanced weights, asked what it makes of synthetic rows, and each design twice on resampled rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codsa_ray.audit.groupwise import groupwise
from codsa_ray.audit.tradeoff import fit_variance
from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Predictor
from codsa_ray.correct import Offset
from codsa_ray.report.scored import Scored
from codsa_ray.risk import estimate, task_of
from codsa_ray.seeds import rng_of, seed_of
from codsa_ray.trial import Mix, mixes

FOLD = 0
TIMES = 2
PER_GROUP = 500
PATIENCE = 60.0  # seconds of fits that a report may ask for, by what the search's own took


@dataclass(frozen=True)
class Refits:
    """Fits of one fold.

    Args:
        scored: what the search stored.
        bench: its rows, encoded.
    """

    scored: Scored
    bench: Bench

    def variance(self, candidate: Candidate) -> dict[str, float]:
        """Mean over the target mix of `fit_variance` of the candidate on held-out rows, {variance, se}.

        Every fit sees its own draw, where there are several, and rows resampled within groups, real and synthetic ones apart. The
        generator is not fitted again.
        """
        held = self.bench.within(candidate.domains).held_out(FOLD)
        several = list(mixes(self.bench, replace(candidate, fits=self.draws(candidate)), FOLD))
        scores = []
        for index in range(TIMES):
            mix = _resampled(several[index % len(several)], len(self._real(candidate)), rng_of(self.bench.rows.seed, "refits", index))
            scores.append(self._offset(mix, self._fit(candidate, mix, index).scores(held.X)))
        found = estimate(fit_variance(np.stack(scores), self.scored.task), held.group, self.scored.mix, held.unit)
        return {"variance": float(found.mean[0]), "se": float(found.se[0])}

    def shifts(self, pilot: Candidate, widest: Candidate) -> list[dict[str, Any]]:
        """Per group the pilot's mean loss on synthetic rows that it has not seen minus that on real rows that it has not seen.

        Args:
            pilot: full weights, so that it stands near the minimum of the balanced loss.
            widest: the plan whose synthetic rows are asked about.
        """
        size, truth = len(self.scored.mix), self.scored.truth
        (mix,) = mixes(self.bench, replace(widest, fits=1), FOLD)
        rows = _first(mix.group, len(self._real(widest)), size)
        (own,) = mixes(self.bench, pilot, FOLD)
        scores = np.asarray(self._fit(pilot, own, 0).scores(mix.X[rows]), dtype=np.float64)
        judge = task_of(self.scored.task, self.bench.classes, self.scored.table.loss)
        drawn = groupwise(judge.losses(scores, mix.y[rows]), mix.group[rows], None, size)
        held = groupwise(self.scored.table.losses[pilot.id, "raw"].astype(np.float64), truth.group, truth.unit, size)
        many = np.bincount(mix.group[rows], minlength=size), np.bincount(truth.group[truth.group >= 0], minlength=size)
        return [
            {"shift": float(drawn[0][g] - held[0][g]), "se": float(np.hypot(drawn[1][g], held[1][g])), "drawn": int(a), "held_out": int(b)}
            for g, (a, b) in enumerate(zip(*many, strict=True))
        ]

    def pilot(self, domains: str) -> Candidate | None:
        """The single fit at full weights, by group before by class, of the learner's tuned variant and on these domains' rows."""
        variant = self.scored.plain[0].variant
        found = [o.candidate for o in self.scored.table.outcomes.values() if not o.left_out and o.candidate.variant == variant]
        full = [c for c in found if c.kind == "weights" and c.strength == 1 and c.fits == 1 and c.domains == domains]
        return next(iter(sorted(full, key=lambda c: c.by != "group")), None)

    def draws(self, candidate: Candidate) -> int:
        """How many of the generator's draws the fits see."""
        own = {k[2] for k in self.bench.pools if k[:2] == (candidate.generator, FOLD) and k[3] == candidate.share}
        return max(1, min(TIMES, len(own)))

    def seconds(self, candidate: Candidate) -> float:
        """Of one of its fits, in the search."""
        return self.scored.table.outcomes[candidate.id].seconds / (candidate.fits * self.bench.rows.folds)

    def _real(self, candidate: Candidate) -> np.ndarray:
        return self.bench.within(candidate.domains).training(FOLD, candidate.share).y

    def _fit(self, candidate: Candidate, mix: Mix, index: int) -> Predictor:
        learner = self.bench.learner.variants()[candidate.variant]
        seed = seed_of(self.bench.rows.seed, "learner", FOLD, index)
        return learner.fit(mix.X, mix.y, mix.weight, classes=self.bench.classes, seed=seed)

    def _offset(self, mix: Mix, scores: np.ndarray) -> np.ndarray:
        """Scores corrected to the target mix as the search corrects them."""
        if not self.bench.classes:
            return np.asarray(scores, dtype=np.float64)
        labels = self.bench.rows.groups.labels(self.bench.rows.schema(FOLD).classes)
        weight = np.bincount(mix.group, mix.weight, len(self.scored.mix))
        offset = Offset.of(weight, self.scored.mix, labels, self.bench.classes, self.bench.coarse(FOLD)[1])
        return offset.apply(np.asarray(scores, dtype=np.float64), self.bench.held_out(FOLD).cells)


def _resampled(mix: Mix, real: int, rng: np.random.Generator) -> Mix:
    """Rows with replacement within each group, the first `real` ones and the synthetic ones apart."""
    stratum = 2 * mix.group + (np.arange(len(mix.y)) >= real)
    index = np.sort(np.concatenate([rng.choice(rows, len(rows)) for rows in _members(stratum)]))
    return Mix(mix.X[index], mix.y[index], mix.weight[index], mix.group[index])


def _members(stratum: np.ndarray) -> Iterator[np.ndarray]:
    return (np.flatnonzero(stratum == s) for s in np.unique(stratum))


def _first(group: np.ndarray, start: int, size: int) -> np.ndarray:
    """Positions from `start` on of the first PER_GROUP rows of each group."""
    inside = np.arange(len(group)) >= start
    found: Sequence[np.ndarray] = [np.flatnonzero(inside & (group == g))[:PER_GROUP] for g in range(size)]
    return np.concatenate(found)
