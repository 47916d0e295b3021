"""Pages of benchmarks: what few faults and few splits can say is said, and no more."""

from typing import Any

import numpy as np

from benchmarks.reliability import bound, counted
from benchmarks.repeated import above, below, critical


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
