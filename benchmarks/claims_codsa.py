"""CoDSA (Tian & Shen 2025): simulation 1, a classification, from its own data, with the controls that the paper lacks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.special import log_expit
from torch import nn

from benchmarks.claims import Claim, Line
from benchmarks.repeated import above
from benchmarks.training import EARLIER
from codsa_ray.correct import fit_all
from codsa_ray.draw import draw_block
from codsa_ray.fitdata import ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.interpolation import Interpolation
from codsa_ray.generators.sequential_trees import SequentialTrees
from codsa_ray.infer import infer
from codsa_ray.regions import Region, Regions
from codsa_ray.risk import Classification, balanced, group_means
from codsa_ray.seeds import rng_of, seed_of
from codsa_ray.stages.fit import LocalWorker
from codsa_ray.summary import Summary

PAPER = "Tian & Shen, arXiv 2504.07426 v2"
HALF = np.array([0.5, 0.5])
SIZES = {0: (800, 400, 800), 1: (3200, 400, 800)}  # minority and majority rows of train, validation, test
N = SIZES[0][0] + SIZES[1][0]
REPLICATES = 3
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)  # the minority's share of synthetic rows, at MOST n of them
TIMES = (0.1, 0.5, 1.0)  # synthetic rows over n, at a share of .5
MOST = 1.9
ACROSS = tuple((MOST, alpha) for alpha in ALPHAS)
POINTS = (*ACROSS, *((times, 0.5) for times in TIMES))
DIFFUSION = replace(EARLIER, steps=3000, width=256, blocks=4, evaluations=20)
TREES = SequentialTrees(leaf=5)
FORMS = ("as trained", "with exact offset", "with offset and calibration")

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(X, y, region) of some rows; region 0 is the minority."""


@dataclass(frozen=True)
class Replicate:
    """One reshuffling of the pool within regions: train is 800 : 3200, validation and test are balanced."""

    index: int
    train: Part
    validation: Part
    test: Part


def replicate(X: np.ndarray, y: np.ndarray, region: np.ndarray, index: int) -> Replicate:
    """Cut as SIZES says."""
    rng = rng_of("codsa", "replicate", index)
    parts: list[list[np.ndarray]] = [[], [], []]
    for which, sizes in SIZES.items():
        rows = rng.permutation(np.flatnonzero(region == which))
        for part, one in zip(parts, np.split(rows, np.cumsum(sizes))[:3], strict=True):
            part.append(one)
    train, validation, test = (np.concatenate(part) for part in parts)
    return Replicate(index, *((X[rows], y[rows], region[rows]) for rows in (train, validation, test)))


def taken(part: Part, rows: np.ndarray) -> Part:
    """Some of its rows."""
    return part[0][rows], part[1][rows], part[2][rows]


def halves(train: Part, index: int, leaky: bool) -> tuple[Part, Part]:
    """(generator's, learner's) half of each region; leaky: drawn one without regard to the other, as the official code does."""
    rng, given, left = rng_of("codsa", "halves", index), [], []
    for which in (0, 1):
        rows = rng.permutation(np.flatnonzero(train[2] == which))
        half = len(rows) // 2
        given.append(rows[:half])
        left.append(rng_of("codsa", "leaky", index).permutation(rows)[:half] if leaky else rows[half:])
    return taken(train, np.concatenate(given)), taken(train, np.concatenate(left))


def drawn(
    generator: Any, part: Part, task: str, rows: int, seed: int, inside: Callable[[np.ndarray], np.ndarray] | None
) -> tuple[Part, Part]:
    """`rows` rows of each region from the package's generator fitted on `part`.

    Args:
        inside: X -> region, where the columns tell it; a row drawn elsewhere is drawn again.
    """
    X, y, region = part
    labels = task == "classification"
    columns = {f"x{i}": column for i, column in enumerate(X.T)}
    table = pa.table({**columns, "y": pa.array(y.astype(str)) if labels else y, "_region": pa.array(region.astype(np.int32))})
    schema = infer(Summary.of(table.drop_columns(["_region"]), np.arange(len(y))), "y", task=task)
    counts = np.bincount(region, minlength=2)
    items = tuple(Region(str(k), k, 0, int(counts[k]), (("y", str(k)),) if labels else (), (k,)) for k in (0, 1))
    regions = Regions(items, (0.5, 0.5), (2,))
    table = table.append_column(ROW, pa.array(np.arange(len(y))))

    def assign(block: pa.Table) -> np.ndarray:
        assert inside is not None
        return inside(np.stack([block[name].to_numpy() for name in columns], axis=1))

    with TemporaryDirectory() as place:
        generator.fit(FitData.of(table, schema, regions, seed), LocalWorker(Folder(place)))
        fitted = generator.load(Folder(place))
    found = []
    for k in (0, 1):
        count = -(-rows // generator.needs.block)
        blocks = [draw_block(fitted, schema, regions, k, seed_of(seed, k, b), assign if inside else None)[0] for b in range(count)]
        block = pa.concat_tables(blocks).slice(0, rows)
        values = np.full(rows, k) if labels else block["y"].to_numpy()
        found.append((np.stack([block[name].to_numpy() for name in columns], axis=1), values, np.full(rows, k)))
    return found[0], found[1]


def joined(real: Part | None, pools: tuple[Part, Part], times: float, alpha: float) -> Part:
    """Real rows and times x n synthetic ones, a share alpha of them the minority's: prefixes of the pools, as in the paper."""
    size = round(times * N)
    counts = (round(size * alpha), size - round(size * alpha))
    parts = [*([real] if real else []), *(taken(pool, np.arange(count)) for pool, count in zip(pools, counts, strict=True))]
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))  # type: ignore[return-value]


def mean_line(what: str, published: str, values: Sequence[float] | np.ndarray, holds: bool | None = None, note: str = "") -> Line:
    """Mean over replicates with its standard error."""
    return Line(what, published, float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))), holds, note)


@cache
def labelled(n: int = 6400, outer: int = 1000, seed: int = 0) -> Part:
    """n rows of ten products of three variables; the minority are the `outer` lowest and the `outer` highest scores."""
    rng = np.random.RandomState(seed)
    u1 = rng.normal(size=n) + np.where(rng.rand(n) < 0.5, -2, 2)
    u2, u3 = rng.rand(n) + 2 * (rng.rand(n) < 0.5), rng.exponential(size=n) - 1
    X = np.stack([u1 * u2, u1 * u3, u2 * u3, u1**2, u2**2, u3**2, u1 * u2 * u3, u1**3, u2**3, u3**3], axis=1)
    lines = np.stack([X[:, :5] @ np.linspace(-1, 1, 5), X[:, 5:] @ np.linspace(-1, 1, 5)])
    t1, t2 = lines / (1 + np.abs(lines))
    order = np.argsort(np.sin(2 * np.pi * t1) ** 2 - np.cos(3 * np.pi * t2) ** 2)
    y = np.ones(n, dtype=np.int64)
    y[np.concatenate([order[:outer], order[-outer:]])] = 0
    return X, y, y


def network(rows: Part, weight: np.ndarray, validation: Part) -> Callable[[np.ndarray], np.ndarray]:
    """The paper's classifier: 10-128-128-128-1, Adam 1e-3, batches of 1024, up to 100 epochs, the best by validation (patience 20)."""
    torch.manual_seed(42)
    torch.set_num_threads(1)
    layers: list[nn.Module] = [layer for width in (10, 128, 128) for layer in (nn.Linear(width, 128), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(128, 1))
    optimizer, loss = torch.optim.Adam(net.parameters(), 1e-3), nn.functional.binary_cross_entropy_with_logits
    X, y, w = (torch.tensor(array, dtype=torch.float32) for array in (rows[0], rows[1], weight))
    held, truth = (torch.tensor(array, dtype=torch.float32) for array in validation[:2])
    best, kept, waited = np.inf, net.state_dict(), 0
    for _ in range(100):
        for batch in torch.randperm(len(X)).split(1024):
            optimizer.zero_grad()
            loss(net(X[batch])[:, 0], y[batch], w[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            found = loss(net(held)[:, 0], truth).item()
        if found < best:
            best, kept, waited = found, {name: value.clone() for name, value in net.state_dict().items()}, 0
        elif (waited := waited + 1) >= 20:
            break
    net.load_state_dict(kept)
    return lambda values: net(torch.tensor(values, dtype=torch.float32))[:, 0].detach().numpy().astype(np.float64)


@dataclass(frozen=True)
class Fit:
    """Cross-entropy per form (FORMS) of one trained network: balanced on validation, and (majority, minority, balanced) on test."""

    validation: tuple[float, ...]
    test: tuple[tuple[float, float, float], ...]


def fit(rows: Part, rep: Replicate, weights: bool = False) -> Fit:
    """Trains on rows; weights: as 1 / class rows."""
    counts = np.bincount(rows[1], minlength=2)
    weight = len(rows[1]) / 2 / counts[rows[1]] if weights else np.ones(len(rows[1]))
    logit = network(rows, weight, rep.validation)
    prior = 0.0 if weights else np.log(counts[1] / counts[0])
    scores = [[_logs(logit(part[0]) - shift) for shift in (0.0, prior)] for part in (rep.validation, rep.test)]
    truth, answer = rep.validation[1], rep.test[1]
    scaling = fit_all(scores[0][1], truth, truth, HALF)
    for found in scores:
        found.append(scaling.apply(found[1]))
    losses = [
        [Classification(2).losses(one, part[1]) for one in found] for found, part in zip(scores, (rep.validation, rep.test), strict=True)
    ]
    tested = [group_means(one, answer, 2) for one in losses[1]]
    triples = tuple((float(m[1]), float(m[0]), float(m.mean())) for m in tested)
    return Fit(tuple(balanced(one, truth, HALF) for one in losses[0]), triples)


def _logs(logit: np.ndarray) -> np.ndarray:
    return np.stack([log_expit(-logit), log_expit(logit)], axis=1)


@cache
def first(index: int) -> Mapping[str, Mapping[Any, Fit]]:
    """One replicate: way of training -> point (times, alpha) -> fit."""
    rep = replicate(*labelled(), index)
    half, left = halves(rep.train, index, leaky=False)
    _, leaked = halves(rep.train, index, leaky=True)

    def pools(generator: Any, part: Part) -> tuple[Part, Part]:
        return drawn(generator, part, "classification", round(MOST * N * max(ALPHAS)), index, None)

    trees, of_half, diffusion = pools(TREES, rep.train), pools(TREES, half), pools(DIFFUSION, rep.train)
    ways = {
        "r = 1": (None, trees, POINTS),
        "reuse": (rep.train, trees, POINTS),
        "r = .5": (left, of_half, ACROSS),
        "leaky": (leaked, of_half, ACROSS),
        "diffusion": (None, diffusion, ACROSS),
        "diffusion, reuse": (rep.train, diffusion, ACROSS),
        "SMOTE": (rep.train, pools(Interpolation(), rep.train), POINTS),
    }
    found = {way: {point: fit(joined(real, pool, *point), rep) for point in points} for way, (real, pool, points) in ways.items()}
    return {"base": {0: fit(rep.train, rep)}, "weights": {0: fit(rep.train, rep, weights=True)}, **found}


def tuned(ways: tuple[str, ...], form: int) -> list[tuple[float, float, float]]:
    """Per replicate the test losses of the point that is best on validation rows, in one form."""
    fits = [[one for way in ways for one in first(index)[way].values()] for index in range(REPLICATES)]
    return [min(found, key=lambda one: one.validation[form]).test[form] for found in fits]


def means(ways: tuple[str, ...], form: int) -> np.ndarray:
    """(replicates,) balanced test losses."""
    return np.array([one[2] for one in tuned(ways, form)])


BASE, WEIGHTS, SMOTE = ("base",), ("weights",), ("SMOTE",)
CODSA = ("diffusion", "diffusion, reuse")
FOREST = ("r = 1", "reuse", "r = .5")
TABLE: tuple[tuple[str, tuple[str, ...], tuple[float, float, float], float, str], ...] = (
    ("base network", BASE, (0.1920, 0.9594, 0.5757), 0.026, ""),
    ("SMOTE, tuned", SMOTE, (0.4134, 0.5345, 0.4739), 0.037, ""),
    ("CoDSA, tuned", CODSA, (0.4441, 0.4841, 0.4641), 0.017, "a diffusion of a few per cent of the paper's multiplications"),
)
METHODS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("base network", BASE),
    ("class weights", WEIGHTS),
    ("SMOTE, tuned", SMOTE),
    ("CoDSA, tuned", CODSA),
    ("CoDSA by trees, tuned", FOREST),
)


def first_lines() -> Iterator[Line]:
    """Balanced cross-entropy of each method, as the paper has it, then in the forms it does not have."""
    for name, ways, published, spread, note in TABLE:
        values = np.array(tuned(ways, 0))
        for which, part in enumerate((", majority", ", minority", "")):
            holds = bool(abs(values[:, 2].mean() - published[2]) <= 2 * spread) if which == 2 else None
            yield mean_line(name + part, f"{published[which]:.3f}", values[:, which], holds, note if which == 2 else "")
    yield mean_line("CoDSA by trees, tuned", "", means(FOREST, 0), None, "sequential_trees:leaf=5 in place of the diffusion")
    yield mean_line("control: class weights", "", means(WEIGHTS, 0))
    for form in (1, 2):
        for name, ways in METHODS:
            if form == 2 or ways != WEIGHTS:
                yield mean_line(f"control: {name}, {FORMS[form]}", "", means(ways, form))
    yield from _gains()


def _gains() -> Iterator[Line]:
    plain = means(BASE, 0)
    for name, ways, published in (("CoDSA", CODSA, "0.112"), ("CoDSA by trees", FOREST, ""), ("SMOTE", SMOTE, "0.102")):
        gain, left = plain - means(ways, 0), means(BASE, 1) - means(ways, 0)
        yield mean_line(f"gain of {name} over the base network", published, gain, above(gain) if published else None)
        note = f"the offset alone takes away {100 * (1 - left.mean() / gain.mean()):.0f} %"
        yield mean_line(f"control: gain of {name} over the base network with exact offset", "", left, None, note)
        both = np.minimum(means(BASE, 2), means(WEIGHTS, 2)) - means(ways, 2)
        yield mean_line(
            f"control: gain of {name}, all calibrated, over the better of base and weights", "", both, None, "what synthesis is worth"
        )


PUBLISHED = {(MOST, 0.1): 0.780, (MOST, 0.3): 0.506, (MOST, 0.5): 0.457, (MOST, 0.7): 0.500, (MOST, 0.9): 0.760}
PUBLISHED |= {(0.1, 0.5): 0.651, (0.5, 0.5): 0.532, (1.0, 0.5): 0.480}


def at(way: str, point: tuple[float, float], form: int = 0) -> np.ndarray:
    """(replicates,) balanced test losses of one point."""
    return np.array([first(index)[way][point].test[form][2] for index in range(REPLICATES)])


def profile_lines() -> Iterator[Line]:
    """The trade-off over alpha and m of synthetic rows alone, then what the use of the real rows changes."""
    for point in POINTS:
        name = f"m = {point[0]:g} n, alpha = {point[1]:g}"
        if point in ACROSS:
            yield mean_line(f"diffusion, {name}", f"{PUBLISHED[point]:.3f}", at("diffusion", point))
        yield mean_line(f"trees, {name}", f"{PUBLISHED[point]:.3f}", at("r = 1", point))
        yield mean_line(f"control: trees with exact offset, {name}", "", at("r = 1", point, 1))
    for way in ("diffusion", "r = 1"):
        over = [at(way, point).mean() for point in ACROSS]
        best = ALPHAS[int(np.argmin(over))]
        name = "diffusion" if way == "diffusion" else "trees"
        yield Line(f"{name}: alpha of least loss", "0.4 to 0.6", best, None, best == 0.5)
        ends = np.maximum(at(way, ACROSS[0], 1), at(way, ACROSS[-1], 1)) - at(way, ACROSS[2], 1)
        before = np.maximum(at(way, ACROSS[0]), at(way, ACROSS[-1])) - at(way, ACROSS[2])
        yield mean_line(f"{name}: worse end over alpha minus the middle", "0.323", before, bool(before.mean() > 0.1))
        yield mean_line(f"control: {name}, the same with exact offset", "", ends, None, "most of the U is a shift of the prior")
    fall = at("r = 1", (TIMES[0], 0.5)) - at("r = 1", ACROSS[2])
    yield mean_line("loss at m = .1 n minus loss at m = 1.9 n", "0.194", fall, above(fall))
    yield mean_line(
        "r = .5 (disjoint halves), m = 1.9 n, alpha = .5", "0.475", at("r = .5", ACROSS[2]), None, "published with leaking halves"
    )
    uses = (
        ("r = .5", "leaky", "disjoint minus leaking halves", "above 0: the leak flatters"),
        ("r = .5", "reuse", "disjoint halves minus every row used twice", ""),
    )
    for one, other, name, note in (*uses, ("r = 1", "reuse", "synthetic rows alone minus every row used twice", "")):
        both = [at(one, point) - at(other, point) for point in ACROSS]
        yield mean_line(f"{name}, mean over alpha", "", np.mean(both, axis=0), None, note)
        both = [at(one, point, 1) - at(other, point, 1) for point in ACROSS]
        yield mean_line(f"control: {name}, with exact offset", "", np.mean(both, axis=0))


HOLDS = (
    "a loss within two of the paper's standard deviations over its replicates; a gain or a fall above 0 by t; the "
    "least loss at alpha .5, and its worse end more than .1 above that"
)
CLAIMS = (
    Claim(
        "codsa-sim1",
        PAPER,
        "Simulation 1: tuned over (r, m, alpha), a network on synthetic rows has balanced cross-entropy .464 where the plain one has .576.",
        first_lines,
    ),
    Claim(
        "codsa-sim1-profiles",
        PAPER,
        "Simulation 1: loss is U-shaped in alpha and falls in m; generator and learner share the real rows by r.",
        profile_lines,
    ),
)
