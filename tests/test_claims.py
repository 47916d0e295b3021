"""A quick subset of `make claims`: closed forms, a few repetitions, and the page."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import claims
from benchmarks.claims import Claim, Line, measured, page
from benchmarks.results import Results

vtss = pytest.importorskip("benchmarks.claims_vtss")
end = pytest.importorskip("benchmarks.claims_vtss_end")
MODULES = (vtss, end)


def lines() -> list[Line]:
    return [Line("a", ".1", 0.123456, 0.01, True), Line("b", "", 2.0, None, False, "why"), Line("control", "", 1.0)]


def test_a_measured_claim_is_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RESULTS", Results("claims", tmp_path))
    asked: list[int] = []

    def measure() -> list[Line]:
        asked.append(1)
        return lines()

    claim = Claim("one", "Somebody 2020", "It helps.", measure)
    assert "Not measured yet: `python -m benchmarks.claims one`" in page([claim])
    assert measured(claim) == measured(claim)
    assert asked == [1]
    shown = page([claim])
    for row in ("| a | .1 | 0.1235 ± 0.01 | yes |  |", "| b |  | 2 | no | why |", "| control |  | 1 |  |  |"):
        assert row in shown
    assert "It helps. Somebody 2020." in shown


def test_every_claim_has_a_name_of_its_own_and_the_page_renders() -> None:
    found = [claim for module in MODULES for claim in module.CLAIMS]
    assert len({claim.name for claim in found}) == len(found)
    text = page(found)
    assert all(f"## {claim.name}" in text and claim.says in text for claim in found)


def test_every_claim_says_when_a_line_of_it_holds() -> None:
    assert all(claim.rule for claim in claims.found())


def test_the_floors_of_a_biased_generator_in_closed_form() -> None:
    assert vtss.floor(0.5, 1) == pytest.approx(0.01617, abs=5e-6)
    assert vtss.floor(0.5, 2) == pytest.approx(0.00311, abs=5e-6)
    assert vtss.floor(0.5, 4) == pytest.approx(0, abs=1e-12)
    known = {10: 0.03852, 100: 0.01303, 200: 0.01054, 300: 0.00944, 400: 0.00878, 500: 0.00831}
    assert [vtss.floor(vtss.aligned(n), 1) for n in known] == pytest.approx(list(known.values()), abs=5e-6)


def test_our_grid_reaches_what_the_published_one_misses() -> None:
    """Two repetitions of S1."""
    found = list(vtss.biased_generator(repeats=2, n1=50))
    assert all(line.holds is not False for line in found)
    by_name = {line.what: line.ours for line in found}
    assert by_name["largest size over the gap in our grid"] == 4
    assert by_name["largest size over the gap in the published grid"] == 2


def test_smote_hurts_and_rows_of_the_truth_help_under_symmetry() -> None:
    """Four repetitions of S3 (published: .0045 without, .096 SMOTE, .0010 oracle)."""
    found = {line.what: line.ours for line in vtss.mean_shift(repeats=4)}
    assert found["gamma 4, oracle, 4 repetitions"] < found["gamma 0, 4 repetitions"] < found["gamma 4, SMOTE, 4 repetitions"]
    assert found["gamma 4, SMOTE, 4 repetitions"] == pytest.approx(0.096, rel=0.4)


def test_the_published_score_flags_perfect_generators_and_ours_does_not() -> None:
    score, ours, p = vtss.flags(50, 80)
    assert np.mean(score > 10) > 0.5
    assert np.mean(p <= 0.05) <= 0.14
    assert abs(ours.mean()) < 4 * ours.std() / np.sqrt(80)


def test_the_symmetry_tests_differ_at_few_rare_rows() -> None:
    published, ours = vtss.sizes_of_symmetry(10, 50, 5, 150)
    assert published > 0.2 > 0.12 > ours


def test_cancelling_gradients_vanish_at_the_same_place() -> None:
    """S4's two class gradients at e1, on 200,000 rows."""
    X, y = vtss.cancelling(200_000, np.random.default_rng(0))
    gap = vtss.BARE.gradients(np.eye(20)[0], X[~y], 0).mean(0), vtss.BARE.gradients(np.eye(20)[0], X[y], 1).mean(0)
    assert np.abs(gap[0]).max() < 0.02
    assert np.abs(gap[1]).max() < 0.02


def test_every_line_of_the_perceptrons_claim_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end, "EPOCHS", 1)
    monkeypatch.setattr(end, "COSTS", (1.0, 8.0))
    monkeypatch.setattr(end, "SIZES", np.array([0.0, 1.0]))
    found = {line.what for line in end.perceptron(repeats=2)}
    assert {"control: raw, offset", "control: raw, offset and calibration", "jitter, offset and calibration"} <= found


def test_ranks_give_the_chance_that_an_odd_row_scores_above_a_usual_one() -> None:
    anomaly = pytest.importorskip("benchmarks.claims_anomaly")
    rng = np.random.default_rng(0)
    scores, odd = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.3
    above = [(a > b) + (a == b) / 2 for a in scores[odd] for b in scores[~odd]]
    assert anomaly.auc(scores, odd) == pytest.approx(np.mean(above))
    assert (anomaly.steps_of(0), anomaly.steps_of(12000)) == (530, 1468)
