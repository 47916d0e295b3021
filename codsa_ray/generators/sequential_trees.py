"""Sequential trees: columns drawn in turn from the leaves of one tree each; knows no cluster and no network.

Sources: Reiter 2005 (section 2: a value is drawn from the donors of its leaf), Nowok, Raab & Dibben 2016 (synthpop: one column after
another, p(x) = prod_j p(x_j | x_1 .. x_j-1)); Coppersmith, Hong & Hosking 1999 (order of levels for a binary split).
What differs from them, and why:
- The region and its factors come first, and the trees learn from all rows: a rare region borrows wherever no tree splits on it.
- Which cells are null is drawn first, as whole patterns of the region's own rows: nulls are as frequent as they were, together.
- Categories go before numbers, fewest levels first: a split between many levels needs rows, and numbers split well on categories.
- Later trees see a category by the order of its shrunken mean goal, not by 2^levels subsets: thousands of levels cost a sort.
- Categories that the schema does not keep (beyond 200 levels those after the 200 commonest, and those of under 5 rows; column.py) are one
  level "other", drawn and told to later trees like any, so that what goes with rare codes is drawn as often as it is. In the row stands
  a kept level of the same leaf, by its frequency there (of the whole column where the leaf has none): what goes with "other" is seen
  beside kept levels, which is the price.
- A number moves up to half the way to its neighbours in the leaf, unless it repeats: rows are no copies, heaps stay heaps. Integers and
  datetimes move in whole steps of their own unit (cells.py), exactly, beyond 2^53 too.
Bounds, categories and constraints are checked on every block by whoever asks for it (draw.py), which draws broken rows again, counts them
and gives up after a bounded number of tries.

Cost: columns^2 / 2 x n log n comparisons to fit, n = min(rows, cap), columns side by side on `cores`; memory 4 n bytes per column and core.
Drawing is a walk down one tree per column and row: some hundred thousand rows of a dozen columns a second and core. Not for: thousands of
columns (pixels, genes), or numbers that hang on linear combinations of many others (a split sees one; take tabular_diffusion).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

from codsa_ray.cells import Cells
from codsa_ray.contracts import Needs, Worker
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.seeds import rng_of, seed_of

ATOM = 0.01
CONTINUOUS = 0.1


@dataclass(frozen=True)
class SequentialTrees:
    """Sequential synthesis by trees, learned on the rows of all regions, so that a rare one borrows wherever no tree splits on it.

    Which cells are null is drawn first, from the region's own rows. Then categories and booleans follow by number of levels, then
    ordered columns in schema order: each is drawn from the donors in the leaf where (region, its factors, nulls, columns before) fall.

    Args:
        leaf: least rows of a leaf.
        cap: rows the trees learn from at most; beyond it the larger regions are thinned.
        classes: levels that a tree tells apart when it splits for a category; rarer ones count as one there and are drawn all the same.
        shrink: rows' worth of the overall mean in a level's code, so that rare levels lie in the middle of the order.
        block: rows of one block.
        cores: columns grown side by side; the trees are the same on any number.
    """

    leaf: int = 20
    cap: int = 200_000
    classes: int = 24
    shrink: float = 10.0
    block: int = 4096
    cores: int = 1

    @property
    def needs(self) -> Needs:
        """As many cores as it grows columns at a time."""
        return Needs(cpus=float(self.cores), block=self.block)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Grows the trees; time and memory are linear in min(rows, cap)."""
        if worker.rank:
            return
        table = data.table(self.cap)
        region = table[REGION].to_numpy()
        order = np.argsort(region, kind="stable")
        table, region = table.take(pa.array(order)), region[order]
        cells = [Cells.of(c, table[c.name]) for c in data.schema.columns if c.name not in data.regions.constant_columns]
        encoded = [cell.encode(table[cell.column.name]) for cell in cells]
        nulls, patterns, bits = _patterns([null for _, null in encoded], len(table))
        arrays = {"patterns": patterns, "pattern": nulls, "starts": _starts(region, len(data.regions))}
        features = _conditions(data, region) + [Feature(patterns[nulls, bit].astype(np.float32)) for bit in range(patterns.shape[1])]
        turns = sorted(range(len(cells)), key=lambda j: (cells[j].ordered, cells[j].levels))
        first = len(features)
        features += [_feature(cells[j], *encoded[j]) for j in turns]

        def grown(seen: int) -> dict[str, np.ndarray]:
            j = turns[seen]
            values, null = encoded[j]
            drawable = (~null & (cells[j].ordered | (values < cells[j].levels))).any()
            found = self._grow(cells[j], values, ~null, features[: first + seen], data.seed) if drawable else {}
            return {f"{j}.{name}": array for name, array in found.items()}

        # What a tree sees is real, not drawn: none waits for another. Growing leaves Python's lock.
        with ThreadPoolExecutor(self.cores) as pool:
            for found in pool.map(grown, range(len(turns))):
                arrays |= found
        worker.folder.write_arrays("trees.safetensors", arrays)
        factors = [list(item.factors) for item in data.regions.items]
        meta = {"cells": [c.to_json() for c in cells], "turns": turns, "bits": bits, "factors": factors}
        worker.folder.write_json("trees.json", meta | {"levels": [f.levels for f in features]})

    def _grow(self, cell: Cells, values: np.ndarray, known: np.ndarray, features: Sequence["Feature"], seed: int) -> dict[str, np.ndarray]:
        """One tree over the features, and the donors of each node, as arrays."""
        y = values[known]
        goal = _goal(cell, y, self.classes)
        ranks = [_ranks(f.values[known], f.levels, goal, self.shrink) for f in features]
        X = np.empty((len(y), len(features)), dtype=np.float32)
        for index, (feature, rank) in enumerate(zip(features, ranks, strict=True)):
            X[:, index] = rank[feature.values[known]] if feature.levels else feature.values[known]
        kind = DecisionTreeClassifier if goal.dtype.kind == "i" else DecisionTreeRegressor
        tree = kind(min_samples_leaf=self.leaf, random_state=seed_of(seed, cell.column.name) % 2**32).fit(X, goal).tree_
        return _nodes(tree) | {"ranks": np.concatenate(ranks)} | _donors(cell, y, tree.apply(X), tree.node_count)

    def load(self, folder: Folder) -> "FittedTrees":
        """Builds the trees from their arrays."""
        return FittedTrees.of(self.block, folder.read_json("trees.json"), folder.read_arrays("trees.safetensors"))

    @classmethod
    def tiny(cls) -> Self:
        """Small leaves and blocks."""
        return cls(leaf=5, block=256)


@dataclass(frozen=True)
class Feature:
    """What later trees see of a column: float32 values, or codes in [0, levels) whose order each tree chooses."""

    values: np.ndarray
    levels: int = 0


def _feature(cell: Cells, values: np.ndarray, null: np.ndarray) -> Feature:
    """Null is the level after "other", and lies below all ordered values."""
    if not cell.ordered:
        return Feature(np.where(null, cell.levels + 1, values), cell.levels + 2)
    return Feature(np.where(null, np.float32(-1), _unit(cell, values)))


def _unit(cell: Cells, values: np.ndarray) -> np.ndarray:
    """(n,) float32 in [0, 1]; from exact differences, so that large integers and dates stay apart."""
    if cell.column.kind != "numeric":
        return values.astype(np.float32) * np.float32(1 / max(cell.top, 1))
    # In halves, which a range of all floats does not overflow.
    half = cell.high / 2 - cell.low / 2
    return ((values / 2 - cell.low / 2) * (1 / half if half > 0 else 0.0)).astype(np.float32)


def _conditions(data: FitData, region: np.ndarray) -> list[Feature]:
    """The region itself, then each of its factors."""
    factors = np.array([item.factors for item in data.regions.items], dtype=np.int32).reshape(len(data.regions), -1)
    return [Feature(region, len(data.regions)), *(Feature(column[region], int(column.max()) + 1) for column in factors.T)]


def _starts(region: np.ndarray, regions: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(region, minlength=regions))])


def _patterns(nulls: list[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(n,) pattern of each row, (P, B) bool patterns, and per column which bit says that it is null (-1: never)."""
    seen: dict[bytes, int] = {}
    bits = [seen.setdefault(null.tobytes(), len(seen)) if null.any() else -1 for null in nulls]
    columns = [nulls[bits.index(bit)] for bit in range(len(seen))]
    matrix = np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype=bool)
    patterns, pattern = np.unique(matrix, axis=0, return_inverse=True)
    return pattern.reshape(-1).astype(np.int32), patterns, bits


def _goal(cell: Cells, y: np.ndarray, classes: int) -> np.ndarray:
    """What a tree's splits explain: mid-ranks of ordered values (float), or the class (int64; rare levels merged)."""
    other = not cell.ordered and bool((y == cell.levels).any())
    if cell.ordered or cell.levels + other <= 2:
        return rankdata(y) / len(y)
    # "Other" may be the commonest of all: it comes first, so that it is not merged with the rare ones.
    places = np.where(y == cell.levels, 0, y + 1) if other else y
    return np.minimum(places, classes - 1).astype(np.int64)


def _ranks(codes: np.ndarray, levels: int, goal: np.ndarray, shrink: float) -> np.ndarray:
    """(levels,) float32 place of each level in the order of its shrunken mean goal, which is the order that binary splits need.

    With more than two classes: the first principal component of the class shares (Coppersmith, Hong & Hosking 1999).
    """
    if not levels:
        return np.empty(0, dtype=np.float32)
    rows = np.bincount(codes, minlength=levels).astype(float)[:, None]
    if goal.dtype.kind == "i":
        classes = int(goal.max()) + 1
        sums = np.bincount(codes * np.int64(classes) + goal, minlength=levels * classes).reshape(levels, classes).astype(float)
    else:
        sums = np.bincount(codes, weights=goal, minlength=levels)[:, None]
    mean = sums.sum(axis=0) / rows.sum()
    offset = (sums + shrink * mean) / (rows + shrink) - mean
    if offset.shape[1] > 1:
        offset = offset @ np.linalg.eigh((offset * rows).T @ offset)[1][:, -1:]
    return rankdata(np.round(offset[:, 0], 12), method="dense").astype(np.float32)


def _nodes(tree: Tree) -> dict[str, np.ndarray]:
    return {
        "left": tree.children_left.astype(np.int32),
        "right": tree.children_right.astype(np.int32),
        "feature": tree.feature.astype(np.int32),
        "threshold": tree.threshold.astype(np.float64),
    }


def _donors(cell: Cells, y: np.ndarray, leaf: np.ndarray, nodes: int) -> dict[str, np.ndarray]:
    """Values sorted within leaves, each node's first and how many, and (`gap`) half the way to the next where a value may lie between."""
    order = np.lexsort((y, leaf))
    count = np.bincount(leaf, minlength=nodes)
    donors, leaf = y[order], leaf[order]
    found = {"start": (np.cumsum(count) - count).astype(np.int32), "count": count.astype(np.int32)}
    if cell.column.kind != "numeric":
        donors = donors.astype(np.min_scalar_type(donors.max()))
    found["donors"] = donors
    if cell.ordered:
        spread = _gaps(donors, leaf)
        found |= {"gap": spread} if spread.any() else {}
    return found


def _gaps(donors: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """(n + 1,) half the distance from donor i - 1 to donor i of the same leaf; 0 beside atoms, and everywhere if values tend to repeat."""
    _, back, times = np.unique(donors, return_inverse=True, return_counts=True)
    atom = times >= max(3, ATOM * len(donors))
    gap = np.zeros(len(donors) + 1)
    if (~atom).sum() >= CONTINUOUS * max(times[~atom].sum(), 1):
        between = (leaf[1:] == leaf[:-1]) & ~atom[back][1:] & ~atom[back][:-1]
        half = donors[1:] / 2 - donors[:-1] / 2 if donors.dtype.kind == "f" else (donors[1:] - donors[:-1]) / 2
        gap[1:-1] = np.where(between, half, 0.0)
    return gap


@dataclass(frozen=True)
class Turn:
    """One column's tree as drawing needs it.

    Args:
        cell: the column.
        bit: column of the null patterns that says where it is null, or -1.
        tree: compiled tree; None where no value may be drawn (then all are null).
        ranks: (feature, (levels,) float32) for each category that the tree splits on.
        start, count, donors, gap: see `_donors`; gap None where values are drawn as they are.
    """

    cell: Cells
    bit: int
    tree: Tree | None = None
    ranks: tuple[tuple[int, np.ndarray], ...] = ()
    start: np.ndarray | None = None
    count: np.ndarray | None = None
    donors: np.ndarray | None = None
    gap: np.ndarray | None = None

    @staticmethod
    def of(cell: Cells, bit: int, arrays: dict[str, np.ndarray], levels: list[int]) -> "Turn":
        """From one column's arrays; levels are those of all features."""
        if not arrays:
            return Turn(cell, bit)
        nodes = np.zeros(len(arrays["left"]), dtype=NODE_DTYPE)
        for field, name in (("left_child", "left"), ("right_child", "right"), ("feature", "feature"), ("threshold", "threshold")):
            nodes[field] = arrays[name]
        tree = Tree(len(levels), np.ones(1, dtype=np.intp), 1)
        state = {"max_depth": 0, "node_count": len(nodes), "nodes": nodes, "values": np.zeros((len(nodes), 1, 1))}
        tree.__setstate__(state)
        ends = np.cumsum(levels)
        used = (f for f in np.unique(arrays["feature"]) if f >= 0 and levels[f])
        ranks = tuple((int(f), arrays["ranks"][ends[f] - levels[f] : ends[f]]) for f in used)
        return Turn(cell, bit, tree, ranks, arrays["start"], arrays["count"], arrays["donors"], arrays.get("gap"))

    def draw(self, X: np.ndarray, codes: list[np.ndarray | int], u: np.ndarray) -> np.ndarray:
        """(n,) encoded values.

        Args:
            X: (n, features) float32; ordered features are in place, those of categories are written here.
            codes: per feature the (n,) codes, or one code for all rows.
            u: (n,) uniform numbers; their whole part after scaling picks the donor, the rest the place in the gap.
        """
        assert self.tree is not None
        assert self.start is not None
        assert self.count is not None
        assert self.donors is not None
        for feature, ranks in self.ranks:
            X[:, feature] = ranks[codes[feature]]
        leaf = self.tree.apply(X)
        place = u * self.count[leaf]
        whole = place.astype(np.int64)
        donor = whole + self.start[leaf]
        values = self.donors[donor]
        if self.gap is None:
            return values
        shift = 2.0 * (place - whole) - 1.0
        return self.cell.moved(values, shift * self.gap[donor + (shift >= 0)])

    def shown(self, values: np.ndarray, X: np.ndarray, u: np.ndarray) -> np.ndarray:
        """(n,) what `draw` gave, with a kept level for each "other": by the frequencies in its leaf, or in all where that has none.

        Args:
            values: (n,) drawn.
            X, u: as `draw` was given them.
        """
        other = np.zeros(len(values), dtype=bool) if self.cell.ordered else values == self.cell.levels
        if not other.any():
            return values
        assert self.tree is not None
        assert self.start is not None
        assert self.count is not None
        assert self.donors is not None
        leaf = self.tree.apply(X[other])
        levels = self.donors[self.donors < self.cell.levels]
        kept = np.concatenate([[0], np.cumsum(self.donors < self.cell.levels)])
        first, count = kept[self.start[leaf]], self.count[leaf]
        own = kept[self.start[leaf] + count] - first
        # "Other" sorts last in its leaf: how far in it u fell is uniform again.
        place = (u[other] * count - own) / (count - own)
        first, many = np.where(own > 0, first, 0), np.where(own > 0, own, len(levels))
        found = values.copy()
        found[other] = levels[first + np.minimum((place * many).astype(np.int64), many - 1)]
        return found


@dataclass(frozen=True)
class FittedTrees:
    """Draws a block column by column, without a loop over rows.

    Args:
        rows: rows of a block.
        turns: columns in the order in which they are drawn.
        factors: (K, F) levels of the regions' factors.
        patterns, pattern, starts: null patterns, the pattern of each fitted row sorted by region, and where regions start.
    """

    rows: int
    turns: tuple[Turn, ...]
    factors: np.ndarray
    patterns: np.ndarray
    pattern: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(rows: int, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> "FittedTrees":
        """From what `fit` wrote."""
        turns, levels = [], meta["levels"]
        first = len(levels) - len(meta["turns"])
        for seen, j in enumerate(meta["turns"]):
            own = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{j}.")}
            turns.append(Turn.of(Cells.from_json(meta["cells"][j]), meta["bits"][j], own, levels[: first + seen]))
        factors = np.array(meta["factors"], dtype=np.int64).reshape(len(meta["factors"]), -1)
        return FittedTrees(rows, tuple(turns), factors, arrays["patterns"], arrays["pattern"], arrays["starts"])

    def block(self, region: int, seed: int) -> pa.Table:
        """Rows of the region; one without fitted rows takes its null patterns from all."""
        u = rng_of(seed, "sequential_trees", region).random((len(self.turns) + 1, self.rows))
        start, stop = self.starts[region : region + 2] if np.diff(self.starts)[region] else (0, len(self.pattern))
        nulls = self.patterns[self.pattern[start + (u[0] * (stop - start)).astype(np.int64)]]
        codes: list[np.ndarray | int] = [region, *self.factors[region].tolist(), *nulls.T]
        X = np.zeros((self.rows, len(codes) + len(self.turns)), dtype=np.float32)
        X[:, len(codes) - nulls.shape[1] : len(codes)] = nulls
        drawn = {}
        for turn, chance in zip(self.turns, u[1:], strict=True):
            cell, null = turn.cell, nulls[:, turn.bit] if turn.bit >= 0 else np.zeros(self.rows, dtype=bool)
            values = turn.draw(X, codes, chance) if turn.tree else np.zeros(self.rows)
            shown = turn.shown(values, X, chance) if turn.tree else values
            drawn[cell.column.name] = cell.decode(shown, null if turn.bit >= 0 else None) if turn.tree else cell.empty(self.rows)
            feature = _feature(cell, values, null)
            X[:, len(codes)] = feature.values
            codes.append(feature.values)
        # A table of no column still has rows: every column may be fixed by the region.
        return pa.table(drawn) if drawn else pa.table({"": u[0]}).select([])
