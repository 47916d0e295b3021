"""Evidence: what theory.py says of a run's rare groups and generators, from its rows and pools; trains no learner and decides nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.basis import Basis
from codsa_ray.bench import Bench
from codsa_ray.blame import why
from codsa_ray.errors import PLUGIN_FAILURES, CandidateError
from codsa_ray.fitdata import REGION, ROW
from codsa_ray.folder import Folder
from codsa_ray.pilot import LOGISTIC
from codsa_ray.plan import sainte_lague
from codsa_ray.pool import Pool, prefix
from codsa_ray.rows import FINAL, GROUP, UNIT
from codsa_ray.seeds import fingerprint, rng_of
from codsa_ray.theory import CrossFit, asymmetry, beyond_offset, combined, cross_fit, quality, symmetry

VERSION = 1
FILE = "evidence.json"
MOST_ROWS = 5000  # of a group
MOST_GROUPS = 4  # rare groups, those that lack most
MOST_COLUMNS = 40
LEAST_ROWS = 10
ROWS_PER_COLUMN = 5
DRAWN = 1000  # of a group, a generator and a fold
PILOT = replace(LOGISTIC, ridge=1e-3)  # a learner's usual penalty, so that separable groups have a finite fit


@dataclass(frozen=True)
class Bias:
    """One generator on one rare group.

    Args:
        generator: identity.
        p_value: of no bias (theory.quality's test).
        score, published: quality scores, ours with the noise taken out.
        ratio, cosine: |g_psi| / |g_phi|, and the angle between bias and asymmetry.
        gamma: rows that theory asks for, in units of what the group lacks; None where the bias wins.
    """

    generator: str
    p_value: float
    score: float
    published: float
    ratio: float
    cosine: float
    gamma: float | None


@dataclass(frozen=True)
class Contrast:
    """A rare group against the largest group of another label.

    Args:
        group, against: their names.
        rows, against_rows: training rows.
        columns: principal components that the pilot saw.
        symmetry: p-value of the same minimiser on both sides; logistic loss with an intercept hardly ever passes.
        beyond_offset: p-value of no slope moved by balancing; where it is not small, the offset does what balancing does.
        biases: of the generators.
    """

    group: str
    against: str
    rows: int
    against_rows: int
    columns: int
    symmetry: float
    beyond_offset: float
    biases: tuple[Bias, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What the theory of the synthetic size says before any learner is trained.

    Args:
        contrasts: rare groups, those that lack most first.
        gammas: generator identity -> theory's size over the gap, all contrasts together; generators whose size is finite only.
        notes: what could not be judged, and why.
        reason: why there is no contrast, or "".
    """

    contrasts: tuple[Contrast, ...] = ()
    gammas: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def theory(self) -> tuple[tuple[str, float], ...]:
        """(generator identity, gamma), sorted."""
        return tuple(sorted(self.gammas.items()))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Evidence":
        """The inverse of `to_json`."""
        contrasts = tuple(Contrast(**{**c, "biases": tuple(Bias(**b) for b in c["biases"])}) for c in value["contrasts"])
        return Evidence(contrasts, dict(value["gammas"]), tuple(value["notes"]), value["reason"])


def gather(bench: Bench, generators: Sequence[str]) -> Evidence:
    """Compares each rare group with the largest group of another label, and what generators drew for it with held-out rows of it.

    The theory is of two classes. Ours for more labels and for label x group: every group that lacks rows stands against the largest one
    of another label; sizes are combined by theory.combined. Large groups are thinned to MOST_ROWS, rows are encoded as the learner of the
    first fold sees them and projected on their leading principal components, one for ROWS_PER_COLUMN rare rows at most.

    Args:
        bench: the run's rows and pools, of a classification.
        generators: identities whose pools are judged, at draw 0.

    Returns:
        The evidence; what a pilot or an encoder could not do is a note in it.
    """
    if not bench.classes:
        return Evidence(reason="theory's size is for classification")
    try:
        sample = _Sample.of(bench)
    except PLUGIN_FAILURES as error:
        return Evidence(reason=f"rows could not be encoded: {why(error)}")
    if isinstance(sample, str):
        return Evidence(reason=sample)
    pairs = _pairs(bench, sample)
    if not pairs:
        return Evidence(reason="no group lacks rows beside a larger group of another label")
    return _judged(bench, sample, pairs, generators)


def kept(bench: Bench, generators: Sequence[str], folder: Folder) -> Evidence:
    """`gather`, kept as FILE in the folder and read back while the same pools are asked about."""
    pools = sorted(pool.key.id for key, pool in bench.pools.items() if key[0] in generators)
    depends = fingerprint([VERSION, list(generators), pools])
    stored = folder.read_json(FILE) if folder.exists(FILE) else {}
    if stored.pop("depends", "") == depends:
        return Evidence.from_json(stored)
    evidence = gather(bench, generators)
    folder.make().write_json(FILE, {**evidence.to_json(), "depends": depends})
    return evidence


@dataclass(frozen=True)
class _Sample:
    """Training rows, at most MOST_ROWS of a group.

    Args:
        X: (n, d) encoded as the learner of the first fold sees them.
        group, fold: (n,), fold -1 where a row is never held out.
        labels: (G,) the label that most of a group's rows have; rows of a group with another are left out.
        units: rows share units.
    """

    X: np.ndarray
    group: np.ndarray
    fold: np.ndarray
    labels: np.ndarray
    units: bool

    @staticmethod
    def of(bench: Bench) -> "_Sample | str":
        """The sample, or why there is none."""
        part, rows = bench.partitions[FINAL], bench.rows
        table = rows.training(FINAL, part.regions, part.rule).table(min(bench.cap, MOST_ROWS * len(part.regions)))
        group, truth = table[GROUP].to_numpy().astype(np.int64), rows.schema(FINAL).truth(table)
        known = (group >= 0) & (truth >= 0)
        count = len(rows.groups.items)
        labels = np.bincount(group[known] * bench.classes + truth[known], minlength=count * bench.classes)
        labels = labels.reshape(count, bench.classes).argmax(1)
        kept = np.flatnonzero(known & (truth == labels[group]))
        kept = kept[_thinned(table.take(pa.array(kept)), part.regions.counts, rows.seed)]
        table = table.take(pa.array(kept))
        X = bench.encode(table, 0)
        if X.ndim != 2 or not np.issubdtype(X.dtype, np.number):
            return f"the learner's encoding is no table of numbers: {X.ndim} dimensions of {X.dtype}"
        fold = rows.folds_of(table[ROW].to_numpy())
        return _Sample(X, group[kept], np.where(fold < rows.folds, fold, -1), labels, UNIT in table.column_names)


def _thinned(table: pa.Table, counts: np.ndarray, seed: int) -> np.ndarray:
    """Positions of at most MOST_ROWS rows of each group, by the rows that each of its regions stands for."""
    group, region = table[GROUP].to_numpy(), table[REGION].to_numpy()
    weight = (counts / np.maximum(np.bincount(region, minlength=len(counts)), 1))[region]
    kept = []
    for g in np.unique(group):
        mine = np.flatnonzero(group == g)
        if len(mine) > MOST_ROWS:
            mine = rng_of(seed, "evidence", int(g)).choice(mine, MOST_ROWS, replace=False, p=weight[mine] / weight[mine].sum())
        kept.append(np.sort(mine))
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class _Pair:
    """A rare group, the common one it stands against, and rows that the rare one lacks."""

    rare: int
    common: int
    lacks: float


def _pairs(bench: Bench, sample: _Sample) -> list[_Pair]:
    regions = bench.partitions[FINAL].regions
    counts = regions.group_counts
    lacks = np.bincount(regions.groups, regions.deficits, minlength=len(counts))
    found = []
    for g in np.argsort(-lacks, kind="stable"):
        others = np.flatnonzero((sample.labels != sample.labels[g]) & (counts > counts[g]))
        if lacks[g] >= 1 and len(others):
            found.append(_Pair(int(g), int(others[np.argmax(counts[others])]), float(lacks[g])))
    return found[:MOST_GROUPS]


def _judged(bench: Bench, sample: _Sample, pairs: list[_Pair], generators: Sequence[str]) -> Evidence:
    names = [group.name for group in bench.rows.groups.items]
    notes = ["rows of one unit count as independent"] if sample.units else []
    contrasts, felt = [], {generator: [] for generator in generators}  # type: ignore[var-annotated]
    drawn = {g: _drawn(bench, g, [pair.rare for pair in pairs], sample.labels, notes) for g in generators}
    for pair in pairs:
        try:
            pilot = _Pilot.of(bench, sample, pair)
        except CandidateError as error:
            notes.append(f"{names[pair.rare]}: {error}")
            continue
        biases = []
        for generator in generators:
            try:
                bias, g_psi = pilot.judge(generator, drawn[generator], pair, bench.rows.seed)
            except CandidateError as error:
                notes.append(f"{names[pair.rare]}, {generator}: {error}")
                continue
            biases.append(bias)
            felt[generator].append((pilot.g_phi, g_psi, pair.lacks))
        contrasts.append(pilot.contrast(names, pair, tuple(biases)))
    sizes = {generator: combined(groups) for generator, groups in felt.items() if groups}
    # Three digits: the last ones depend on how many threads a sum was spread over.
    gammas = {generator: float(f"{size:.3g}") for generator, size in sizes.items() if size is not None}
    return Evidence(tuple(contrasts), gammas, tuple(notes), "" if contrasts else "no pilot could be fitted")


@dataclass(frozen=True)
class _Pilot:
    """One contrast's fits: the projection of encoded rows, both sides projected, the asymmetry, p-values of the tests, the cross-fit."""

    basis: Basis
    common: np.ndarray
    rare: np.ndarray
    g_phi: np.ndarray
    symmetry: float
    beyond_offset: float
    fits: CrossFit

    @staticmethod
    def of(bench: Bench, sample: _Sample, pair: _Pair) -> "_Pilot":
        """Fits both sides."""
        sides = [np.flatnonzero(sample.group == g) for g in (pair.common, pair.rare)]
        if len(sides[1]) < LEAST_ROWS:
            raise CandidateError(f"{len(sides[1])} rows are too few for the theory, it wants {LEAST_ROWS}")
        many = int(np.clip(len(sides[1]) // ROWS_PER_COLUMN - 1, 1, MOST_COLUMNS))
        basis = Basis.of([sample.X[side] for side in sides], many, rng_of(bench.rows.seed, "evidence basis", pair.rare))
        common, rare = (basis.design(sample.X[side]) for side in sides)
        counts = bench.partitions[FINAL].regions.group_counts
        fits = cross_fit(PILOT, common, rare, (sample.fold[sides[0]], sample.fold[sides[1]]))
        # Scores are about the rows there are, not about those that were looked at.
        fits = replace(fits, sizes=(int(counts[pair.common]), int(counts[pair.rare])))
        tests = symmetry(PILOT, common, rare).p_value, beyond_offset(PILOT, common, rare).p_value
        return _Pilot(basis, common, rare, asymmetry(PILOT, common, rare), *tests, fits)

    def judge(self, generator: str, drawn: dict[tuple[int, int], np.ndarray], pair: _Pair, seed: int) -> tuple[Bias, np.ndarray]:
        """The generator's bias, with g_psi."""
        found = [drawn.get((fold, pair.rare), np.zeros((0, 0))) for fold in self.fits.held]
        if not all(map(len, found)):
            raise CandidateError("a fold's pool holds no row of the group")
        rng = rng_of(seed, "evidence quality", generator, pair.rare)
        found = [self.basis.design(X) for X in found]
        result = quality(self.fits, found, rng)
        size = combined([(self.g_phi, result.bias, 1.0)])
        long, far = float(np.linalg.norm(self.g_phi)), float(np.linalg.norm(result.bias))
        cosine = float(self.g_phi @ result.bias) / max(long * far, 1e-300)
        score, published = result.score, result.published
        if not np.all(np.isfinite([score, published, cosine])):
            raise CandidateError("the gradients of held-out and drawn rows do not vary")
        return Bias(generator, result.test.p_value, score, published, far / max(long, 1e-300), cosine, size), result.bias

    def contrast(self, names: list[str], pair: _Pair, biases: tuple[Bias, ...]) -> Contrast:
        """What is stored."""
        against, rows = self.fits.sizes
        return Contrast(
            names[pair.rare],
            names[pair.common],
            rows,
            against,
            self.common.shape[1] - 1,
            self.symmetry,
            self.beyond_offset,
            biases,
        )


def _drawn(bench: Bench, generator: str, rare: list[int], labels: np.ndarray, notes: list[str]) -> dict[tuple[int, int], np.ndarray]:
    """(fold, group) -> encoded rows of the generator's first draw, at most DRAWN."""
    found: dict[tuple[int, int], np.ndarray] = {}
    for fold in range(bench.rows.folds):
        shares = [share for name, f, draw, share in bench.pools if (name, f, draw) == (generator, fold, 0)]
        if not shares:
            continue
        regions = bench.partitions[fold].regions
        quota = np.zeros(len(regions), dtype=np.int64)
        for g in rare:
            lacks = np.where(regions.groups == g, regions.deficits, 0.0)
            if lacks.sum() > 0:
                quota += sainte_lague(lacks / lacks.sum(), DRAWN)
        try:
            table = _first(bench.pools[generator, fold, 0, max(shares)], quota)
            group, truth = regions.groups[table[REGION].to_numpy()], bench.rows.schema(fold).truth(table)
            for g in rare:
                found[fold, g] = bench.encode(table.filter(pa.array((group == g) & (truth == labels[g]))), 0)
        except PLUGIN_FAILURES as error:
            notes.append(f"{generator}: fold {fold}'s rows could not be encoded: {why(error)}")
    return found


def _first(pool: Pool, quota: np.ndarray) -> pa.Table:
    """The first rows of each region, as many as the quota or as there are, reading no other shard."""
    wanted = [s for s in pool.shards if any(part.start * pool.block < quota[part.region] for part in s.segments)]
    table = pa.concat_tables(pool.tables(shards=wanted))
    region = table[REGION].to_numpy()
    return table.take(pa.array(prefix(region, np.minimum(quota, np.bincount(region, minlength=len(quota))))))
