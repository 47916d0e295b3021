"""One block of rows that keep the schema and lie in their region, redrawn until they do; knows no method and no cluster."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.cells import Cells
from codsa_ray.contracts import FittedGenerator
from codsa_ray.errors import PluginError, ShortOfRows
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Schema
from codsa_ray.seeds import seed_of

TRIES = 50
OUTSIDE = "outside the region"


def draw_block(
    fitted: FittedGenerator,
    schema: Schema,
    regions: Regions,
    region: int,
    seed: int,
    assign: Callable[[pa.Table], np.ndarray] | None = None,
) -> tuple[pa.Table, Counter[str]]:
    """Draws the generator's block of canonical rows of one region, in schema order.

    Args:
        fitted: draws candidate rows; its first answer says how many rows a block has.
        schema: what a row must keep.
        regions: of the fold; the region's constants are written into every row.
        region: id of the region.
        seed: of the block; try t asks the generator with seed_of(seed, t).
        assign: table -> (n,) region ids; rows it puts elsewhere are drawn again, as are those that the generator itself refuses.

    Returns:
        (rows, how many rows were dropped and drawn again for which reason, the first of several). The same arguments give the same bytes.

    Raises:
        ShortOfRows: TRIES draws were not enough.
        PluginError: the generator left out a column, or drew no row or another number of rows.
    """
    item, redrawn = regions.items[region], Counter[str]()
    kept: list[pa.Table] = []
    block = 0
    for attempt in range(TRIES):
        rows = _completed(fitted.block(region, seed_of(seed, attempt)), schema, item)
        block = block or len(rows)
        if len(rows) != block or not block:
            raise PluginError(f"wanted a block of {block or 'some'} rows of {item.name}; got {len(rows)}; check the generator")
        why = _broken(rows, schema, fitted, region, assign)
        fine = np.flatnonzero(~_any(why, block))
        missing = block - sum(map(len, kept))
        # Rows beyond the last that is needed are nobody's loss.
        redrawn.update(_first(why, int(fine[missing - 1]) + 1 if len(fine) >= missing else block))
        kept.append(rows.take(pa.array(fine[:missing])))
        if len(fine) >= missing:
            return pa.concat_tables(kept).combine_chunks(), redrawn
    reason = max(redrawn, key=lambda key: (redrawn[key], key))
    got = sum(map(len, kept))
    raise ShortOfRows(f"wanted {block} rows of {item.name}; got {got} in {TRIES} tries; mostly {reason} ({redrawn[reason]} rows)")


def _any(why: dict[str, np.ndarray], rows: int) -> np.ndarray:
    return np.any([np.zeros(rows, dtype=bool), *why.values()], axis=0)


def _first(why: dict[str, np.ndarray], seen: int) -> dict[str, int]:
    """How many of the first `seen` rows are dropped for which reason, each for the first that it has."""
    left, found = np.ones(seen, dtype=bool), {}
    for reason, rows in why.items():
        found[reason] = int((left & rows[:seen]).sum())
        left &= ~rows[:seen]
    return {reason: count for reason, count in found.items() if count}


def _completed(rows: pa.Table, schema: Schema, item: Region) -> pa.Table:
    """The schema's columns in its order, the region's constants among them."""
    constants, columns = dict(item.constants), {}
    for column in schema.columns:
        if column.name in constants:
            value = constants[column.name]
            kind = pa.scalar(value).type if column.kind == "datetime" and value is not None else Cells(column).type
            columns[column.name] = pa.repeat(pa.scalar(value, kind), len(rows))
        elif column.name in rows.column_names:
            columns[column.name] = rows[column.name]
        else:
            raise PluginError(f"wanted a block with column {column.name!r}; got {rows.column_names}; check the generator")
    return pa.table(columns)


def _broken(
    rows: pa.Table, schema: Schema, fitted: FittedGenerator, region: int, assign: Callable[[pa.Table], np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool rows to draw again for it; rows that the schema forbids are not assigned."""
    found = schema.broken(rows)
    refused: Any = getattr(fitted, "refused", None)
    found |= {reason: odd for reason, odd in (refused(rows, region) if refused else {}).items() if odd.any()}
    broken = _any(found, len(rows))
    if assign is None or broken.all():
        return found
    fine = np.flatnonzero(~broken)
    outside = np.zeros(len(rows), dtype=bool)
    outside[fine] = assign(rows.take(pa.array(fine)) if broken.any() else rows) != region
    return found | {OUTSIDE: outside}
