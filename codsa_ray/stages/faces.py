"""Faces: what Ray Tune asks of a search, answered by its feed; knows no trial. Imported once Ray is: it is slow to load."""

from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

if TYPE_CHECKING:
    from codsa_ray.stages.search import Feed

METRIC = "done"


class Ask(Searcher):
    """The next candidate."""

    def __init__(self, feed: "Feed | None") -> None:
        super().__init__(metric=METRIC, mode="min")
        self.feed = feed
        self.asked: dict[str, str] = {}

    def __reduce__(self) -> Any:
        # Tune pickles its searcher for a restore of its own; ours is the stored outcomes, so the copy may be empty.
        return Ask, (None,)

    def suggest(self, trial_id: str) -> Any:
        """A trial's settings; a trial that rests while a batch ends."""
        assert self.feed is not None, "a restored searcher is never asked"
        candidate = self.feed.following()
        if candidate is None:
            return Searcher.FINISHED if self.feed.ended else {"rest": sorted(self.feed.waiting)}
        self.asked[trial_id] = candidate.id
        return {"candidate": candidate.to_json(), "reference": self.feed.reference and self.feed.reference.to_json()}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Tells the feed."""
        assert self.feed is not None
        if error:
            self.feed.stop()
        elif trial_id in self.asked:
            self.feed.finished(self.asked[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """The journal is the outcomes themselves."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Hours(Stopper):
    """Whether the run's time is over; Tune asks all the while."""

    def __init__(self, feed: "Feed | None") -> None:
        self.feed = feed

    def __reduce__(self) -> Any:
        return Hours, (None,)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial ends for what it reports."""
        return False

    def stop_all(self) -> bool:
        """Ends the trials that run."""
        return self.feed is not None and self.feed.over()
