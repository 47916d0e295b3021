"""Measures of drawn pictures: against closed forms, and pictures of which it is known what is wrong with them."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from codsa_ray.audit.coverage import covered
from codsa_ray.audit.picture_quality import MEASURES, frechet, picture_quality
from codsa_ray.fitdata import REGION
from codsa_ray.picture import encoded
from codsa_ray.schema import Column, Schema

SCHEMA = Schema((Column("scan", "image", "binary"), Column("y", "categorical", "string", categories=("a", "b"))), "y", "classification")


def rows(pictures: np.ndarray, region: np.ndarray) -> pa.Table:
    files = [encoded(picture[:, :, None].astype(np.uint8)) for picture in pictures]
    return pa.table({"scan": pa.array(files, pa.binary()), "y": np.array(["a", "b"])[region], REGION: region.astype(np.int32)})


def parts() -> list[tuple[np.ndarray, np.ndarray]]:
    """Ones and sevens: 200 to train on, 80 that are held out, 80 more; 8 x 8."""
    flat, label = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero((label == 1) | (label == 7)))[:360]
    pictures, region = flat[chosen].reshape(-1, 8, 8) * 15.9, (label[chosen] == 7).astype(int)
    return [(pictures[part], region[part]) for part in np.split(np.arange(360), [200, 280])]


(REAL, HELD, MORE) = parts()


def measured(pictures: np.ndarray, region: np.ndarray) -> dict[str, float]:
    found = picture_quality(rows(*REAL), rows(*HELD), rows(pictures, region), SCHEMA, 0)
    assert set(found) == set(MEASURES)
    return {key: value for key, value in found.items() if value is not None}


def test_pictures_of_the_truth_are_as_real_ones_by_every_measure() -> None:
    found = measured(*MORE)
    assert found["frechet"] < 2.5 * found["frechet_real"]
    assert found["judged"] == pytest.approx(found["judged_real"], abs=0.1)
    assert found["judged_real"] > 0.75
    assert found["picture_precision"] == pytest.approx(found["picture_fresh"], abs=0.15)
    assert found["picture_recall"] > 0.7


def test_noise_is_far_and_other_regions_pictures_are_judged_so() -> None:
    truth, noise = measured(*MORE), np.random.default_rng(1).uniform(0, 255, MORE[0].shape)
    assert measured(noise, MORE[1])["frechet"] > 4 * truth["frechet"]
    swapped = measured(MORE[0], 1 - MORE[1])
    assert swapped["judged"] < 0.25 < 0.75 < truth["judged"]


def test_one_picture_over_and_over_covers_few_real_ones() -> None:
    pictures = MORE[0].copy()
    for k in (0, 1):
        pictures[MORE[1] == k] = pictures[MORE[1] == k][0]
    found = measured(pictures, MORE[1])
    assert found["picture_recall"] < 0.2
    assert found["picture_precision"] > 0.5


def test_the_distance_of_two_gaussians_is_the_closed_form() -> None:
    """Of commuting covariances: |m - n|^2 + sum (s_i - t_i)^2."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 3))
    z = (z - z.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False, ddof=0)).T)
    one, other = z * [1.0, 2.0, 3.0], z * [2.0, 2.0, 0.5] + [1.0, 0.0, -2.0]
    assert frechet(one, other) == pytest.approx(1 + 4 + 1 + 0 + 2.5**2, rel=1e-9)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    flat = one * [1.0, 0.0, 0.0]
    assert frechet(one, flat) == pytest.approx(4 + 9, rel=1e-9)


def test_what_lies_among_others_is_by_their_nearest() -> None:
    line = np.arange(10.0)[:, None]
    within = np.abs(line - line.T)
    assert covered(within, within) == 1.0
    assert covered(within, np.abs(line - [[4.5, 100.0]])) == 0.5


def test_few_pictures_one_region_and_none_at_all_say_nothing() -> None:
    few = picture_quality(rows(*REAL), rows(HELD[0][:5], HELD[1][:5]), rows(*MORE), SCHEMA, 0)
    assert few == dict.fromkeys(MEASURES)
    one = [rows(pictures, np.zeros_like(region)) for pictures, region in (REAL, HELD, MORE)]
    assert picture_quality(*one, SCHEMA, 0) == dict.fromkeys(MEASURES)
    plain = Schema(SCHEMA.columns[1:], "y", "classification")
    assert picture_quality(rows(*REAL), rows(*HELD), rows(*MORE), plain, 0) == {}
