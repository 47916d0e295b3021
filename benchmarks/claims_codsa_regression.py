"""CoDSA (Tian & Shen 2025): simulation 2, a regression, from its own data, with the control that the paper lacks."""

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from benchmarks.claims import Claim, Line
from benchmarks.claims_codsa import (
    HALF,
    MOST,
    PAPER,
    REPLICATES,
    TREES,
    N,
    Part,
    Replicate,
    drawn,
    joined,
    mean_line,
    replicate,
)
from benchmarks.repeated import above
from benchmarks.training import EARLIER
from codsa_ray.generators.smogn import Smogn
from codsa_ray.risk import Regression, balanced, group_means

BASES = 10
GRID = tuple((times, alpha) for times in (1.0, MOST) for alpha in (0.5, 0.7, 0.9))


@cache
def valued(minority: int = 2000, majority: int = 4400, seed: int = 1) -> Part:
    """So many rows of each; the minority has u1 under .5 and another sign in its target."""
    rng, n = np.random.RandomState(seed), minority + majority
    region = np.repeat([0, 1], [minority, majority])
    u1 = rng.rand(n) / 2 + 0.5 * region
    u2, u3 = u1**2 + rng.normal(size=n), 0.2 * rng.normal(size=n)
    X = np.stack([u1, region * u1 + u2, region * u2 + np.log1p(np.abs(u2)), np.abs(u2), u1 - u2], axis=1)
    line = X @ np.array([3, 2, -1, 0.5, 1])
    return X, 2 * line**2 + np.where(region == 0, line, -line) + u3, region


def forest(rows: Part, rep: Replicate, weights: bool = False) -> tuple[float, tuple[float, float, float]]:
    """(balanced validation error, (majority, minority, balanced) test error) of the paper's random forest of 100 trees."""
    weight = 1 / np.bincount(rows[2])[rows[2]] if weights else None
    model = RandomForestRegressor(100, random_state=42, n_jobs=1).fit(rows[0], rows[1], weight)
    losses = [Regression().losses(model.predict(part[0]), part[1]) for part in (rep.validation, rep.test)]
    tested = group_means(losses[1], rep.test[2], 2)
    return balanced(losses[0], rep.validation[2], HALF), (float(tested[1]), float(tested[0]), float(tested.mean()))


@cache
def bare(index: int, weights: bool) -> tuple[float, float, float]:
    """Test errors without synthesis."""
    rep = replicate(*valued(), index)
    return forest(rep.train, rep, weights)[1]


@cache
def second(index: int) -> Mapping[str, tuple[float, float, float]]:
    """Test errors of the points that are best on validation rows, by generator; every real row is used twice but in "alone"."""
    rep = replicate(*valued(), index)

    def inside(X: np.ndarray) -> np.ndarray:
        return (X[:, 0] >= 0.5).astype(np.int64)

    found = {}
    for name, generator in (("CoDSA", EARLIER), ("CoDSA by trees", TREES), ("SMOGN", Smogn(k=2))):
        pool = drawn(generator, rep.train, "regression", round(MOST * N * 0.9), index, inside)
        found[name] = min(forest(joined(rep.train, pool, *point), rep) for point in GRID)[1]
        if name == "CoDSA":
            found["alone"] = min(forest(joined(None, pool, *point), rep) for point in GRID)[1]
    return found


def second_lines() -> Iterator[Line]:
    """Mean squared error per region, then gains, paired by replicate."""
    base = np.array([bare(index, False) for index in range(BASES)])
    weighted = np.array([bare(index, True) for index in range(BASES)])
    for which, (part, said) in enumerate((("majority", "0.139"), ("minority", "1.909 (1.248)"), ("balanced", "1.024 (0.626)"))):
        # The paper's own deviation of .626 would let anything near 0 hold.
        yield mean_line(f"base forest, {part}", said, base[:, which], None, f"{BASES} replicates")
    yield mean_line("control: base forest, group weights", "", weighted[:, 2], None, f"{BASES} replicates")
    runs = [second(index) for index in range(REPLICATES)]
    published = {"SMOGN": "0.841 (0.472)", "CoDSA": "0.809 (0.384)", "alone": "0.809 (0.384)"}
    for name in runs[0]:
        label = "CoDSA, synthetic rows alone" if name == "alone" else name
        mine = np.array([run[name][2] for run in runs])
        yield mean_line(f"{label}, tuned", published.get(name, ""), mine, None, f"{REPLICATES} replicates")
        gain, left = base[:REPLICATES, 2] - mine, weighted[:REPLICATES, 2] - mine
        said = {"SMOGN": "0.183", "CoDSA": "0.215"}.get(name, "")
        yield mean_line(f"gain of {label} over the base forest", said, gain, above(gain) if said else None, "paired")
        yield mean_line(f"control: gain of {label} over group weights", "", left, None, "paired")


HOLDS = "a gain above 0 by t; a loss is not judged, since the paper's deviation over its replicates spans most of it"
CLAIMS = (
    Claim(
        "codsa-sim2",
        PAPER,
        "Simulation 2: tuned over (m, alpha), a random forest on synthetic rows has balanced squared error .809, the plain one 1.024.",
        second_lines,
    ),
)
