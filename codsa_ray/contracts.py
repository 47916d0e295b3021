"""What a plug-in must be: the protocols of generators, strata, allocators and learners; knows no method and no cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa

from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

TABLE_KINDS = frozenset({"numeric", "integer", "categorical", "boolean", "datetime"})
TASKS = frozenset({"classification", "regression", "anomaly"})


@dataclass(frozen=True)
class Needs:
    """What a plug-in needs to run, and what it can take.

    Args:
        cpus, gpus, memory, accelerator: Ray resources of one worker (memory in bytes).
        block: rows a fitted generator draws at a time; part of what seeds mean, so changing it changes the rows.
        kinds: column kinds it handles; a table with another kind is refused with the column's name.
        tasks: tasks it handles.
        drawing: settings of a generator (fields with a default) that its fit does not depend on: those that differ in them alone share one.
        distributed: its fit may be spread over a TorchTrainer's workers.
        sharded: its model is cut over them, for none could hold it alone: it is spread however few the rows are.
        source: a generator that learns from FitData.source where there is one.
        offset: a learner that can train with a fixed (n, C) term added to its scores.
        holds_out: a learner that sets some of its rows aside: in bags, and of drawn rows that are copies, each row then comes once, weighed
            by how often it was drawn.
        negative: a learner that takes rows of negative weight, which subtract a loss (bias.py); the weights of every class still sum to
            more than 0. Many libraries take such weights without a word and minimise something else.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    accelerator: str | None = None
    block: int = 2048
    kinds: frozenset[str] = TABLE_KINDS
    tasks: frozenset[str] = TASKS
    drawing: tuple[str, ...] = ()
    distributed: bool = False
    sharded: bool = False
    source: bool = False
    offset: bool = False
    holds_out: bool = False
    negative: bool = False


class Worker(Protocol):
    """Where a fit runs. The local one has rank 0 of 1; the Ray Train one wraps modules for data parallelism."""

    rank: int
    world: int
    device: str
    folder: Folder

    def prepare(self, module: Any, make_optimizer: Any) -> tuple[Any, Any]:
        """The module placed on the device (and wrapped, but for one that is cut already), and make_optimizer(module.parameters())."""

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Checkpoints what the ranks bring, each under names of its own, with rank 0's meta; a barrier for all."""

    def resume(self) -> tuple[int, Mapping[str, np.ndarray], dict[str, Any]] | None:
        """The newest checkpoint, with the arrays of all ranks there were, or None; to be read before the next save or report."""

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Tells progress; a barrier for all workers."""


class FittedGenerator(Protocol):
    """Draws rows."""

    def block(self, region: int, seed: int) -> pa.Table:
        """Exactly `needs.block` canonical rows meant for the region.

        The table holds every schema column except `regions.constant_columns` (the caller writes those), in any order.
        The same (region, seed) gives the same bytes in any process. Rows that break a constraint or fall outside the
        region are redrawn by the caller with a further seed (draw.py).
        One that judges its own rows has `refused(table, region) -> {reason: (n,) bool}` beside this: these are redrawn alike, and counted.
        """


class Generator(Protocol):
    """Settings of a method that learns to draw rows of a region: a frozen dataclass of plain values.

    One that stands on more than DATA, such as a base by its path, may have `ready() -> None`, which raises SettingError where that is not
    there: it is asked in the driver before a run begins. So may a learner.
    """

    @property
    def needs(self) -> Needs:
        """Resources and limits."""

    def fit(self, data: FitData, worker: Worker) -> None:
        """Learns from fold-training rows and writes what `load` needs under worker.folder (rank 0 only writes)."""

    def load(self, folder: Folder) -> FittedGenerator:
        """The fitted generator; unpickles nothing."""

    @classmethod
    def tiny(cls) -> Self:
        """An instance whose fit takes under a second on a hundred rows, for conformance tests."""


class StrataRule(Protocol):
    """A learned rule that cuts groups into strata."""

    @property
    def strata(self) -> int:
        """How many strata each group has at most."""

    def assign(self, table: pa.Table, groups: np.ndarray) -> np.ndarray:
        """(n,) int32 stratum of each row, in [0, strata)."""

    def save(self, folder: Folder) -> None:
        """Writes what `Strata.load` needs."""


class Strata(Protocol):
    """Settings of a stratum rule."""

    def fit(self, data: FitData) -> StrataRule:
        """Learns the rule from fold-training rows; data.regions holds one region per group."""

    def load(self, folder: Folder) -> StrataRule:
        """The rule as it was saved."""

    @classmethod
    def tiny(cls) -> Self:
        """An instance for conformance tests."""


class Allocator(Protocol):
    """Settings of a rule that weighs regions.

    One that goes by more than counts also has `measure(data: FitData) -> (K,) float64 >= 0`: what it wants to know of each region, from the
    fold's training rows. `weights` finds it in `regions.measure`, which is empty where nobody measured. One that has to give way may have
    `notice(regions, size, row_weight) -> str | None` for the report.
    """

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1: how `size` synthetic rows of weight `row_weight` are shared out."""

    @classmethod
    def tiny(cls) -> Self:
        """An instance for conformance tests."""


class Encoder(Protocol):
    """Turns canonical rows into what a learner takes; learned on fold-training rows."""

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, ...) array whose first axis is rows; the same dtype and trailing shape for every table."""


class Predictor(Protocol):
    """A fitted learner."""

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities (classification), (n,) predictions (regression), (n,) log-odds of anomaly (anomaly)."""


class Learner(Protocol):
    """Settings of a model that the user cares about: a frozen dataclass of plain values.

    One with a last layer may have `retrained(X, y, weight, last, *, classes, seed) -> Predictor` beside `fit`: a classifier fitted on
    `weight`, whose last layer alone is then trained again on (n,) weights `last`. It is tried where there are groups beside the classes.
    """

    @property
    def needs(self) -> Needs:
        """Resources and limits."""

    def variants(self) -> tuple[Self, ...]:
        """The settings among which the search tunes it at size 0; the first is the default."""

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        """Learns the encoding of `schema.features` from fold-training rows. Must pickle."""

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        *,
        classes: int,
        seed: int,
        offset: np.ndarray | None = None,
    ) -> Predictor:
        """Fits on encoded rows.

        Args:
            X: (n, ...) encoded rows.
            y: (n,) int64 class ids (classification) or float64 values (other tasks).
            weight: (n,) float64 > 0, or of any sign (needs.negative).
            classes: C for classification (a class may have no row: its probability is then about 0), else 0.
            seed: of everything random in the fit.
            offset: (n, C) fixed terms added to the scores while training and left out when predicting (needs.offset).
        """

    @classmethod
    def tiny(cls) -> Self:
        """An instance whose fit takes under a second on a hundred rows, for conformance tests."""


class Task(Protocol):
    """Turns scores and truth into per-row losses."""

    @property
    def name(self) -> str:
        """classification, regression or anomaly."""

    def losses(self, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) float64."""


class Progress(Protocol):
    """Where a stage tells how far it is."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total`; a total of 0 makes the note a remark of its own."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """A progress that nobody watches."""
