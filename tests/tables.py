"""Tables with every kind of column and every kind of trouble, and the worker that fits them here; knows no generator."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.fitdata import REGION, ROW
from codsa_ray.folder import Folder
from codsa_ray.picture import encoded
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Column, Schema

ODD = 'say "hi" <script>größe</script>'
BIG = 2**53 + 1
TINY_REGION = 3


@dataclass
class LocalWorker:
    """A fit in this process: rank 0 of 1 on the CPU; checkpoints lie in the folder, reports are kept in `reports`."""

    folder: Folder
    rank: int = 0
    world: int = 1
    device: str = "cpu"
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def prepare(self, module: Any, make_optimizer: Callable[[Any], Any]) -> tuple[Any, Any]:
        return module, make_optimizer(module.parameters())

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        self.folder.write_arrays("checkpoint.safetensors", arrays)
        self.folder.write_json("checkpoint.json", {"step": step, "meta": meta})

    def resume(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        if not self.folder.exists("checkpoint.json"):
            return None
        saved = self.folder.read_json("checkpoint.json")
        return saved["step"], self.folder.read_arrays("checkpoint.safetensors"), saved["meta"]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.reports.append((step, metrics))


def _masked(values: pa.Array, null: np.ndarray) -> pa.Array:
    return pc.if_else(pa.array(null), pa.scalar(None, values.type), values)


def mixed_table(n: int = 600, seed: int = 0) -> tuple[pa.Table, Schema, Regions]:
    """(canonical table with `_region` and `_row`, schema, regions) of n >= 100 rows; regions are label x sex, (yes, F) has 3 rows.

    Columns: label (target), sex (group), age integer, wage numeric with 2 places and nulls that depend on the label, gain
    numeric with 80 % zeros, job categorical with nulls, member boolean with nulls, since datetime (UTC, whole days) with
    nulls, big integers at 2^53 + 1, flat constant, ODD numeric with a hard name.
    """
    rng = np.random.default_rng(seed)
    yes = rng.random(n) < 0.2
    female = rng.random(n) < 0.35
    female &= ~yes
    female[np.flatnonzero(yes)[:TINY_REGION]] = True
    age = np.clip(np.rint(rng.normal(38 + 8 * yes, 10)), 17, 90).astype(np.int64)
    wage = np.round(np.exp(rng.normal(1 + 0.02 * age - 0.3 * female, 0.4)), 2)
    gain = np.where(rng.random(n) < 0.8, 0.0, np.round(np.exp(rng.normal(6 + yes, 1)), 1))
    job = rng.choice(["clerk", "nurse", "cook", "pilot", "judge"], n, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    job[yes & (rng.random(n) < 0.5)] = "judge"
    days = 18_000 + rng.integers(0, 900, n)
    table = pa.table(
        {
            "age": pa.array(age),
            "job": _masked(pa.array(job), rng.random(n) < 0.08),
            "wage": _masked(pa.array(wage), rng.random(n) < np.where(yes, 0.3, 0.1)),
            "gain": pa.array(gain),
            "member": _masked(pa.array(rng.random(n) < 0.3 + 0.4 * yes), rng.random(n) < 0.05),
            "since": _masked(pa.array(days * 86_400_000_000, pa.int64()).cast(pa.timestamp("us", "UTC")), rng.random(n) < 0.1),
            "big": pa.array(BIG + 2 * rng.integers(0, 4, n)),
            "flat": pa.array(np.full(n, 7.0)),
            ODD: pa.array(rng.normal(size=n) + 0.05 * age),
            "sex": pa.array(np.where(female, "F", "M")),
            "label": pa.array(np.where(yes, "yes", "no")),
        }
    )
    return with_regions(table, "label", ("label", "sex"))


def pictured(table: pa.Table, seed: int = 0) -> pa.Table:
    """The table with `scan` before its other columns: grey pictures of 6 x 6, dark above where the label is "yes", a tenth of them null."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(120, 200, (len(table), 6, 6, 1))
    bright[np.asarray(table["label"]) == "yes", :3] -= 100
    files = [None if rng.random() < 0.1 else encoded(pixels.astype(np.uint8)) for pixels in bright]
    return table.add_column(0, "scan", pa.array(files, pa.binary()))


def with_regions(table: pa.Table, target: str, by: tuple[str, ...], task: str = "classification") -> tuple[pa.Table, Schema, Regions]:
    """Adds `_region` and `_row` to a canonical table; regions are the non-empty cells of the columns `by`, which they fix."""
    schema = schema_of(table, target, task)
    levels = [sorted(set(table[name].to_pylist()), key=str) for name in by]
    codes = [np.array([level.index(v) for v in table[name].to_pylist()]) for name, level in zip(by, levels, strict=True)]
    region, items = np.zeros(len(table), dtype=np.int32), []
    for cell in product(*(range(len(level)) for level in levels)):
        rows = np.all([code == c for code, c in zip(codes, cell, strict=True)], axis=0)
        if rows.any():
            region[rows] = len(items)
            values = tuple((name, level[c]) for name, level, c in zip(by, levels, cell, strict=True))
            name = ", ".join(f"{column}={value}" for column, value in values)
            items.append(Region(name, len(items), 0, int(rows.sum()), values, cell))
    regions = Regions(tuple(items), (1 / len(items),) * len(items), tuple(map(len, levels)))
    table = table.append_column(REGION, pa.array(region)).append_column(ROW, pa.array(np.arange(len(table), dtype=np.int64)))
    return table, schema, regions


def half_rare(n: int = 4000, seed: int = 0) -> tuple[pa.Table, Schema, Regions]:
    """Rows of which half have one of two codes and x near 5, half a code that the schema does not keep and x near -5; a tenth are null."""
    rng = np.random.default_rng(seed)
    rare = rng.random(n) < 0.5
    code = np.where(rare, np.char.add("r", rng.integers(0, 1000, n).astype(str)), np.where(rng.random(n) < 0.7, "often", "seldom"))
    x = np.where(rare, -5.0, 5.0) + rng.normal(size=n)
    columns = {"code": _masked(pa.array(code), rng.random(n) < 0.1), "x": pa.array(x), "label": pa.array(["a", "b"] * (n // 2))}
    table, schema, regions = with_regions(pa.table(columns), "label", ("label",))
    kept = {"categories": ("often", "seldom"), "other": True}
    return table, replace(schema, columns=tuple(replace(c, **kept) if c.name == "code" else c for c in schema.columns)), regions


def schema_of(table: pa.Table, target: str, task: str = "classification") -> Schema:
    """The schema of a canonical table, column kinds by arrow type."""
    columns = tuple(_column(name, table[name]) for name in table.column_names if name not in (REGION, ROW))
    names = tuple(c.name for c in columns)
    return Schema(columns, target, task, (), names, tuple(c.type for c in columns))


def digest(table: pa.Table) -> str:
    """SHA-256 of the table as one Arrow IPC batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _column(name: str, values: pa.ChunkedArray) -> Column:
    kind, nulls = _kind(values.type), values.null_count / max(len(values), 1)
    known = values.drop_null()
    if kind == "categorical":
        counts = {item["values"]: item["counts"] for item in pc.value_counts(known.combine_chunks()).to_pylist()}
        return Column(name, kind, str(values.type), categories=tuple(sorted(counts, key=lambda v: (-counts[v], v))), nulls=nulls)
    if kind in ("boolean", "image") or not len(known):
        return Column(name, kind, str(values.type), nulls=nulls)
    numbers = known.cast(pa.int64()).to_numpy() if kind == "datetime" else known.to_numpy()
    places = next((p for p in range(7) if np.array_equal(np.round(numbers, p), numbers)), None) if kind == "numeric" else None
    return Column(name, kind, str(values.type), numbers.min().item(), numbers.max().item(), nulls=nulls, places=places)


def _kind(type: pa.DataType) -> str:
    if pa.types.is_timestamp(type):
        return "datetime"
    if pa.types.is_floating(type):
        return "numeric"
    if pa.types.is_integer(type):
        return "integer"
    if pa.types.is_binary(type):
        return "image"
    return "boolean" if pa.types.is_boolean(type) else "categorical"
