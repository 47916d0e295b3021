"""Pages of benchmarks: what few faults and few splits can say is said, and no more."""

from typing import Any

import numpy as np
import pytest

from benchmarks.data import data_folder
from benchmarks.reliability import bound, counted
from benchmarks.repeated import above, below, critical
from benchmarks.results import Results
from benchmarks.verdicts import Judged, beside, reason
from benchmarks.where import beyond_chance, mean_of


def fault(**changed: Any) -> dict[str, Any]:
    attempts = [{"code": 1, "seconds": 10.0}, {"code": 0, "seconds": 60.0}]
    return {"attempts": attempts, "lost": 0, "doubled": 0, "differ": [], "whole": 58.0, **changed}


def test_no_harm_in_n_faults_is_told_with_its_upper_bound() -> None:
    """(1 - p)^n = .05: about 3 / n."""
    assert "at most 8.2% of these" in bound([fault()] * 35)
    assert bound([fault(), fault(lost=1), fault(differ=["verdict.json"])]) == "2 of 3 faults did harm."


def test_seconds_of_fewer_than_three_timings_are_not_told() -> None:
    assert counted([fault()] * 2)[-1] == "-"
    assert counted([fault()] * 3)[-1] == "12 (3)"


def test_few_repetitions_have_to_be_further_apart() -> None:
    """Student's t: of six repetitions 2.57 standard errors, of two 12.7."""
    assert [round(critical(n), 2) for n in (2, 3, 6, 1000)] == [12.71, 4.30, 2.57, 1.96]
    steps = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    error = steps.std(ddof=1) / np.sqrt(6)
    assert above(steps + 2.6 * error)
    assert not above(steps + 2.5 * error)
    assert below(steps, 2.6 * error - 0 * steps)
    assert not above(np.ones(1)), "one repetition says nothing"


class Measured:
    """A split of which two choices' losses are known."""

    def __init__(self, ours: float) -> None:
        self.test = {("ours", ""): ours, ("rival", ""): 0.0}

    def loss(self, key: tuple[str, str]) -> float:
        return 0.0


def test_two_splits_are_no_proof_and_five_may_be() -> None:
    def said(*losses: float) -> str:
        return reason([(Measured(loss), ("ours", ""), ("rival", "")) for loss in losses])  # type: ignore[arg-type, misc]

    assert said(0.026, 0.034).startswith("Not told apart")
    assert said(0.026, 0.034, 0.03, 0.031, 0.029).startswith("Real")


def test_two_rules_are_compared_cell_by_cell() -> None:
    """Regrets that differ tenfold between cells, and by one hundredth between rules: told apart, though neither mean is known well."""

    def judged(origin: str, regret: float) -> Judged:
        return Judged(origin, regret, 0.0, 0.0, 0.0, 0.0)

    cells = {(f"table {k}", "logistic"): (f"origin {k}", 0.1 * k) for k in range(10)}
    one = {cell: judged(origin, regret) for cell, (origin, regret) in cells.items()}
    other = {cell: judged(origin, regret + 0.01) for cell, (origin, regret) in cells.items()}
    found = beside({"one": one, "other": other}, "one", "other")
    assert found == 'Regret of "one" less that of "other", paired: -1.0% (-1.0% to -1.0%), told apart.'
    assert beside({"one": one, "same": one}, "one", "same").endswith("not told apart.")


def test_an_error_over_few_seeds_is_never_below_that_of_the_test_rows() -> None:
    """Two seeds that agree by chance: the paired test rows' error stays, and falls with the number of seeds."""
    cells = [{"gain": 0.10, "gain_se": 0.03}, {"gain": 0.10, "gain_se": 0.04}]
    assert mean_of(cells, "gain") == pytest.approx((0.10, 0.025))
    apart = [{"gain": 0.0, "gain_se": 0.01}, {"gain": 0.2, "gain_se": 0.01}]
    assert mean_of(apart, "gain") == pytest.approx((0.1, 0.1))


def test_of_many_settings_only_those_beyond_their_joint_chance_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holm: 20 settings, one 6 errors up, one 4 down, one 2.5 up, which alone among 20 is no news."""
    gains = iter([6.0, -4.0, 2.5] + [0.5] * 17)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    monkeypatch.setattr(Results, "named", lambda _, *names: found.setdefault(names, [{"gain": next(gains), "gain_se": 1.0}]))
    assert beyond_chance() == (
        "Of 20 settings the gain is beyond two errors in 2, and a loss in 1; "
        "with all 20 held to a joint level of 0.05 (Holm), 1 gains and 1 losses remain."
    )


@pytest.mark.parametrize("named", ["", "nowhere"])
def test_a_benchmark_without_its_data_ends_with_one_line(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODSA_DATA", named)
    with pytest.raises(SystemExit, match=f"wanted CODSA_DATA, the folder .*; got {named or 'nothing'}; set it"):
        data_folder()
