"""A pool gives exactly what was asked, block boundaries do not matter, and extending it changes no row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.errors import DamagedError, ShortOfRows
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.pool import RECORDS, SHARD_ROWS, Pool, PoolKey, prefix
from codsa_ray.record import write_recorded

KEY = PoolKey("generator", "fit", 0, 0, 0)


def draw(pool: Pool) -> None:
    """Writes rows that name their region and index, as a generator would by its seeds."""
    for shard in pool.missing():
        tables = []
        for s in shard.segments:
            index = np.arange(s.start * pool.block, s.stop * pool.block)
            tables.append(pa.table({"index": index, REGION: np.full(len(index), s.region, dtype=np.int32)}))
        pool.record({shard.name: write_recorded(pool.place, shard.name, pa.concat_tables(tables))})


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


def drawn(folder: Path) -> Pool:
    pool = Pool(Folder(str(folder)), KEY, 1000).extend(np.array([2 * SHARD_ROWS, 5]))
    draw(pool)
    return pool


def test_what_is_recorded_and_there_is_not_missing(tmp_path: Path) -> None:
    pool = drawn(tmp_path)
    assert len(pool.shards) == 3
    assert not pool.missing()
    assert pool.extend(np.array([2 * SHARD_ROWS, 1005])).missing() == [pool.extend(np.array([2 * SHARD_ROWS, 1005])).shards[-1]]


@pytest.mark.parametrize("harm", ["gone", "cut short", "not recorded", "no records", "torn records", "of other blocks"])
def test_a_shard_nobody_vouches_for_is_missing_and_no_other(tmp_path: Path, harm: str) -> None:
    pool = drawn(tmp_path)
    first, place = pool.shards[0], Path(pool.place.local())
    if harm == "gone":
        (place / first.name).unlink()
    elif harm == "cut short":
        (place / first.name).write_bytes((place / first.name).read_bytes()[:-1])
    elif harm == "not recorded":
        pool.place.write_json(RECORDS, {name: record.to_json() for name, record in pool.records().items() if name != first.name})
    elif harm == "no records":
        (place / RECORDS).unlink()
    elif harm == "torn records":
        (place / RECORDS).write_bytes((place / RECORDS).read_bytes()[:100])
    else:
        pool = Pool(pool.folder, KEY, 999, pool.shards)
    assert pool.missing() == (list(pool.shards) if harm in ("no records", "torn records", "of other blocks") else [first])


def test_an_altered_shard_is_never_read_and_is_drawn_again(tmp_path: Path) -> None:
    pool = drawn(tmp_path)
    file = Path(pool.place.local()) / pool.shards[1].name
    whole = file.read_bytes()
    file.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    assert not pool.missing()
    with pytest.raises(DamagedError, match=f"{pool.shards[1].name}.*altered"):
        list(pool.tables())
    assert pool.missing() == [pool.shards[1]]
    draw(pool)
    assert file.read_bytes() == whole
    assert sum(map(len, pool.tables())) == sum(shard.blocks for shard in pool.shards) * 1000


def test_a_shard_that_goes_after_it_was_looked_at_is_no_empty_one(tmp_path: Path) -> None:
    pool = drawn(tmp_path)
    pool.place.delete(pool.shards[0].name)
    with pytest.raises(DamagedError, match="got none"):
        pool.take(np.array([10, 5]))
