"""How often the decision says `augment` when it must not, and when it should, beside three other rules.

Null: 20 entries without synthesis and 60 with it whose true losses are all equal. Power: one of the 60, or 15, are truly better on the rare
groups, about .03 of .15 as in a hidden subclass. Logits of a row: a common part + a family's part (3 + 4 families) + the entry's own part;
losses are log losses. Laws: "families" Gaussian, "tight" nearly one curve per family, "separate" no families, "heavy" Student t with 2.5
degrees of freedom, "sides" all entries of a side alike, "skew" synthesis a little better on 95 % of rows and far worse on 5 %.
`python benchmarks/decide_power.py [data sets]`
"""

import sys

import numpy as np
from scipy.stats import t as student

from codsa_ray import decide as rule
from codsa_ray.risk import estimate
from codsa_ray.verdict import CONFIDENCE, Entry

PLAIN, SYNTHETIC, RESAMPLES = 20, 60, 150
ENTRIES = [Entry(f"plain {i}", "correct") for i in range(PLAIN)] + [Entry(f"synthetic {i}", "augment", i + 1) for i in range(SYNTHETIC)]
SHAPES = {
    "10, 50, 1000": [10, 50, 1000],
    "2 x 10, 8 x 140": [10, 10] + [140] * 8,
    "2 x 50, 8 x 140": [50, 50] + [140] * 8,
    "24, 300": [24, 300],
}
LAWS = ("families", "tight", "separate", "heavy", "sides", "skew")


def noise(rng: np.random.Generator, law: str, rows: int) -> np.ndarray:
    """(n, M) parts of the logits that differ between entries."""
    entries = PLAIN + SYNTHETIC
    family = np.concatenate([rng.integers(0, 3, PLAIN), rng.integers(3, 7, SYNTHETIC)])
    if law == "separate":
        return rng.standard_normal((rows, entries))
    if law == "sides":
        side = (np.arange(entries) >= PLAIN).astype(int)
        return 1.4 * rng.standard_normal((rows, 2))[:, side] + 0.15 * rng.standard_normal((rows, entries))
    if law == "heavy":
        return 0.7 * (rng.standard_t(2.5, (rows, 7))[:, family] + rng.standard_t(2.5, (rows, entries)))
    own = 0.2 if law == "tight" else 0.7
    return 0.7 * rng.standard_normal((rows, 7))[:, family] + own * rng.standard_normal((rows, entries))


def sample(rng: np.random.Generator, sizes: list[int], law: str, better: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(losses (n, M), groups (n,)); groups of up to 50 rows are hard ones."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rare = np.array(sizes)[groups] <= 50
    logit = np.where(rare, 1 + 1.8 * rng.standard_normal(len(groups)), 4 + 1.6 * rng.standard_normal(len(groups)))
    if law == "skew":
        shift = np.where(rng.random(len(groups)) < 0.05, 2.85, -0.15)[:, None] * (np.arange(PLAIN + SYNTHETIC) >= PLAIN)
        return np.logaddexp(0, -logit)[:, None] + shift + 0.05 * rng.standard_normal(shift.shape), groups
    logits = logit[:, None] + noise(rng, law, len(groups))
    chosen = rng.choice(np.arange(PLAIN, PLAIN + SYNTHETIC), better, replace=False)
    logits[np.ix_(rare, chosen)] += 0.6
    return np.minimum(np.logaddexp(0, -logits), 16.1), groups


def lower_bounds(losses: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Lower 95 % bounds: naive paired t of the two best; BBC-CV percentile; BBC-CV centre with the best pair's own spread; this rule's."""
    mix = np.full(groups.max() + 1, 1 / (groups.max() + 1))
    bench = rule._Bench.of(losses, groups, mix, None, 0)
    gain = rule._gain(bench, ENTRIES, RESAMPLES, seed)
    best = bench.losses[np.argmin(bench.means[:PLAIN])] - bench.losses[PLAIN + np.argmin(bench.means[PLAIN:])]
    pair = estimate(best, groups, mix)
    reach = student.ppf((1 + CONFIDENCE) / 2, pair.df[0]) * pair.se[0]
    percentile = np.quantile(_out_of_bag(bench, seed), (1 - CONFIDENCE) / 2)
    return np.array([pair.mean[0] - reach, percentile, gain.mean - reach, gain.low])


def _out_of_bag(bench: rule._Bench, seed: int) -> np.ndarray:
    found = []
    for counts in rule._resampled(bench, RESAMPLES, seed):
        in_bag = rule._weigh(counts, bench) @ bench.losses.T
        base, best = in_bag[:, :PLAIN].argmin(axis=1), PLAIN + in_bag[:, PLAIN:].argmin(axis=1)
        out = rule._weigh((counts == 0).astype(float), bench)
        found.append(np.sum(out * (bench.losses[base] - bench.losses[best]), axis=1))
    return np.concatenate(found)


def rates(shape: str, law: str, better: int, repeats: int) -> np.ndarray:
    """Share of data sets in which each rule says `augment`."""
    rng = np.random.default_rng([len(shape), LAWS.index(law), better])
    return np.mean([lower_bounds(*sample(rng, SHAPES[shape], law, better), seed) > 0 for seed in range(repeats)], axis=0)


def main(repeats: int) -> None:
    """Prints the tables."""
    print(f"share of `augment` over {repeats} data sets: naive paired t | percentile | centre, spread of the best pair | this rule")
    for better, laws in ((0, LAWS), (1, LAWS[:2]), (15, LAWS[:2])):
        for shape in SHAPES:
            for law in laws:
                cells = " | ".join(f"{rate:.3f}" for rate in rates(shape, law, better, repeats))
                print(f"{better:2d} better, groups {shape:16s} {law:9s} {cells}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
