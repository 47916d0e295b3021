"""bootstrap: real rows of the region, evenly, and jitter that keeps what a column keeps."""

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.errors import ShortOfRows
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.bootstrap import Bootstrap, FittedBootstrap

from tables import ODD, LocalWorker, mixed_table

SIGMAS = 5.0


def fitted(settings: Bootstrap, path: object) -> FittedBootstrap:
    worker = LocalWorker(Folder(str(path)))
    settings.fit(FitData.of(*mixed_table(), 1), worker)
    return settings.load(worker.folder)


def real(region: int) -> pa.Table:
    table = mixed_table()[0]
    return table.filter(pa.array(table[REGION].to_numpy() == region))


def test_each_real_row_of_the_region_comes_about_equally_often(tmp_path: object) -> None:
    drawn = fitted(Bootstrap(block=20_000), tmp_path).block(3, 1)
    rows = [tuple(row.values()) for row in real(3).select(drawn.column_names).to_pylist()]
    place = {row: index for index, row in enumerate(rows)}
    times = np.bincount([place[tuple(row.values())] for row in drawn.to_pylist()], minlength=len(rows))
    mean = len(drawn) / len(rows)
    assert abs(times - mean).max() <= SIGMAS * np.sqrt(mean)


def test_jitter_keeps_bounds_places_whole_numbers_and_nulls_and_leaves_other_kinds_alone(tmp_path: object) -> None:
    schema, drawn = mixed_table()[1], fitted(Bootstrap(jitter=0.5), tmp_path).block(1, 1)
    for name in ("age", "wage", "gain", "big"):
        values = drawn[name].drop_null().to_numpy()
        assert schema[name].low <= values.min() <= values.max() <= schema[name].high
    wage = drawn["wage"].drop_null().to_numpy()
    assert np.array_equal(np.round(wage, 2), wage)
    assert set(drawn["since"].to_pylist()) <= set(real(1)["since"].to_pylist())
    assert np.isin(drawn[ODD].to_numpy(), real(1)[ODD].to_numpy()).mean() < 0.1


def test_jitter_is_the_stated_share_of_the_region_s_deviation(tmp_path: object) -> None:
    plain, shaken = (fitted(Bootstrap(jitter=j, block=20_000), tmp_path).block(1, 1)[ODD].to_numpy() for j in (0.0, 0.1))
    inside = np.abs(plain - plain.mean()) < plain.std()
    assert (shaken - plain)[inside].std() == pytest.approx(0.1 * real(1)[ODD].to_numpy().std(), rel=0.03)


def test_a_region_without_rows_is_refused_by_name(tmp_path: object) -> None:
    generator = fitted(Bootstrap(), tmp_path)
    empty = FittedBootstrap(generator.settings, generator.rows, (0, 0, len(generator.rows)), generator.cells)
    with pytest.raises(ShortOfRows, match="region 0"):
        empty.block(0, 1)
