"""Codec lessons: the trainings that teach codecs, one after another behind one worker's checkpoints; knows no diffusion.

What a lesson gave is written to the worker's folder when it ends. So a fit that died goes on with the lesson it was in, and reads what
came of those before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from codsa_ray.contracts import Worker
from codsa_ray.fitdata import REGION, known_share
from codsa_ray.nn.phases import Phase
from codsa_ray.nn.row_loss import natural, needed
from codsa_ray.nn.train import Training
from codsa_ray.nn.vector_codecs import VectorCodec, arrays_of, carried, trained
from codsa_ray.regions import Regions
from codsa_ray.seeds import seed_of

TAUGHT = "codecs"
"""Folder of what lessons gave."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """One training of one codec.

    Args:
        name: of its checkpoints and of its file.
        column: that the codec is of.
        learned, held: (values that are not null, cumulative share of each in a batch).
        training: how long and how fast.
        seed: of its batches.
    """

    name: str
    column: str
    learned: tuple[pa.Array, Tensor]
    held: tuple[pa.Array, Tensor]
    training: Training
    seed: int

    @staticmethod
    def of(name: str, column: str, rows: tuple[pa.Table, pa.Table], regions: Regions, training: Training, seed: int) -> "Lesson | None":
        """Of (learned, held-out) rows sorted by region, the latter weighted as balance would draw regions; None where no value is."""

        def values(table: pa.Table, share: Callable[[np.ndarray], Tensor]) -> tuple[pa.Array, Tensor]:
            table = table.filter(table[column].is_valid())
            return table[column].combine_chunks(), share(table[REGION].to_numpy().astype(np.int64))

        known = known_share(rows[0], column, len(regions))
        learned = values(rows[0], lambda region: natural(region, np.zeros(len(region), dtype=bool), regions, known))
        if not len(learned[0]):
            return None
        return Lesson(name, column, learned, values(rows[1], lambda region: needed(region, regions)), training, seed)


@dataclass(frozen=True, eq=False)
class Lessons:
    """All of them, in order.

    Args:
        items: the lessons; codecs of several go on from what the one before gave.
        shake: standard deviation of the noise on vectors.
        batch: rows of a step.
        after: name of the training that follows.
    """

    items: tuple[Lesson, ...]
    shake: float
    batch: int
    after: str

    @property
    def steps(self) -> int:
        """Of all lessons, at most."""
        return sum(lesson.training.steps for lesson in self.items)

    def given(self, codecs: dict[str, VectorCodec], worker: Worker) -> tuple[dict[str, VectorCodec], dict[str, Any]]:
        """(the codecs, taught and frozen; what came of each lesson, by name: step and history)."""
        saved = worker.resume()
        phase, first = "" if saved is None else saved[2]["phase"], 0
        names = [*(lesson.name for lesson in self.items), self.after]
        done = names.index(phase) if phase in names else 0
        told = dict(saved[2]["before"]) if saved is not None and done else {}
        for place, lesson in enumerate(self.items):
            codec = codecs[lesson.column]
            if place < done:
                codec = carried(codec, worker.folder.read_arrays(f"{TAUGHT}/{lesson.name}.safetensors"), worker.device)
            else:
                codec, told = self._taught(codec, lesson, Phase.of(worker, lesson.name, first, told))
            codecs = codecs | {lesson.column: codec}
            first += lesson.training.steps
        return codecs, told

    def _taught(self, codec: VectorCodec, lesson: Lesson, phase: Phase) -> tuple[VectorCodec, dict[str, Any]]:
        taught, found = trained(codec, lesson.learned, lesson.held, self.shake, self.batch, lesson.training, phase, lesson.seed)
        if phase.rank == 0:
            phase.folder.write_arrays(f"{TAUGHT}/{lesson.name}.safetensors", arrays_of(taught))
        return taught, phase.before | {lesson.name: {"step": found.step, "history": found.history}}


def lessons_of(
    column: str,
    place: int,
    own: tuple[tuple[pa.Table, pa.Table], Regions, int],
    source: tuple[tuple[pa.Table, pa.Table], Regions, int] | None,
    trainings: tuple[Training, Training, Training],
) -> list[Lesson]:
    """Of one column: by the source and then by the rows themselves, or by these alone.

    Args:
        column, place: its name, and its number among those with a codec.
        own, source: ((learned, held-out) rows, regions, seed).
        trainings: on the source; of what the source taught, on the rows themselves (of 0 steps: not at all); on these alone.
    """
    before, tuned, alone = trainings
    found = []
    if source is not None:
        taught = Lesson.of(f"{place}-source", column, source[0], source[1], before, seed_of(source[2], "codec", place))
        found += [taught] if taught is not None else []
    training = tuned if found else alone
    if training.steps:
        own_ = Lesson.of(f"{place}-own", column, own[0], own[1], training, seed_of(own[2], "codec", place))
        found += [own_] if own_ is not None else []
    return found
