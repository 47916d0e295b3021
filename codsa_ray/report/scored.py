"""Scored: scores and losses of what was compared, out of fold and on the test rows, each read and corrected once; judges nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codsa_ray.candidates import Candidate
from codsa_ray.errors import InternalError
from codsa_ray.folder import Folder
from codsa_ray.judge import Decision, test_scores, title
from codsa_ray.outcomes import Table, Truth, forms, losses, read_outcome, read_truth

Pair = tuple[Candidate, str]


@dataclass(frozen=True)
class Scored:
    """What every part of the report that compares candidates stands on.

    Args:
        table: outcomes of the search, with out-of-fold scores and losses.
        decision: what was compared and what was chosen.
        judged: folder of the final candidates' test scores.
        classes: C, or 0 for tasks without classes.
    """

    table: Table
    decision: Decision
    judged: Folder
    classes: int
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def task(self) -> str:
        """classification, regression or anomaly."""
        return self.table.task

    @property
    def mix(self) -> np.ndarray:
        """(G,) target mix."""
        return self.table.mix

    @property
    def truth(self) -> Truth:
        """The out-of-fold rows."""
        if self.table.truth is None:
            raise InternalError("wanted scores of at least one candidate; got none; run the search first")
        return self.table.truth

    @property
    def test(self) -> Truth:
        """The test rows."""
        return self._once("test", lambda: read_truth(self.judged))

    @property
    def plain(self) -> Pair:
        """The learner as it is; the best without synthesis where that could not be scored."""
        found = ((c, form) for c, form in self.decision.entries if c.kind == "plain" and c.fits == 1)
        return next(found, self.decision.base)

    @property
    def synthetic(self) -> Pair | None:
        """The verdict's candidate where it is one with synthesis, else the best with synthesis, if any was scored."""
        chosen = self.decision.chosen
        return chosen if chosen[0].level(chosen[1]) == "augment" else self.decision.best

    def losses(self, pair: Pair) -> np.ndarray:
        """(n,) float64 out-of-fold losses."""
        return self.decision.losses[:, self.decision.entries.index(pair)].astype(np.float64)

    def scores(self, pair: Pair) -> np.ndarray:
        """Out-of-fold scores, calibrated where the form is by the other folds' rows."""
        candidate, form = pair
        outcome = self.table.outcomes[candidate.id]
        return self._once(("scores", candidate.id), lambda: forms(outcome, self.truth, self.task, self.classes, self.mix))[form]

    def test_scores(self, pair: Pair) -> np.ndarray | None:
        """Scores of the test rows; None where the candidate was not fitted on all training rows, or could not be."""
        return self._once(("test scores", pair[0].id, pair[1]), lambda: self._test_scores(*pair))

    def test_losses(self, pair: Pair) -> np.ndarray | None:
        """(n,) float64 losses of the test rows; None where there are no scores."""
        scores = self.test_scores(pair)
        return None if scores is None else losses({"": scores}, self.test, self.task, self.classes, self.table.loss)[""]

    def refused(self, pair: Pair) -> str | None:
        """Why a final fit failed; None where it did not."""
        final = read_outcome(self.judged, pair[0])
        return f"{title(*pair)} could not be fitted on all training rows: {final.failed}" if final and final.failed else None

    def _test_scores(self, candidate: Candidate, form: str) -> np.ndarray | None:
        final = read_outcome(self.judged, candidate)
        if final is None or final.failed:
            return None
        return test_scores(self.table.outcomes[candidate.id], final, form, self.truth, self.task, self.mix)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]
