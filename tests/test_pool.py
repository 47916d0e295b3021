"""A pool gives exactly what was asked, block boundaries do not matter, and extending it changes no row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.errors import ShortOfRows
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.pool import SHARD_ROWS, Pool, PoolKey, prefix

KEY = PoolKey("generator", "fit", 0, 0, 0)


def draw(pool: Pool) -> None:
    """Writes rows that name their region and index, as a generator would by its seeds."""
    for shard in pool.shards:
        if pool.place.exists(shard.name):
            continue
        tables = []
        for s in shard.segments:
            index = np.arange(s.start * pool.block, s.stop * pool.block)
            tables.append(pa.table({"index": index, REGION: np.full(len(index), s.region, dtype=np.int32)}))
        pool.place.write_table(shard.name, pa.concat_tables(tables))


def test_take_gives_the_first_rows_of_each_region(tmp_path: Path) -> None:
    pool = Pool(Folder(str(tmp_path)), KEY, 64).extend(np.array([100, 0, 7]))
    draw(pool)
    assert pool.ceiling(3).tolist() == [128, 0, 64]
    taken = pool.take(np.array([100, 0, 7]))
    assert taken["index"].to_pylist() == [*range(100), *range(7)]
    assert taken[REGION].to_pylist() == [0] * 100 + [2] * 7


def test_extending_keeps_every_shard_and_every_row(tmp_path: Path) -> None:
    small = Pool(Folder(str(tmp_path)), KEY, 64).extend(np.array([100, 10]))
    draw(small)
    large = small.extend(np.array([500, 10]))
    draw(large)
    assert large.shards[: len(small.shards)] == small.shards
    assert large.take(np.array([500, 10]))["index"].to_pylist() == [*range(500), *range(10)]
    assert small.extend(np.array([100, 10])) == small


def test_a_shard_holds_no_more_rows_than_its_limit(tmp_path: Path) -> None:
    pool = Pool(Folder(str(tmp_path)), KEY, 1000).extend(np.array([3 * SHARD_ROWS, 5, 5]))
    assert max(shard.blocks for shard in pool.shards) * 1000 <= SHARD_ROWS
    assert len({shard.name for shard in pool.shards}) == len(pool.shards)


def test_asking_for_more_than_there_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(ShortOfRows, match="region 1"):
        prefix(np.array([0, 0, 1]), [2, 2])


def test_a_pool_comes_back_from_json(tmp_path: Path) -> None:
    pool = Pool(Folder(str(tmp_path)), KEY, 64).extend(np.array([100, 10]))
    assert Pool.from_json(pool.folder, pool.to_json()) == pool
