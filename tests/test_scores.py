"""Scores of classifiers in closed form."""

import numpy as np
import pytest

from codsa_ray.errors import CandidateError
from codsa_ray.scores import LEAST, OneClass, log_probabilities


def test_clipped_then_normalised():
    """Probabilities below LEAST are raised to it, classes without rows get it, and each row sums to 1 again."""
    scores = log_probabilities(np.array([[0.0, -50.0], [np.log(0.75), np.log(0.25)]]), np.array([2, 0]), 3)
    total = 1 + 2 * LEAST
    assert np.allclose(np.exp(scores[0]), np.array([LEAST, LEAST, 1.0]) / total, rtol=1e-9)
    assert np.allclose(np.exp(scores[1]), np.array([0.25, LEAST, 0.75]) / (1 + LEAST), rtol=1e-9)
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-15)


def test_a_common_term_and_infinities_do_not_matter():
    """Logits are up to a constant per row; minus infinity is the clip."""
    logits = np.array([[1.0, -np.inf, 3.0]])
    scores = log_probabilities(logits, np.arange(3), 3)
    assert np.allclose(scores, log_probabilities(logits + 1e4, np.arange(3), 3), atol=1e-9)
    assert np.isfinite(scores).all()


def test_what_is_not_a_number_is_a_reason():
    with pytest.raises(CandidateError, match="1 of 2 rows"):
        log_probabilities(np.array([[0.0, np.nan], [0.0, 0.0]]), np.arange(2), 2)


def test_one_class_is_almost_sure():
    scores = OneClass(1, 3).scores(np.zeros((2, 5)))
    assert np.allclose(np.exp(scores), np.array([[LEAST, 1, LEAST]] * 2) / (1 + 2 * LEAST))
