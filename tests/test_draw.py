"""draw_block: full blocks of rows that the schema and the region allow, or a typed error."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.draw import OUTSIDE, TRIES, draw_block
from codsa_ray.errors import PluginError, ShortOfRows
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

from tables import mixed_table

BLOCK = 64


@dataclass
class Dice:
    """Draws `age` uniformly from 17 to 90 and leaves all else as it was in one real row."""

    rows: pa.Table
    seeds: list[int]

    def block(self, region: int, seed: int) -> pa.Table:
        self.seeds.append(seed)
        age = np.random.default_rng(seed).integers(17, 91, BLOCK)
        return self.rows.set_column(0, "age", pa.array(age))


@pytest.fixture
def parts() -> tuple[Dice, Schema, Regions]:
    table, schema, regions = mixed_table()
    rows = table.drop(["sex", "label", "_region", "_row"]).take([0] * BLOCK)
    age = replace(schema["age"], low=17, high=90)
    return Dice(rows, []), replace(schema, columns=(age, *schema.columns[1:])), regions


def test_rows_that_the_schema_allows_are_taken_as_they_come(parts: tuple[Dice, Schema, Regions]) -> None:
    dice, schema, regions = parts
    rows, redrawn = draw_block(dice, schema, regions, 3, 9)
    assert not redrawn
    assert rows["age"].to_pylist() == dice.block(3, dice.seeds[0])["age"].to_pylist()
    assert rows.column_names == [c.name for c in schema.columns]
    assert (set(rows["label"].to_pylist()), set(rows["sex"].to_pylist())) == ({"yes"}, {"M"})


def test_rows_beyond_a_bound_are_drawn_again_and_counted(parts: tuple[Dice, Schema, Regions]) -> None:
    dice, schema, regions = parts
    strict = replace(schema, columns=(replace(schema["age"], high=40), *schema.columns[1:]))
    rows, redrawn = draw_block(dice, strict, regions, 3, 9)
    strict.check(rows)
    tries = [dice.block(3, seed)["age"].to_numpy() for seed in list(dice.seeds)]
    every = np.concatenate(tries)
    assert rows["age"].to_pylist() == every[every <= 40][:BLOCK].tolist(), "the first that fit, in the order drawn"
    last = np.flatnonzero(every <= 40)[BLOCK - 1]
    assert redrawn == {"'age' wants at most 40": (every[: last + 1] > 40).sum()}


def test_rows_outside_the_region_are_drawn_again(parts: tuple[Dice, Schema, Regions]) -> None:
    dice, schema, regions = parts
    rows, redrawn = draw_block(dice, schema, regions, 3, 9, lambda table: np.where(table["age"].to_numpy() % 2 == 0, 3, 0))
    assert set(np.array(rows["age"]) % 2) == {0}
    assert len(rows) == BLOCK
    assert redrawn[OUTSIDE] == redrawn.total() > 0


def test_the_same_arguments_give_the_same_rows(parts: tuple[Dice, Schema, Regions]) -> None:
    dice, schema, regions = parts
    assert draw_block(dice, schema, regions, 3, 9)[0].equals(draw_block(dice, schema, regions, 3, 9)[0])
    assert not draw_block(dice, schema, regions, 3, 9)[0].equals(draw_block(dice, schema, regions, 3, 10)[0])


def test_what_cannot_be_drawn_is_an_error_that_names_region_count_and_reason(parts: tuple[Dice, Schema, Regions]) -> None:
    dice, schema, regions = parts
    with pytest.raises(ShortOfRows) as caught:
        draw_block(dice, schema, regions, 3, 9, lambda table: np.zeros(len(table), dtype=np.int32))
    assert len(dice.seeds) == TRIES
    for part in ("label=yes, sex=M", f"wanted {BLOCK} rows", "got 0", OUTSIDE):
        assert part in str(caught.value)


def test_a_generator_that_leaves_out_a_column_is_named_as_the_culprit(parts: tuple[Dice, Schema, Regions]) -> None:
    dice, schema, regions = parts
    dice.rows = dice.rows.drop(["job"])
    with pytest.raises(PluginError, match="job"):
        draw_block(dice, schema, regions, 3, 9)
