"""Boost: trees trained on augmented/ from disk, in one process or by a Ray Train XGBoostTrainer; decides and draws nothing."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

from codsa_ray.contracts import Progress
from codsa_ray.encode import Ordinal
from codsa_ray.errors import CandidateError
from codsa_ray.filesystem import filesystem_of
from codsa_ray.folder import Folder
from codsa_ray.learners.boosted import Boosted, Classifier, objective_of
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass
from codsa_ray.seeds import rng_of, seed_of
from codsa_ray.stages.cluster import spread

Page = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pages:
    """Encoded rows of one fit, a file of augmented/ at a time.

    Args:
        folder: augmented/.
        files: names, in order.
        schema: of the rows.
        encoder: of the features.
        draw: whose drawn rows are taken beside the real ones.
        bag: index of a bag's fit, or -1: each row then counts a Poisson number of times (online bagging; Oza & Russell 2001), which is what
            a bootstrap sample comes to as rows grow, without holding them.
        seed: of the bags.
    """

    folder: Folder
    files: tuple[str, ...]
    schema: Schema
    encoder: Ordinal
    draw: int = 0
    bag: int = -1
    seed: int = 0

    def page(self, file: str) -> Page:
        """(X, class ids, weights) of the file's rows that weigh something."""
        table = self.folder.read_table(file)
        weight = table["_weight"].to_numpy().astype(np.float64)
        weight = np.where(np.isin(table["_draw"].to_numpy(), (-1, self.draw)), weight, 0.0)
        if self.bag >= 0:
            weight = weight * rng_of(self.seed, "bag", self.bag, file).poisson(1.0, len(weight))
        table, weight = table.filter(weight > 0), weight[weight > 0]
        canonical, _ = self.schema.canonical(table)
        return self.encoder.encode(canonical), self.schema.truth(table), weight


@dataclass(frozen=True)
class Totals:
    """What a fit has to know of all its rows before its first tree.

    Args:
        classes: (C,) weight of each class.
        squares: sum of squared weights.
        files: that hold a row of the fit; a worker with none but others would have nothing to begin with.
    """

    classes: np.ndarray
    squares: float
    files: tuple[str, ...]

    @staticmethod
    def of(pages: Pages, workers: int) -> "Totals":
        """Summed file by file, in the order of the files whatever the workers."""
        found = dict(spread(pages.files, lambda: partial(_totals, pages), workers, here=workers == 1))
        parts = [found[index] for index in range(len(pages.files))]
        classes, squares = np.sum([part.classes for part in parts], axis=0), float(np.sum([part.squares for part in parts]))
        return Totals(classes, squares, tuple(file for part in parts for file in part.files))

    @property
    def factor(self) -> float:
        """Of all weights, so that they sum to the effective number of rows (see Boosted)."""
        return float(self.classes.sum() / self.squares)


def _totals(pages: Pages, file: str) -> Totals:
    _, y, weight = pages.page(file)
    classes = np.bincount(y, weight, minlength=len(pages.schema.classes))
    return Totals(classes, float(np.square(weight).sum()), (file,) if len(y) else ())


class _Stream(xgb.DataIter):
    """XGBoost's own iterator over pages; what it makes of them lies in files beside `cache`."""

    def __init__(self, pages: Pages, files: tuple[str, ...], present: np.ndarray, start: np.ndarray, factor: float, cache: str) -> None:
        super().__init__(cache_prefix=cache)
        self.pages, self.files, self.present, self.start, self.factor = pages, files, present, start, factor
        self.rest: Iterator[str] = iter(())

    def reset(self) -> None:
        """From the first file."""
        self.rest = iter(self.files)

    def next(self, input_data: Any) -> bool:
        """Hands over the next file that has rows; False after the last."""
        for file in self.rest:
            X, y, weight = self.pages.page(file)
            if len(y):
                margin = np.tile(self.start, (len(y), 1)) if len(self.start) > 2 else np.full(len(y), self.start[1] - self.start[0])
                labels = np.searchsorted(self.present, y)
                input_data(data=X, label=labels, weight=weight * self.factor, base_margin=margin)
                return True
        return False


@dataclass(frozen=True)
class Fit:
    """One fit of trees."""

    learner: Boosted
    pages: Pages
    seed: int

    def train(self, totals: Totals, workers: int, store: Folder) -> Classifier | OneClass:
        """Trains from disk; over several workers each holds every `workers`-th file.

        Raises:
            CandidateError: XGBoost refuses the rows.
        """
        present = np.flatnonzero(totals.classes > 0)
        if len(present) == 1:
            return OneClass(int(present[0]), len(totals.classes))
        shares = np.log(totals.classes[present] / totals.classes.sum())
        start = shares - shares.mean()
        mine = replace(self, pages=replace(self.pages, files=totals.files))
        workers = min(workers, len(totals.files))
        if workers > 1:
            trees = _distributed(mine, present, start, totals.factor, workers, store)
        else:
            trees = mine.trees(totals.files, present, start, totals.factor)
        return Classifier(trees, start, present, len(totals.classes))

    def trees(self, files: tuple[str, ...], present: np.ndarray, start: np.ndarray, factor: float) -> bytes:
        """XGBoost's own binary format; in a worker, of the trees that all workers share."""
        with tempfile.TemporaryDirectory() as place:
            try:
                stream = _Stream(self.pages, files, present, start, factor, str(Path(place) / "page"))
                rows = xgb.ExtMemQuantileDMatrix(stream, nthread=1)
                parameters = self.learner.parameters(objective_of(len(present)), self.seed)
                return bytes(xgb.train(parameters, rows, num_boost_round=self.learner.rounds).save_raw("ubj"))
            except xgb.core.XGBoostError as error:
                raise CandidateError(f"xgboost: {str(error).splitlines()[0]}") from error


def _loop(config: dict[str, Any]) -> None:
    from ray import train

    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    fit: Fit = config["fit"]
    trees = fit.trees(fit.pages.files[rank::world], config["present"], config["start"], config["factor"])
    if rank == 0:
        config["store"].write_bytes("trees.ubj", trees)


def _distributed(fit: Fit, present: np.ndarray, start: np.ndarray, factor: float, workers: int, store: Folder) -> bytes:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.xgboost import XGBoostTrainer

    # By size, so that no worker has the large files alone.
    sizes = fit.pages.folder.sizes()
    files = tuple(sorted(fit.pages.files, key=lambda name: (-sizes[name], name)))
    fit = replace(fit, pages=replace(fit.pages, files=files))
    keeps, place = filesystem_of((store / "train").address)
    trainer = XGBoostTrainer(
        _loop,
        train_loop_config={"fit": fit, "present": present, "start": start, "factor": factor, "store": store},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="trainer", storage_path=place, storage_filesystem=keeps, failure_config=FailureConfig(max_failures=2)),
    )
    trainer.fit()
    trees = store.read_bytes("trees.ubj")
    store.delete("train")
    store.delete("trees.ubj")
    return trees


def boost(
    learner: Boosted, pages: Pages, draws: int, bags: int, workers: int, store: Folder, progress: Progress
) -> list[Classifier | OneClass]:
    """A fit per draw of augmented/, or per bag.

    Args:
        learner: its settings.
        pages: all files.
        draws, bags: how many; the larger one is more than 1 at most.
        workers: 1 trains in this process; more side by side on each fit.
        store: a folder that all workers reach.
        progress: told how far it is.
    """
    found = []
    for index in range(max(draws, bags)):
        mine = replace(pages, draw=index if draws > 1 else 0, bag=index if bags > 1 else -1)
        found.append(Fit(learner, mine, seed_of(pages.seed, "boost", index)).train(Totals.of(mine, workers), workers, store))
        progress("train", index + 1, max(draws, bags))
    return found
