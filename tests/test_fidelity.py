"""Fidelity: its measures match reference implementations, tell good rows from bad, and do not mistake another mix for bad rows."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import ks_2samp
from scipy.stats.contingency import association as reference
from sklearn.metrics import roc_auc_score

from codsa_ray.audit.association import cramer, matrix
from codsa_ray.audit.drawn import audit
from codsa_ray.audit.fidelity import fidelity
from codsa_ray.audit.marginals import kolmogorov, marginal
from codsa_ray.audit.picks import even, mixed_like, pick, region_of, thin
from codsa_ray.audit.two_sample import auc_error, two_sample
from codsa_ray.fitdata import REGION

from tables import mixed_table

TABLE, SCHEMA, REGIONS = mixed_table(1_500)
FRESH = mixed_table(900, 1)[0]


def shuffled(table: pa.Table, seed: int = 0) -> pa.Table:
    """Every column on its own: right marginals, no relation left."""
    rng = np.random.default_rng(seed)
    names = [name for name in table.column_names if name != REGION]
    return pa.table({name: table[name].take(pa.array(rng.permutation(len(table)))) for name in names} | {REGION: table[REGION]})


def test_the_distance_of_ordered_columns_is_kolmogorov_smirnov_s() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=300), rng.normal(0.3, 1, size=200).round(1)
    assert kolmogorov(a, np.ones(300), b, np.ones(200)) == pytest.approx(ks_2samp(a, b).statistic)
    weight = rng.integers(1, 4, 300)
    assert kolmogorov(a, weight, b, np.ones(200)) == pytest.approx(ks_2samp(a.repeat(weight), b).statistic)


def test_the_distance_of_categories_is_half_the_sum_of_differences() -> None:
    real, drawn = TABLE.slice(0, 4), TABLE.slice(0, 4)
    real = real.set_column(real.column_names.index("job"), "job", pa.array(["cook", "cook", "nurse", None]))
    drawn = drawn.set_column(drawn.column_names.index("job"), "job", pa.array(["cook", "judge", "nurse", "nurse"]))
    found = marginal(real, np.ones(4), drawn, SCHEMA["job"])
    assert found["distance"] == pytest.approx(0.5)
    assert dict(zip(found["bins"], zip(found["real"], found["drawn"], strict=True), strict=True)) == {
        "cook": (0.5, 0.25),
        "nurse": (0.25, 0.5),
        "judge": (0.0, 0.25),
        "null": (0.25, 0.0),
    }


def test_nulls_alone_make_a_distance() -> None:
    wage = TABLE["wage"]
    filled = TABLE.set_column(TABLE.column_names.index("wage"), "wage", pc.fill_null(wage, 3.0))
    found = marginal(TABLE, np.ones(len(TABLE)), filled, SCHEMA["wage"])
    assert found["distance"] >= wage.null_count / len(wage) - 1e-9
    assert found["bins"][-1] == "null"
    assert (found["real"][-1], found["drawn"][-1]) == (pytest.approx(wage.null_count / len(wage)), 0.0)


@pytest.mark.parametrize("column", SCHEMA.columns, ids=lambda column: column.kind)
def test_histograms_hold_every_row_and_equal_rows_have_no_distance(column) -> None:  # type: ignore[no-untyped-def]
    found = marginal(TABLE, np.ones(len(TABLE)), TABLE, column)
    assert found["distance"] == pytest.approx(0, abs=1e-12)
    assert len(found["bins"]) == len(found["real"]) == len(found["drawn"]) <= 18
    assert len(set(found["bins"])) == len(found["bins"])
    assert sum(found["real"]) == pytest.approx(1)
    assert found["real"] == pytest.approx(found["drawn"])


def test_a_category_the_schema_lacks_is_counted_as_other() -> None:
    column = replace(SCHEMA["job"], categories=SCHEMA["job"].categories[:2])
    found = marginal(TABLE, np.ones(len(TABLE)), TABLE, column)
    assert "(other)" in found["bins"]
    assert sum(found["real"]) == pytest.approx(1)


def test_association_without_correction_for_chance_is_cramer_s() -> None:
    table = np.array([[30, 10, 5], [5, 20, 30]])
    want = reference(table, method="cramer", correction=False)
    assert cramer(table, 1e12) == pytest.approx(want, rel=1e-6)
    assert cramer(table, table.sum()) < want


def test_unrelated_columns_have_almost_no_association_however_many_levels() -> None:
    rng = np.random.default_rng(3)
    found = matrix([rng.integers(0, 12, 500) for _ in range(8)], np.ones(500))
    upper = found[np.triu_indices(8, 1)]
    assert np.median(upper) < 0.05
    assert np.allclose(found, found.T)


def test_a_column_and_its_copy_have_association_one_and_a_constant_none() -> None:
    codes = np.random.default_rng(4).integers(0, 5, 400)
    found = matrix([codes, 4 - codes, np.zeros(400, dtype=np.int64)], np.ones(400))
    assert found[0, 1] == pytest.approx(1, abs=0.02)
    assert found[0, 2] == found[2, 2] - 1 == 0


def test_shuffled_columns_are_caught_by_pairs_and_by_the_classifier_and_not_by_marginals() -> None:
    good, bad = fidelity(TABLE, FRESH, SCHEMA, REGIONS, 0), fidelity(TABLE, shuffled(FRESH), SCHEMA, REGIONS, 0)
    assert bad["correlation"]["error"] > 1.5 * good["correlation"]["error"]
    assert bad["c2st"]["auc"] > 0.5 + 6 * bad["c2st"]["se"]
    assert abs(good["c2st"]["auc"] - 0.5) < 4 * good["c2st"]["se"]
    means = [np.mean([column["distance"] for column in found["columns"]]) for found in (good, bad)]
    assert abs(means[0] - means[1]) < 0.03


def test_fresh_rows_in_another_mix_of_regions_still_look_like_real_ones() -> None:
    region = region_of(FRESH)
    counts = np.bincount(region, minlength=len(REGIONS))
    mixed = FRESH.take(pa.array(pick(region, np.minimum(counts, 150), 0, "test")))
    found = fidelity(TABLE, mixed, SCHEMA, REGIONS, 0)
    assert abs(found["c2st"]["auc"] - 0.5) < 4 * found["c2st"]["se"]
    assert next(c for c in found["columns"] if c["name"] == "label")["distance"] < 0.01
    weight = mixed_like(region_of(TABLE), region_of(mixed))
    unweighted = marginal(TABLE, np.ones(len(TABLE)), mixed, SCHEMA["label"])["distance"]
    assert unweighted > 0.1
    assert marginal(TABLE, weight, mixed, SCHEMA["label"])["distance"] < 0.01


def test_regions_are_listed_rarest_first_with_their_rows_and_tested_where_there_are_fifty() -> None:
    found = fidelity(TABLE, FRESH, SCHEMA, REGIONS, 0)["regions"]
    assert [row["real"] for row in found] == sorted(np.bincount(region_of(TABLE)).tolist())
    assert sum(row["drawn"] for row in found) == len(FRESH)
    assert [row["c2st"] is not None for row in found] == [min(row["real"], row["drawn"]) >= 50 for row in found]
    assert found[0]["c2st"] is None


def test_the_standard_error_of_the_auc_is_about_its_spread() -> None:
    rng = np.random.default_rng(5)
    y = np.repeat([0, 1], 150)
    found = [roc_auc_score(y, rng.normal(size=300) + 0.6 * y) for _ in range(400)]
    assert auc_error(float(np.mean(found)), 150) == pytest.approx(np.std(found), rel=0.15)


def test_too_few_rows_are_not_tested() -> None:
    assert two_sample(TABLE.slice(0, 30), FRESH, SCHEMA, 0) is None


def test_thinning_keeps_small_regions_whole_and_is_the_same_each_time() -> None:
    assert even(np.array([3, 50, 1000]), 200).tolist() == [3, 50, 147]
    assert even(np.array([3, 5]), 100).tolist() == [3, 5]
    thinned = thin(TABLE, 300, 1, "test")
    assert np.bincount(region_of(thinned))[np.argmin(REGIONS.counts)] == REGIONS.counts.min()
    assert len(thinned) <= 300
    assert thinned.equals(thin(TABLE, 300, 1, "test"))
    assert not thinned.equals(thin(TABLE, 300, 2, "test"))


def test_an_audit_is_plain_data_and_the_same_each_time() -> None:
    drawn = FRESH.slice(0, 300)
    first, second = (audit(TABLE, mixed_table(400, 2)[0], drawn, SCHEMA, REGIONS, 3) for _ in range(2))
    assert json.dumps(first, sort_keys=True, allow_nan=False) == json.dumps(second, sort_keys=True, allow_nan=False)
    assert set(first) == {"fidelity", "privacy", "sample", "pictures", "images", "picture_quality", "texts", "text_quality", "coupling"}


def test_an_audit_of_no_rows_says_nothing() -> None:
    nothing = {"fidelity": {}, "privacy": {}, "sample": [], "pictures": None, "images": [], "texts": [], "coupling": []}
    nothing |= {"picture_quality": {}, "text_quality": {}}
    assert audit(TABLE, FRESH, FRESH.slice(0, 0), SCHEMA, REGIONS, 0) == nothing
