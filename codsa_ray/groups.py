"""Groups: the cells that the data hold, with their rows, names and target mix; knows no fold and no stratum rule."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.errors import GroupError
from codsa_ray.grouping import Grouping, Key, merge_option, rank, shell_quoted
from codsa_ray.predicate import Predicate
from codsa_ray.regions import Region, Regions

__all__ = ["Group", "Grouping", "Groups"]

MOST_VALUES = 50
SMALLEST = 4
# Full balance to a smaller share would ask for millions of times the rows that the group has.
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Group:
    """One cell.

    Args:
        name: shown to people, taken by --target-mix.
        label: text of the target, None where it plays no part.
        values: text of each group column, None for null.
        predicate: index of the predicate it satisfies first; the number of predicates for the rest.
        rows: rows of the data in it.
    """

    name: str
    label: str | None
    values: tuple[str | None, ...]
    predicate: int
    rows: int

    @property
    def key(self) -> Key:
        """What `Grouping.cells` counts by."""
        return self.label, self.values, self.predicate


@dataclass(frozen=True)
class Groups:
    """The cells of a data set, ordered by Grouping.order; a group's index is its id.

    Args:
        grouping: how rows were told into them.
        items: the groups.
        mix: target mix over them, >= 0, summing to 1.
    """

    grouping: Grouping
    items: tuple[Group, ...]
    mix: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.items)

    @staticmethod
    def of(grouping: Grouping, counts: Mapping[Key, int], mix: Mapping[str, float] | None = None, smallest: int = SMALLEST) -> "Groups":
        """From rows per cell.

        Args:
            grouping: what counted them.
            counts: `Grouping.cells` of all rows.
            mix: weight of each group by name, uniform by default; need not sum to 1.
            smallest: rows under which a group is refused.

        Raises:
            GroupError: a group column with too many values, a predicate without rows, a group that is too small (with the
                option that mends it), a mix that does not fit.
        """
        counts = {key: counts[key] for key in sorted(counts, key=grouping.order) if counts[key] > 0}
        _refuse_many(grouping, counts)
        _refuse_idle(grouping, counts)
        items = tuple(Group(grouping.name(key), *key, rows) for key, rows in counts.items())
        for item in sorted(items, key=lambda item: item.rows):
            if item.rows < smallest:
                rows = f"{item.rows} row{'s' if item.rows > 1 else ''}"
                wanted = f"at least {smallest} rows in every group"
                raise GroupError(wanted, f"{rows} in group {item.name!r}", _remedy(grouping, counts, item, smallest))
        return Groups(grouping, items, _mix([item.name for item in items], mix))

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """The cell of each group."""
        return tuple(item.key for item in self.items)

    def assign(self, table: pa.Table) -> np.ndarray:
        """(n,) int32 group of each row of a table, original or canonical; -1 for a cell that is none of the groups."""
        ids = {key: index for index, key in enumerate(self.keys)}
        found, codes = self.grouping.keys(table)
        return np.array([ids.get(key, -1) for key in found], dtype=np.int32)[codes]

    def assign_each_label(self, table: pa.Table, classes: tuple[str, ...]) -> np.ndarray:
        """(n, C) int32 group that each row would be in if its label were each of `classes`; the table need not hold the target."""
        target = self.grouping.target
        if target is None:
            return np.tile(self.assign(table)[:, None], (1, len(classes)))
        if any(target in Predicate.parse(text).columns for text in self.grouping.predicates):
            columns = [self.assign(_labelled(table, target, label)) for label in classes]
            return np.stack(columns, axis=1) if columns else np.zeros((len(table), 0), dtype=np.int32)
        ids = {key: index for index, key in enumerate(self.keys)}
        found, codes = self.grouping.keys(_labelled(table, target, ""))
        each = [[ids.get((label, values, rule), -1) for label in classes] for _, values, rule in found]
        return np.array(each, dtype=np.int32).reshape(len(found), len(classes))[codes]

    def observable(self, features: set[str]) -> tuple["Groups", np.ndarray]:
        """The coarser groups that are known when only features (and a candidate label) are.

        A predicate is kept while it and all before it read nothing but features and the target: a hidden one takes rows from
        those after it, which makes them hidden too.

        Returns:
            The coarser groups, their mix the sum of the finer ones', and (G,) int32 map from finer to coarser.
        """
        fine = self.grouping
        known = features | ({fine.target} if fine.target is not None else set())
        places = [place for place, column in enumerate(fine.columns) if column in features]
        hidden = [i for i, text in enumerate(fine.predicates) if not known >= set(Predicate.parse(text).columns)]
        first = hidden[0] if hidden else len(fine.predicates)
        columns = tuple(fine.columns[place] for place in places)
        merges = tuple(merge for merge in fine.merges if merge[0] in (*columns, fine.target))
        coarse = replace(fine, columns=columns, predicates=fine.predicates[:first], merges=merges)
        onto_key: list[Key] = [(g.label, tuple(g.values[p] for p in places), min(g.predicate, first)) for g in self.items]
        keys = sorted(set(onto_key), key=coarse.order)
        onto = np.array([keys.index(key) for key in onto_key], dtype=np.int32)
        rows = np.bincount(onto, weights=[g.rows for g in self.items], minlength=len(keys)).astype(int)
        items = tuple(Group(coarse.name(key), *key, int(n)) for key, n in zip(keys, rows, strict=True))
        return Groups(coarse, items, tuple(map(float, np.bincount(onto, weights=self.mix, minlength=len(keys))))), onto

    def labels(self, classes: tuple[str, ...]) -> np.ndarray:
        """(G,) int64 class id of each group's label, -1 where it has none of the classes."""
        ids = {label: index for index, label in enumerate(classes)}
        return np.array([ids.get(group.label, -1) if group.label is not None else -1 for group in self.items], dtype=np.int64)

    def regions(
        self, counts: np.ndarray, strata: int, kinds: Mapping[str, str], fixed: Mapping[str, str] = MappingProxyType({})
    ) -> Regions:
        """Group x stratum, every one of them, so that ids mean the same in every fold.

        Args:
            counts: (G, S) training rows.
            strata: S.
            kinds: kind of each schema column; columns that are not in it are no constants, nor are datetimes and merged columns.
            fixed: text of further columns that every row has (the target domain's).
        """
        labels = sorted({group.label for group in self.items}, key=rank)
        values = [sorted({group.values[place] for group in self.items}, key=rank) for place in range(len(self.grouping.columns))]
        levels = [*([len(labels)] if self.grouping.target is not None else []), *map(len, values)]
        levels += [len(self.grouping.predicates) + 1] if self.grouping.predicates else []
        items = []
        for index, group in enumerate(self.items):
            factors = [labels.index(group.label)] if self.grouping.target is not None else []
            factors += [seen.index(value) for seen, value in zip(values, group.values, strict=True)]
            factors += [group.predicate] if self.grouping.predicates else []
            constants = self._constants(group, kinds, fixed)
            for stratum in range(strata):
                several = strata > 1
                name = f"{group.name} / stratum {stratum}" if several else group.name
                placed = (*factors, stratum) if several else tuple(factors)
                items.append(Region(name, index, stratum, int(counts[index, stratum]), constants, placed))
        return Regions(tuple(items), self.mix, (*levels, strata) if strata > 1 else tuple(levels))

    def _constants(self, group: Group, kinds: Mapping[str, str], further: Mapping[str, str]) -> tuple[tuple[str, Any], ...]:
        merged = {column for column, _, _ in self.grouping.merges}
        fixed = {column: value for column, value in zip(self.grouping.columns, group.values, strict=True) if column not in merged}
        if self.grouping.target is not None and not self.grouping.bins:
            fixed = {self.grouping.target: group.label, **fixed}
        fixed |= further
        typed: dict[str, Callable[[str], Any]] = {"categorical": str, "integer": int, "numeric": float, "boolean": _truth}
        return tuple(
            (column, None if value is None else typed[kinds[column]](value))
            for column, value in fixed.items()
            if kinds.get(column) in typed
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Groups":
        """The inverse of `to_json`."""
        declared = value["grouping"]
        grouping = Grouping(
            declared["target"],
            tuple(declared["columns"]),
            tuple(declared["predicates"]),
            tuple((column, source, into) for column, source, into in declared["merges"]),
            declared["bins"],
            tuple(declared["edges"]),
        )
        items = tuple(Group(**{**item, "values": tuple(item["values"])}) for item in value["items"])
        return Groups(grouping, items, tuple(value["mix"]))


def _labelled(table: pa.Table, target: str, label: str) -> pa.Table:
    rest = table.drop_columns([target]) if target in table.column_names else table
    first = pa.array(np.zeros(len(table), dtype=np.int32))
    return rest.append_column(target, pa.DictionaryArray.from_arrays(first, pa.array([label], pa.string())))


def _truth(text: str) -> bool:
    return text in ("true", "1")


def _mix(names: list[str], mix: Mapping[str, float] | None) -> tuple[float, ...]:
    if mix is None:
        return (1.0 / len(names),) * len(names)
    missing, unknown = [name for name in names if name not in mix], [name for name in mix if name not in names]
    if missing or unknown:
        near = {name: difflib.get_close_matches(name, missing or names, 1, 0.4) for name in unknown}
        offers = [f"{name!r}" + (f" (did you mean {found[0]!r}?)" if found else "") for name, found in near.items()]
        got = "; ".join([*([f"none for {missing}"] if missing else []), *([f"unknown {', '.join(offers)}"] if offers else [])])
        raise GroupError("a target mix that names every group", got, "write one weight for each group")
    weights = [mix[name] for name in names]
    if any(not isinstance(w, Real) or not math.isfinite(w) or w < 0 for w in weights) or sum(weights) <= 0:
        raise GroupError("a target mix of weights >= 0, not all 0", str(dict(mix)), "correct the weights")
    shares = tuple(float(weight) / math.fsum(weights) for weight in weights)
    if min(share for share in shares if share > 0) < LEAST_SHARE:
        raise GroupError(f"weights of 0 or at least {LEAST_SHARE:g} of their sum", str(dict(mix)), "correct the weights")
    return shares


def _refuse_many(grouping: Grouping, counts: Mapping[Key, int]) -> None:
    for place, column in enumerate(grouping.columns):
        seen = sorted({values[place] for _, values, _ in counts}, key=rank)
        if len(seen) > MOST_VALUES:
            numbers = [value for value in seen if rank(value)[0] == 0]
            quoted = '"' + column.replace('"', '""') + '"'
            text = f"{quoted} >= {numbers[len(numbers) // 2]}" if numbers else f"{quoted} = '{str(seen[0]).replace(chr(39), chr(39) * 2)}'"
            do = f"name the part that matters instead, such as --region {shell_quoted(text)}"
            raise GroupError(f"at most {MOST_VALUES} values in group column {column!r}", f"{len(seen)}", do)


def _refuse_idle(grouping: Grouping, counts: Mapping[Key, int]) -> None:
    held = {predicate for _, _, predicate in counts}
    for index, text in enumerate(grouping.predicates):
        if index not in held:
            left = " that earlier conditions leave" if index else ""
            raise GroupError("a condition that holds for some rows", f"{text!r}, which no row{left} matches", "correct it or leave it out")


def _remedy(grouping: Grouping, counts: Mapping[Key, int], small: Group, smallest: int) -> str:
    """What mends a small group: merging its rarest value, changing a condition, or merging its label, in this order."""
    mine = {key: rows for key, rows in counts.items() if key[0] == small.label}
    if sum(mine.values()) >= smallest:
        merges = []
        for place, (column, value) in enumerate(zip(grouping.columns, small.values, strict=True)):
            rows: Counter[str | None] = Counter()
            for key, count in mine.items():
                rows[key[1][place]] += count
            own = rows.pop(value)
            if rows:
                merges.append((own, column, value, max(rows, key=lambda other, rows=rows: (other is not None, rows[other]))))  # type: ignore[misc]
        if merges:
            return f"merge it: {merge_option(min(merges, key=lambda merge: merge[0])[1:])}"
        if grouping.predicates:
            rest = small.predicate == len(grouping.predicates)
            return f"{'narrow' if rest else 'widen'} --region {shell_quoted(grouping.predicates[small.predicate - rest])}"
    return _label_remedy(grouping, counts, small)


def _label_remedy(grouping: Grouping, counts: Mapping[Key, int], small: Group) -> str:
    labels: Counter[str] = Counter()
    for (label, _, _), rows in counts.items():
        if label is not None and label != small.label:
            labels[label] += rows
    if grouping.target is None or grouping.bins or small.label is None or len(labels) < 2:
        return "ask for fewer bins" if grouping.bins else "add rows of it"
    numbers = {label: rank(label)[1] for label in (*labels, small.label) if rank(label)[0] == 0}
    own = numbers.pop(small.label, None)
    near = (
        min(numbers, key=lambda label: abs(numbers[label] - own)) if own is not None and numbers else max(labels, key=lambda v: labels[v])
    )
    return f"merge it: {merge_option((grouping.target, small.label, near))}"
