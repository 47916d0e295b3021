"""Privacy: copies are found, fresh rows are cleared, and distances are what their definition says."""

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.audit.copies import copies, marked
from codsa_ray.audit.nearest import Space, sample
from codsa_ray.audit.picks import pick, region_of
from codsa_ray.audit.pictures import Grid, pictures
from codsa_ray.audit.privacy import privacy, weighted_median
from codsa_ray.fitdata import REGION
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Column, Schema

from tables import mixed_table

TABLE, SCHEMA, REGIONS = mixed_table(1_000)
HELD = mixed_table(1_000, 1)[0]
FRESH = mixed_table(500, 2)[0]


def slow(a: dict, b: dict, space: Space) -> float:
    """The distance by its definition, one column at a time."""
    total, place = 0.0, 0
    for column in SCHEMA.columns:
        if column.kind not in ("numeric", "integer", "datetime"):
            total += a[column.name] != b[column.name]
            continue
        values = [x[column.name] if column.kind != "datetime" else micro(x[column.name]) for x in (a, b)]
        scaled = [None if v is None else min(max((v - space.low[place]) / space.spread[place], 0.0), 1.0) for v in values]
        place += 1
        if None in scaled:
            total += 0.0 if scaled == [None, None] else 0.5 + abs(next(v for v in scaled if v is not None) - 0.5)
        else:
            total += abs(scaled[0] - scaled[1])
    return total / len(SCHEMA.columns)


def micro(value: object) -> float | None:
    return None if value is None else pa.scalar(value, pa.timestamp("us", "UTC")).cast(pa.int64()).as_py()


def test_the_nearest_row_and_its_distance_are_those_of_the_definition() -> None:
    space, queries, points = Space.of(TABLE, SCHEMA), FRESH.slice(0, 12), TABLE.slice(0, 80)
    index, distance = space.nearest(queries, points)
    theirs = points.to_pylist()
    for i, row in enumerate(queries.to_pylist()):
        every = [slow(row, other, space) for other in theirs]
        assert distance[i] == pytest.approx(min(every))
        assert every[index[i]] == pytest.approx(min(every))


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space.of(TABLE, SCHEMA)
    index, distance = space.nearest(FRESH, TABLE)
    monkeypatch.setattr("codsa_ray.audit.nearest.BLOCK_BYTES", 16 * len(TABLE) * 7)
    again, other = space.nearest(FRESH, TABLE)
    assert np.array_equal(index, again)
    assert np.array_equal(distance, other)


def test_copies_of_training_rows_are_found() -> None:
    drawn = TABLE.take(pa.array(np.random.default_rng(0).integers(0, len(TABLE), 500)))
    found = privacy(TABLE, HELD, drawn, SCHEMA, 0)
    assert found["dcr_ratio"] == 0
    assert found["closer_share"] > 0.9
    assert (found["copies"], found["copies_held_out"], found["rows"]) == (1.0, 0.0, 500)


def test_fresh_rows_show_no_sign_of_copying() -> None:
    found = privacy(TABLE, HELD, FRESH, SCHEMA, 0)
    assert found["dcr_ratio"] == pytest.approx(1, abs=0.1)
    assert found["closer_share"] == pytest.approx(0.5, abs=0.08)
    assert found["copies"] == 0


def test_fresh_rows_of_rare_regions_are_held_against_held_out_rows_of_the_same_regions() -> None:
    matched, blind = [], []
    for seed in range(6):
        table, held, fresh = (mixed_table(1_000, 10 * part + seed + 100)[0] for part in range(3))
        counts = np.bincount(region_of(fresh), minlength=len(REGIONS))
        rare = fresh.take(pa.array(pick(region_of(fresh), np.where(counts == counts.max(), 0, counts), 0, "test")))
        matched.append(privacy(table, held, rare, SCHEMA, 0)["dcr_ratio"])
        blind.append(privacy(table, held.drop_columns(REGION), rare, SCHEMA, 0)["dcr_ratio"])
    assert np.mean(matched) == pytest.approx(1, abs=0.06)
    assert np.mean(blind) > 1.1


def test_rows_that_move_a_little_from_training_rows_are_close() -> None:
    age = pa.array(TABLE["age"].to_numpy() + 1)
    moved = TABLE.set_column(TABLE.column_names.index("age"), "age", age)
    found = privacy(TABLE, HELD, moved, SCHEMA, 0)
    assert found["copies"] < 0.01
    assert found["dcr_ratio"] < 0.1


def test_held_out_rows_without_regions_are_one_region() -> None:
    found = privacy(TABLE, HELD.drop_columns(REGION), FRESH, SCHEMA, 0)
    assert found["dcr_ratio"] == pytest.approx(1, abs=0.1)


def test_without_held_out_rows_there_is_nothing_to_compare_with() -> None:
    found = privacy(TABLE, HELD.slice(0, 0), FRESH, SCHEMA, 0)
    assert found["dcr_ratio"] is found["closer_share"] is found["copies_held_out"] is None
    assert found["copies"] == 0


def test_a_copy_agrees_in_every_column_and_null_is_a_value() -> None:
    assert copies(TABLE, TABLE, SCHEMA).all()
    for name in ("wage", "job", "member", "since", "big"):
        values = TABLE[name].take(pa.array(np.roll(np.arange(len(TABLE)), 1)))
        same = np.array([a == b for a, b in zip(values.to_pylist(), TABLE[name].to_pylist(), strict=True)])
        other = TABLE.set_column(TABLE.column_names.index(name), name, values)
        assert np.array_equal(copies(other, TABLE, SCHEMA), same)


def test_copies_are_found_among_rows_that_are_not_at_hand() -> None:
    """Of ten real rows at hand and all in blocks: what blocks hold is a copy, and what nothing holds is none."""
    blocks = (TABLE.slice(start, 130) for start in range(0, len(TABLE), 130))
    drawn, fresh = marked((TABLE.slice(500, 100), FRESH), blocks, SCHEMA)
    assert copies(drawn, TABLE.slice(0, 10), SCHEMA).all()
    assert not copies(TABLE.slice(500, 100), TABLE.slice(0, 10), SCHEMA).any()
    assert np.array_equal(copies(fresh, TABLE.slice(0, 10), SCHEMA), copies(FRESH, TABLE, SCHEMA))


def test_minus_zero_is_zero_and_no_null_among_copies() -> None:
    schema = Schema((Column("x", "numeric", "double"),), "x", "regression", order=("x",))
    zero, minus, null = (pa.table({"x": pa.array([value], pa.float64())}) for value in (0.0, -0.0, None))
    assert copies(minus, zero, schema).all()
    assert copies(null, null, schema).all()
    assert not copies(null, zero, schema).any()


def test_the_weighted_median_is_that_of_repeated_values() -> None:
    values, weight = np.array([3.0, 1.0, 2.0, 9.0]), np.array([1, 2, 2, 1])
    assert weighted_median(values, weight) == np.median(values.repeat(weight)) == 2.0
    assert weighted_median(np.array([1.0, 2.0]), np.ones(2)) == 1.5


def test_the_sample_shows_rarest_regions_first_beside_rows_that_are_nearest() -> None:
    found = sample(TABLE, FRESH, SCHEMA, REGIONS, 0)
    assert found[0]["region"] == REGIONS.items[int(np.argmin(REGIONS.counts))].name
    rows = {tuple(sorted(row.items(), key=lambda pair: pair[0])) for row in plain(TABLE)}
    assert all(tuple(sorted(item["nearest"].items(), key=lambda pair: pair[0])) in rows for item in found)
    assert [item["distance"] for item in sample(TABLE, FRESH, SCHEMA, REGIONS, 0, rows=False)] == [item["distance"] for item in found]


def plain(table: pa.Table) -> list[dict]:
    rows = table.select([column.name for column in SCHEMA.columns]).to_pylist()
    return [{k: v.isoformat() if k == "since" and v is not None else v for k, v in row.items()} for row in rows]


def test_without_real_rows_the_sample_holds_none() -> None:
    assert all(item["nearest"] is None for item in sample(TABLE, FRESH, SCHEMA, REGIONS, 0, rows=False))


def drawing(n: int, seed: int) -> tuple[pa.Table, Schema, Regions]:
    """5 x 4 pictures whose first pixel is constant, so that the schema leaves it out; two regions, 0 the rarer."""
    rng = np.random.default_rng(seed)
    names = [f"ink_{r}_{c}" for r in range(5) for c in range(4)]
    region = (np.arange(n) >= n // 4).astype(np.int32)
    pixels = rng.integers(0, 16, (n, 20)) + region[:, None]
    table = pa.table({name: pa.array(pixels[:, i]) for i, name in enumerate(names)}).drop_columns("ink_0_0")
    columns = tuple(Column(name, "integer", "int64", 0, 16) for name in names[1:])
    regions = Regions(tuple(Region(f"r{k}", k, 0, int((region == k).sum())) for k in (0, 1)), (0.5, 0.5))
    return table.append_column(REGION, pa.array(region)), Schema(columns, "none", "classification", order=tuple(names)), regions


def test_pictures_are_found_in_columns_and_the_nearest_of_a_copy_is_itself() -> None:
    real, schema, regions = drawing(60, 0)
    found = pictures(real, real, schema, regions, 0)
    assert found is not None
    assert (found["rows"], found["columns"], found["max"]) == (5, 4, 16.0)
    assert [region["name"] for region in found["regions"]] == ["r0", "r1"]
    for region in found["regions"]:
        assert region["nearest"] == region["drawn"]
        assert all(len(flat) == 20 and flat[0] == 0 for flat in region["real"])
    hidden = pictures(real, real, schema, regions, 0, rows=False)
    assert hidden is not None
    assert all(region["real"] == region["nearest"] == [] for region in hidden["regions"])


def test_columns_that_do_not_fill_a_grid_are_no_picture() -> None:
    _, schema, _ = drawing(8, 0)
    assert Grid.find(schema) is not None
    assert Grid.find(Schema(schema.columns, "none", "classification", order=schema.order[:-1])) is None
    assert Grid.find(SCHEMA) is None
