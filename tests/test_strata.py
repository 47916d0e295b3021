"""What each stratum rule cuts: outskirts of a known mixture, where classes mix, clusters; against scipy and closed forms."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import entropy as shannon
from scipy.stats import spearmanr

from codsa_ray.encode import SOFT
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.landmarks import AXES, Landmarks, upper
from codsa_ray.plugins import make
from codsa_ray.regions import Region, Regions
from codsa_ray.strata.clusters import Clusters
from codsa_ray.strata.entropy import Entropy
from codsa_ray.strata.sparse import SHRINK, Sparse, thinness

from tables import mixed_table, with_regions


def cloud(points: np.ndarray, label: np.ndarray) -> FitData:
    """Rows of numbers, a group per label."""
    table = pa.table({f"x{j}": points[:, j] for j in range(points.shape[1])} | {"label": pa.array(label.astype(str))})
    table, schema, regions = with_regions(table, "label", ("label",))
    return FitData.of(table, schema, regions, seed=0)


def groups_of(data: FitData) -> np.ndarray:
    return data.regions.groups[data.table()["_region"].to_numpy()].astype(np.int64)


def mixture(n: int = 900, seed: int = 0) -> np.ndarray:
    """Three quarters of a tight Gaussian in a wide one."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) * np.where(np.arange(n) % 4 == 0, 4.0, 0.3)[:, None]


def density(points: np.ndarray, encoded: np.ndarray) -> np.ndarray:
    """Of the mixture in the encoded space, up to a factor: the bend e = z / sqrt(1 + (z / 4)^2) has the slope (1 - (e / 4)^2)^1.5."""
    squares = (points**2).sum(axis=1)
    plain = 0.75 * np.exp(-squares / 0.18) / 0.09 + 0.25 * np.exp(-squares / 32) / 16
    return plain / np.prod((1 - (encoded / SOFT) ** 2) ** 1.5, axis=1)


# --- distances and entropies


def test_the_k_nn_distance_ranks_rows_by_the_density_they_were_drawn_from() -> None:
    points = mixture(3000)
    data = cloud(points, np.zeros(len(points), dtype=int))
    landmarks = Landmarks.among(data, 10_000)
    wanted = -density(points, landmarks.points)
    ranks = [spearmanr(landmarks.spread(landmarks.points, landmarks.group, k), wanted).statistic for k in (2, 8, 32)]
    assert ranks == sorted(ranks)
    assert ranks[-1] > 0.95


def test_neighbours_are_those_of_all_pairs_without_the_row_itself() -> None:
    rng = np.random.default_rng(1)
    points, label = rng.normal(size=(150, 3)).round(1), rng.integers(0, 3, 150)
    landmarks = Landmarks.among(cloud(points, label), 10_000)
    distance = np.sort(cdist(landmarks.points, landmarks.points) + np.where(np.eye(150), np.inf, 0), axis=1)
    whole = np.zeros(150, dtype=np.int64)
    one = Landmarks.among(cloud(points, whole), 10_000)
    assert one.spread(one.points, whole, 4) == pytest.approx(distance[:, 3])
    same = label[:, None] == label
    own = np.sort(np.where(same & ~np.eye(150, dtype=bool), cdist(landmarks.points, landmarks.points), np.inf), axis=1)
    assert landmarks.spread(landmarks.points, landmarks.group, 4) == pytest.approx(own[:, 3])
    fresh = rng.normal(size=(20, 3))
    assert one.spread(fresh, np.zeros(20, dtype=int), 4) == pytest.approx(np.sort(cdist(fresh, one.points), axis=1)[:, 3])


def test_local_entropy_is_scipy_s_over_the_neighbours_labels() -> None:
    rng = np.random.default_rng(2)
    points, label = rng.normal(size=(200, 2)), rng.integers(0, 3, 200)
    landmarks = Landmarks.among(cloud(points, label), 10_000)
    order = np.argsort(cdist(landmarks.points, landmarks.points) + np.where(np.eye(200), np.inf, 0), axis=1)[:, :15]
    wanted = [shannon(np.bincount(label[near], minlength=3), base=2) for near in order]
    assert landmarks.entropy(landmarks.points, 15) == pytest.approx(wanted)


def test_thinned_classes_count_in_full() -> None:
    """Labels by a fair coin of 9 : 1 mix everywhere alike: thinning the common class to the rare one's size must not make it 1 : 1."""
    rng = np.random.default_rng(3)
    points, label = rng.normal(size=(6000, 2)), (rng.random(6000) < 0.1).astype(int)
    whole, few = (Landmarks.among(cloud(points, label), cap) for cap in (10_000, 1200))
    assert len(few.points) < 1500
    wanted, found = (landmarks.entropy(landmarks.points, 60).mean() for landmarks in (whole, few))
    assert found == pytest.approx(wanted, abs=0.05)
    assert found < 0.55


def test_many_columns_lie_on_their_leading_axes() -> None:
    """Forty columns that two numbers make: distances are kept, and a row's place does not depend on its company."""
    rng = np.random.default_rng(4)
    points = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 40))
    landmarks = Landmarks.among(cloud(points, np.zeros(300, dtype=int)), 10_000)
    encoded = landmarks.encoder.encode(landmarks.table)
    assert landmarks.points.shape == (300, AXES)
    kept = np.corrcoef(cdist(landmarks.points, landmarks.points).ravel(), cdist(encoded, encoded).ravel())[0, 1]
    assert kept > 0.999
    assert np.array_equal(landmarks.place(landmarks.table.slice(17, 1)), landmarks.points[17:18])


def test_edges_lie_between_scores_and_leave_the_share_above() -> None:
    scores = np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 5.0, 5.0])
    group = np.array([0] * 8 + [1] * 2)
    assert upper(scores, group, 3, 0.4, 2).tolist() == [2.5, np.inf, np.inf]
    assert upper(scores, group, 3, 0.6, 2)[0] == 0.5
    assert upper(scores, group, 3, 0.4, 9).tolist() == [np.inf] * 3


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_no_row_lies_on_an_edge_and_no_other_edge_comes_nearer_to_the_share(found: list[tuple[int, int]], share: float) -> None:
    group, scores = np.array(found).T
    edges = upper(scores.astype(float), group, 3, share, 1)
    for g in range(3):
        own = scores[group == g]
        assert not (own == edges[g]).any()
        cuts = [abs((own > cut).mean() - share) for cut in np.unique(own)[:-1]]
        assert np.isinf(edges[g]) == (not cuts)
        assert not cuts or abs((own > edges[g]).mean() - share) == pytest.approx(min(cuts))


# --- the rules


def test_sparse_finds_the_quarter_of_the_lowest_density() -> None:
    points, fresh = mixture(), mixture(seed=1)
    data, other = (cloud(rows, np.zeros(len(rows), dtype=int)) for rows in (points, fresh))
    rule = Sparse(k=20).fit(data)
    edge = np.quantile(density(points, rule.landmarks.points), 0.25)
    for rows, table in ((points, data.table()), (fresh, other.table())):
        stratum = rule.assign(table, np.zeros(len(rows), dtype=np.int64))
        assert stratum.mean() == pytest.approx(0.25, abs=0.03)
        assert (density(rows, rule.landmarks.place(table))[stratum == 1] < edge).mean() > 0.8


def test_mahalanobis_distances_are_scipy_s_with_the_shrunk_covariance() -> None:
    rng = np.random.default_rng(5)
    data = cloud(rng.normal(size=(80, 3)) @ rng.normal(size=(3, 3)), np.zeros(80, dtype=int))
    landmarks = Landmarks.among(data, 1000)
    covariance = np.cov(landmarks.points, rowvar=False)
    inverse = np.linalg.inv((1 - SHRINK) * covariance + SHRINK * np.trace(covariance) / 3 * np.eye(3))
    wanted = [mahalanobis(point, landmarks.points.mean(axis=0), inverse) for point in landmarks.points]
    assert thinness(landmarks, landmarks.points, landmarks.group, Sparse(metric="mahalanobis")) == pytest.approx(wanted)


def test_entropy_cuts_where_two_classes_meet() -> None:
    rng = np.random.default_rng(6)
    x = rng.uniform(-3, 3, 1200)
    label = (rng.random(1200) < 1 / (1 + np.exp(-4 * x))).astype(int)
    data = cloud(np.column_stack([x, rng.normal(size=1200) * 0.1]), label)
    stratum = Entropy(share=0.3).fit(data).assign(data.table(), groups_of(data))
    assert np.abs(x[stratum == 1]).max() < 2
    assert np.abs(x[stratum == 0]).mean() > 1.2
    for group in (0, 1):
        assert stratum[label == group].mean() == pytest.approx(0.3, abs=0.1)


def test_groups_of_one_entropy_and_small_groups_stay_whole() -> None:
    rng = np.random.default_rng(7)
    label = np.repeat([0, 1], [300, 30])
    data = cloud(rng.normal(size=(330, 2)) + 50 * label[:, None], label)
    for rule in (Entropy().fit(data), Sparse().fit(data), Clusters().fit(data)):
        assert not rule.assign(data.table(), groups_of(data))[label == 1].any()
    assert not Entropy().fit(data).assign(data.table(), groups_of(data)).any()


def test_clusters_of_each_group_are_found_largest_first() -> None:
    rng = np.random.default_rng(8)
    part = np.repeat([0, 1, 2], [200, 120, 60])
    label = (np.arange(380) % 2).astype(int)
    data = cloud(rng.normal(size=(380, 2)) + 12 * np.column_stack([part == 1, part == 2]), label)
    stratum = Clusters(many=3).fit(data).assign(data.table(), groups_of(data))
    assert np.array_equal(stratum, part)


def test_rows_of_no_group_are_in_the_first_stratum() -> None:
    table, schema, regions = mixed_table(300)
    items = tuple(Region(str(g), g, 0, int(rows)) for g, rows in enumerate(regions.group_counts))
    data = FitData.of(table, schema, Regions(items, regions.mix), seed=0)
    for name in ("sparse", "entropy", "clusters"):
        rule = type(make("strata", name)).tiny().fit(data)
        assert not rule.assign(table, np.full(len(table), -1)).any()


@pytest.mark.parametrize("text", ["sparse:share=1.5", "sparse:metric=cosine", "entropy:k=0", "clusters:many=1"])
def test_settings_that_cut_nothing_are_refused(text: str) -> None:
    with pytest.raises(SettingError):
        make("strata", text)
