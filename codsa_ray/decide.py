"""Decision: whether synthesis beats everything that does without it, by stored out-of-fold losses; knows no score and no row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student

from codsa_ray.doubt import Doubt
from codsa_ray.errors import InternalError
from codsa_ray.prior import Belief, Shrunk, ratio_noise
from codsa_ray.risk import Estimate, estimate, group_means, row_weights, strata_of
from codsa_ray.seeds import rng_of
from codsa_ray.verdict import CONFIDENCE, LEVELS, Entry, Gain, GroupLoss, Learned, Level, Verdict

__all__ = ["Entry", "Gain", "GroupLoss", "Level", "Verdict", "decide"]

RESAMPLES = 1000
CAUTION = 1.0  # standard errors of the difference to plain correction that an entry is taken to be worse than it looks
CHUNK = 2_000_000  # cells of one block of (resamples, rows): 16 MB
REDRAWS = 200
NEGLIGIBLE = 0.02  # of the best loss: a simpler level may cost no more, however wide its error bar
THIN = 10  # a group of fewer units gets a note


def decide(
    losses: np.ndarray,
    groups: np.ndarray,
    mix: np.ndarray,
    entries: Sequence[Entry],
    *,
    units: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    belief: Belief | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Verdict:
    """Judges M entries by their out-of-fold losses.

    Entries are compared by loss plus CAUTION standard errors of its paired difference to plain correction (`_reference`): among
    dozens, the lowest loss is mostly luck where rare rows are few (docs/benchmarks/decisions.md).
    `augment` when the gain's lower bound at `confidence` is above 0: then the smallest synthetic size within one standard error of the
    best. Else the simplest level whose best entry is within one standard error of the best without synthesis and costs at most NEGLIGIBLE
    of its loss: with few rare rows an error bar alone lets through what costs half as much again. Errors are those of paired differences,
    and the interval covers which rows were scored, not what other fits of the same candidates would have given.

    Args:
        losses: (n, M) out-of-fold losses; average over repeats before.
        groups: (n,) ints, -1 for rows of no group, which are left out and counted.
        mix: (G,) target mix.
        entries: M entries, at least one without synthesis.
        units: (n,) ids of what was sampled together (patients), or None. names: (G,) of the groups, for sentences.
        belief: what earlier data sets say of these entries: choices are then made on losses shrunk towards it, scored as they are.
        confidence: of the interval that must lie above 0; the one that is told is CONFIDENCE's.
        resamples, seed: of the bootstrap.

    Raises:
        InternalError: shapes that do not fit, a loss that is not finite, no entry without synthesis, no row in the mix.
    """
    _check(losses, groups, entries)
    names = [str(g) for g in range(len(mix))] if names is None else names
    kept = groups >= 0
    inside, among = groups[kept], None if units is None else units[kept]
    judged, lone = _judged(inside, np.asarray(mix, dtype=np.float64), among)
    bench = _Bench.of(losses[kept], inside, judged, among, _reference(entries), belief)
    base, best, gain, chosen = _chosen(bench, entries, judged[~lone].sum() == 0, confidence, resamples, seed)
    leave = bench.among(entries, "leave")
    return Verdict(
        kind=entries[chosen].level,
        chosen=entries[chosen],
        base=entries[base],
        best=None if best is None else entries[best],
        gain=gain,
        loss=float(bench.means[chosen]),
        base_loss=float(bench.means[base]),
        leave_loss=None if leave is None else float(bench.means[leave]),
        levels=bench.levels(entries),
        groups=bench.by_group(names, leave, base, chosen),
        rows=len(inside),
        excluded=int((~kept).sum()),
        learned=bench.learned(entries, chosen, (base, best)),
        confidence=confidence,
        notes=_notes(inside, np.asarray(mix), among, lone, names, int((~kept).sum())),
    )


def _chosen(
    bench: "_Bench", entries: Sequence[Entry], silent: bool, confidence: float, resamples: int, seed: int
) -> tuple[int, int | None, Gain | None, int]:
    """(best entry without synthesis, best with it, the gain, the verdict's entry); no gain where nothing can be scored out of bag."""
    plain, with_synthesis = _sides(entries)
    base = bench.lowest(plain)
    best = bench.lowest(with_synthesis) if with_synthesis else None
    gain = None if best is None or silent else _gain(bench, entries, resamples, seed)
    if gain is not None and best is not None and gain.beyond(confidence):
        return base, best, gain, bench.smallest(entries, with_synthesis, best, base)
    return base, best, gain, bench.simplest(entries, base)


def _reference(entries: Sequence[Entry]) -> int:
    """The entry that does least beyond what costs nothing: the first that corrects and calibrates, else corrects, else has no synthesis."""
    wanted = (("correct", "calibrated"), ("correct", "offset"), ("leave", "raw"))
    found = [[m for m, e in enumerate(entries) if (e.level, e.form) == pair] for pair in wanted]
    return next(m for among in (*found, _sides(entries)[0]) for m in among)


def _sides(entries: Sequence[Entry]) -> tuple[list[int], list[int]]:
    """Entries without and with synthesis that the verdict chooses from."""
    return _of_levels(entries, LEVELS[:-1]), _of_levels(entries, LEVELS[-1:])


def _of_levels(entries: Sequence[Entry], levels: Sequence[str]) -> list[int]:
    return [m for m, e in enumerate(entries) if e.level in levels and not e.control]


def _check(losses: np.ndarray, groups: np.ndarray, entries: Sequence[Entry]) -> None:
    if losses.shape != (len(groups), len(entries)):
        raise InternalError(f"wanted losses of shape {(len(groups), len(entries))}; got {losses.shape}; pass rows x entries")
    finite = np.isfinite(losses).all(axis=0)
    broken = [entry.name for entry, fine in zip(entries, finite, strict=True) if not fine]
    if broken:
        named = f"{', '.join(broken[:3])} ({len(broken)} entries)"
        raise InternalError(f"wanted finite losses; got others in {named}; leave failed entries out")
    odd = [e.name for e in entries if e.level not in LEVELS]
    if odd or not _of_levels(entries, LEVELS[:-1]):
        got = odd or "only augment"
        raise InternalError(f"wanted levels {LEVELS} and an entry without synthesis; got {got}; add the size-0 candidates")


def _judged(groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The mix over groups of at least two units, and (G,) bool the weighed groups with one: those cannot be both in and out of bag."""
    many = _unit_counts(groups, len(mix), units)
    lone = (mix > 0) & (many == 1)
    enough = np.where(many > 1, mix, 0.0)
    if enough.sum() > 0:
        return enough / enough.sum(), lone
    return mix, mix > 0


def _unit_counts(groups: np.ndarray, size: int, units: np.ndarray | None) -> np.ndarray:
    """(G,) different units with a row in each group."""
    if units is None:
        return np.bincount(groups, minlength=size)
    pairs = np.unique(np.stack([groups.astype(np.int64), np.unique(units, return_inverse=True)[1]]), axis=1)
    return np.bincount(pairs[0], minlength=size)


def _notes(
    groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None, lone: np.ndarray, names: Sequence[str], excluded: int
) -> tuple[str, ...]:
    """What was left out of the judgement, and which groups are thin."""
    many = _unit_counts(groups, len(mix), units)
    what = "rows" if units is None else "units"

    def listed(which: np.ndarray) -> str:
        return ", ".join(f"{name} ({count})" for name, count, shown in zip(names, many, which, strict=True) if shown)

    notes = []
    if excluded:
        notes.append(f"{excluded} rows belong to no group of the target mix and were left out.")
    if np.any((mix > 0) & (many == 0)):
        notes.append(f"No scored row in group {listed((mix > 0) & (many == 0))}: its weight went to the others.")
    if lone.any():
        notes.append(f"Too few {what} to be scored out of bag in group {listed(lone)}: the judgement is silent on it.")
    thin = (mix > 0) & (many > 1) & (many < THIN)
    if thin.any():
        notes.append(f"Under {THIN} {what} in group {listed(thin)}: a rare large loss there may not have shown itself yet.")
    return tuple(notes)


@dataclass(frozen=True)
class _Bench:
    """Losses of the rows that count, rows sorted by group.

    Args:
        losses: (M, n). groups: (n,) ascending. mix: (G,). units: (n,) or None.
        means: (M,) balanced losses, rounded so that no rounding of a sum decides between equals.
        doubt: of the differences to the reference, CAUTION times which is added when entries are compared.
        shrunk: how they are shrunk towards what earlier data sets showed, or None.
    """

    losses: np.ndarray
    groups: np.ndarray
    mix: np.ndarray
    units: np.ndarray | None
    means: np.ndarray
    doubt: Doubt
    shrunk: Shrunk | None = None

    @staticmethod
    def of(
        losses: np.ndarray, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None, reference: int, belief: Belief | None = None
    ) -> "_Bench":
        """From losses (n, M) in any order of rows; `reference` is the entry that needs no doubt."""
        order = np.argsort(groups, kind="stable")
        kept, sorted_units = groups[order], None if units is None else units[order]
        sorted_losses = np.ascontiguousarray(losses[order].T, dtype=np.float64)
        means = _settled(np.einsum("mn,n->m", sorted_losses, row_weights(kept, mix)))
        doubt = Doubt.of((sorted_losses - sorted_losses[reference]).T, kept, mix, sorted_units)
        if belief is None:
            return _Bench(sorted_losses, kept, mix, sorted_units, means, doubt)
        noise = ratio_noise(sorted_losses.T, belief.reference, kept, mix, sorted_units)
        return _Bench(sorted_losses, kept, mix, sorted_units, means, doubt, belief.seen(means, noise))

    def believed(self, means: np.ndarray) -> np.ndarray:
        """(..., M) of (..., M) balanced losses: shrunk where there is a belief."""
        return means if self.shrunk is None else _settled(self.shrunk.means(means))

    def judged(self, counts: np.ndarray | None = None) -> np.ndarray:
        """(B, M) what entries are compared by where each unit was drawn `counts` (B, U) times, (M,) without them.

        A belief is doubt enough: losses shrunk towards it are compared as they are.
        """
        means = self.means if counts is None else _settled(_weigh(self.by_row(counts), self) @ self.losses.T)
        return means + _settled(CAUTION * self.doubt.se(counts)) if self.shrunk is None else self.believed(means)

    def by_row(self, counts: np.ndarray) -> np.ndarray:
        """(B, n) how often each row was drawn, of (B, U) counts of units."""
        return counts if self.units is None else counts[:, self.sampled[0]]

    @cached_property
    def sampled(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) unit of each row, (U,) stratum of each unit; kept, since every block of resamples asks."""
        return strata_of(self.groups, self.units)

    def lowest(self, among: list[int]) -> int:
        """The best entry, by loss and doubt; the first of equals."""
        return among[int(np.argmin(self.judged()[among]))]

    def among(self, entries: Sequence[Entry], level: str) -> int | None:
        """The best entry of a level, or None where it has none."""
        found = _of_levels(entries, [level])
        return self.lowest(found) if found else None

    def learned(self, entries: Sequence[Entry], chosen: int, rivals: tuple[int | None, ...]) -> Learned | None:
        """What of the comparison of the chosen entry with a rival comes from these data, the rest being the belief's."""
        if self.shrunk is None:
            return None
        other = next((m for m in (*rivals, self.shrunk.belief.reference) if m is not None and m != chosen), None)
        if other is None:
            return None
        return Learned(self.shrunk.belief.sets, self.shrunk.share_of_data(chosen, other), entries[other].called)

    def difference(self, m: int, other: int) -> tuple[float, float]:
        """Paired difference of the (shrunk) balanced losses of m and other, and its standard error (posterior standard deviation)."""
        if self.shrunk is not None:
            believed = self.believed(self.means)
            return float(believed[m] - believed[other]), self.shrunk.se(m, other)
        found = self.estimate(self.losses[m] - self.losses[other])
        return float(found.mean[0]), float(found.se[0])

    def estimate(self, columns: np.ndarray, floor: bool = False) -> Estimate:
        """Balanced means and standard errors of columns (n, P)."""
        return estimate(columns, self.groups, self.mix, self.units, floor)

    def smallest(self, entries: Sequence[Entry], among: list[int], best: int, base: int) -> int:
        """Of the augmenting entries within one standard error of the best and better than base: the smallest size, then the lowest loss."""
        near, judged = [], self.judged()
        for m in among:
            mean, se = self.difference(m, best)
            if m == best or (mean <= se and judged[m] < judged[base]):
                near.append(m)
        return min(near, key=lambda m: (entries[m].size, judged[m], m))

    def simplest(self, entries: Sequence[Entry], base: int) -> int:
        """The best entry of the simplest level that is as good as base for all practical purposes."""
        for level in LEVELS[:-1]:
            among = _of_levels(entries, [level])
            if among:
                m = self.lowest(among)
                mean, se = self.difference(m, base)
                if m == base or mean <= min(se, NEGLIGIBLE * self.means[base]):
                    return m
        return base

    def levels(self, entries: Sequence[Entry]) -> tuple[Level, ...]:
        """The best of each level."""
        found = []
        for level in LEVELS:
            among = _of_levels(entries, [level])
            if among:
                m = self.lowest(among)
                se = float(self.estimate(self.losses[m]).se[0])
                found.append(Level(level, entries[m].called, float(self.means[m]), se, len(among)))
        return tuple(found)

    def by_group(self, names: Sequence[str], leave: int | None, base: int, chosen: int) -> tuple[GroupLoss, ...]:
        """Per group, hopeless and absent ones included."""
        size = len(self.mix)
        many = np.bincount(self.groups, minlength=size)
        columns = [None if m is None else group_means(self.losses[m], self.groups, size) for m in (leave, base, chosen)]
        values = [[None if c is None or not many[g] else float(c[g]) for c in columns] for g in range(size)]
        return tuple(GroupLoss(str(names[g]), int(many[g]), *values[g]) for g in range(size))


def _settled(values: np.ndarray) -> np.ndarray:
    """Twelve decimals: sums in another order differ beyond them, and must not decide."""
    return np.round(values, 12)


def _gain(bench: _Bench, entries: Sequence[Entry], resamples: int, seed: int) -> Gain:
    """The gain of synthesis with both selections inside the bootstrap.

    Centre: in every resample the best entry of either side is chosen on in-bag rows and scored on the rows left out (BBC-CV; Tsamardinos,
    Greasidou & Borboudakis 2018), so the winner's curse of either side is out of the mean. Width: percentiles would be those of
    a third of the rows, far too wide; instead the full-sample paired variance, averaged over the pairs that the resamples chose
    (heavy tails make the single selected pair look too sure), no group's variance below the pooled one, and Student's t with
    Satterthwaite's degrees of freedom.
    Over 250 simulated data sets each (`benchmarks/decide_power.py`: 20 + 60 entries of equal true loss, six laws, four shapes with
    groups of 10 to 50 rows) it says `augment` in 0 to 3.2 %, percentiles in 0 to 23 %, a naive paired t in 0 to 28 %. One of the 60
    truly better by about .03: found in 7 to 59 % with 10 to 24 rare rows (percentiles 1 to 35 %), 69 to 98 % with 50 (35 to 92 %).
    """
    sides = [np.array(side) for side in _sides(entries)]
    gains, pairs = [], []
    for counts in _resampled(bench, resamples, seed):
        in_bag = bench.judged(counts)
        base, best = (side[np.argmin(in_bag[:, side], axis=1)] for side in sides)
        out_of_bag = _weigh((bench.by_row(counts) == 0).astype(np.float64), bench)
        gains.append(np.sum(out_of_bag * (bench.losses[base] - bench.losses[best]), axis=1))
        pairs.append(np.stack([base, best], axis=1))
    chosen, times = np.unique(np.concatenate(pairs), axis=0, return_counts=True)
    share = times / times.sum()
    spread = _pair_spread(bench, chosen)
    mean, se = float(np.concatenate(gains).mean()), float(np.sqrt(np.sum(share * spread[0] ** 2)))
    df = float(np.sum(share * spread[1]))
    reach = float(student.ppf((1 + CONFIDENCE) / 2, df)) * se
    return Gain(mean, se, df, mean - reach, mean + reach, resamples)


def _pair_spread(bench: _Bench, pairs: np.ndarray) -> np.ndarray:
    """(2, P) standard error and degrees of freedom of each pair's paired difference, in blocks."""
    step = max(1, CHUNK // bench.losses.shape[1])
    blocks = [pairs[i : i + step] for i in range(0, len(pairs), step)]
    found = [bench.estimate((bench.losses[b[:, 0]] - bench.losses[b[:, 1]]).T, floor=True) for b in blocks]
    return np.concatenate([np.stack([one.se, one.df]) for one in found], axis=1)


def _weigh(counts: np.ndarray, bench: _Bench) -> np.ndarray:
    """(B, n) weights that make sums over (B, n) counts balanced means; groups without a count give their weight to the others."""
    ids, starts, sizes = np.unique(bench.groups, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, starts, axis=1)
    held = np.where(totals > 0, bench.mix[ids], 0.0)
    share = held / np.maximum(held.sum(axis=1, keepdims=True), np.finfo(float).tiny) / np.maximum(totals, 1)
    return counts * np.repeat(share, sizes, axis=1)


def _resampled(bench: _Bench, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks (b, U) of how often each unit was drawn, with replacement within strata.

    A stratum of two units or more of which none was left out is drawn again, so that every group can be scored out of bag.
    """
    rng = rng_of(seed, "decide")
    stratum = bench.sampled[1]
    members = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    step = max(1, CHUNK // len(bench.groups))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = np.empty((size, len(stratum)))
        for rows in members:
            drawn[:, rows] = _draw(rng, size, len(rows))
        yield drawn


def _draw(rng: np.random.Generator, size: int, units: int) -> np.ndarray:
    """(size, units) counts of `units` draws with replacement, some unit left out wherever there is more than one."""
    counts = _counts(rng, size, units)
    for _ in range(REDRAWS if units > 1 else 0):
        full = np.flatnonzero((counts > 0).all(axis=1))
        if not len(full):
            break
        counts[full] = _counts(rng, len(full), units)
    return counts


def _counts(rng: np.random.Generator, size: int, units: int) -> np.ndarray:
    picks = rng.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
    return np.bincount(picks.ravel(), minlength=size * units).reshape(size, units)
