"""Training: the verdict's boosted trees on all of augmented/, which need not fit in memory; knows no tree."""

from typing import Any

import numpy as np

from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Progress, silent
from codsa_ray.correct import Correction
from codsa_ray.errors import SettingError
from codsa_ray.folder import Folder
from codsa_ray.kept import Kept
from codsa_ray.layout import TAR
from codsa_ray.learners.boosted import Boosted
from codsa_ray.manifest import MANIFEST, Manifest
from codsa_ray.model import Model
from codsa_ray.pipeline import reopened
from codsa_ray.plugins import identity, name_of
from codsa_ray.risk import Classification
from codsa_ray.rows import FINAL, GROUP
from codsa_ray.seeds import seed_of
from codsa_ray.stages.boost import Pages, boost
from codsa_ray.stages.cluster import connect

VERSION = 1
KINDS = ("plain", "weights", "synthetic")
"""Candidates whose training rows are those of augmented/ with their weights."""


def train_run(run_folder: str, address: str | None = None, workers: int = 1, progress: Progress = silent) -> dict[str, Any]:
    """Trains on augmented/ as it lies on disk, scores the test rows and writes RUN/model. Nothing holds all rows.

    Bags count rows by Poisson numbers (stages/boost.py), so that they need no sample of the rows in memory: alike, not equal, to the
    bags that were searched. The encoding is learned on the search's rows.

    Args:
        run_folder: of a finished run.
        address: see Job; used with several workers alone.
        workers: 1 trains in this process; more on one fit side by side, through Ray Train's XGBoostTrainer.
        progress: told how far it is.

    Returns:
        model (folder), candidate, rows (trained on), fits, test_rows, test_loss (balanced, of the verdict's candidate).

    Raises:
        FolderError: not a finished run. SettingError: another learner than boosted, or a verdict whose rows are not augmented/'s.
    """
    with reopened(run_folder) as kept:
        shipped = kept.decision.best[0] if kept.job.force and kept.decision.best else kept.decision.chosen[0]
        learner = _learner(kept, shipped)
        place, applied = kept.out / "model", (kept.out / "apply").read_json(MANIFEST)
        depends = [VERSION, applied["fingerprint"], kept.out.read_json("correction.json"), identity(learner), kept.job.seed, workers]
        manifest = Manifest.of(place, depends)
        if stored := manifest.read():
            return stored["facts"]
        manifest.clear()
        place.delete()
        if workers > 1:
            connect(address, workers)
        model = _trained(kept, shipped, learner, sorted(applied["files"]), workers, place, progress)
        loss, tested = test_loss(kept, model)
        facts = {"model": place.shown, "candidate": shipped.name, "rows": applied["rows_out"], "fits": len(model.fits)}
        facts |= {"test_rows": tested, "test_loss": loss}
        model.save(place, {"trained": facts})
        manifest.write(facts=facts)
        return facts


def _learner(kept: Kept, shipped: Candidate) -> Boosted:
    learner = kept.job.learner
    if not isinstance(learner, Boosted) or kept.bench.rows.schema(FINAL).task != "classification":
        got = f"{name_of(learner)} of a {kept.bench.rows.schema(FINAL).task}"
        raise SettingError("the learner boosted and a classification", got, "train on augmented/ with a library of your own")
    if kept.bench.rows.layout.form == TAR:
        raise SettingError("augmented/ as parquet", "tar files, as DATA was", "train on augmented/ with a library of your own")
    if shipped.kind not in KINDS:
        wanted = "a verdict whose training rows are augmented/'s (none, weights, bags of them, or synthesis)"
        raise SettingError(wanted, shipped.name, "train on augmented/ as correction.json says")
    return learner.variants()[shipped.variant]


def _trained(kept: Kept, shipped: Candidate, learner: Boosted, files: list[str], workers: int, place: Folder, progress: Progress) -> Model:
    rows = kept.bench.rows
    schema = rows.schema(FINAL)
    encoder: Any = kept.bench.encoder(FINAL)
    pages = Pages(kept.out / "augmented", tuple(files), schema, encoder, seed=seed_of(rows.seed, "train"))
    synthetic = shipped.kind == "synthetic"
    fits = boost(learner, pages, shipped.fits if synthetic else 1, 1 if synthetic else shipped.fits, workers, place, progress)
    correction = Correction.from_json(kept.out.read_json("correction.json"))
    groups, _ = kept.bench.coarse(FINAL)
    return Model(schema, groups, pages.encoder, tuple(fits), correction)


def test_loss(kept: Kept, model: Model) -> tuple[float, int]:
    """(balanced loss over the target mix, rows) of the test rows, block by block; rows of no group are left out, as in the report."""
    groups = kept.bench.rows.groups
    task, sums, counts = Classification(len(model.classes)), np.zeros(len(groups)), np.zeros(len(groups))
    for block in kept.bench.rows.blocks(FINAL, held_out=True):
        group = block[GROUP].to_numpy()
        losses = task.losses(model.log_proba(block), model.schema.truth(block))
        sums += np.bincount(group[group >= 0], losses[group >= 0], minlength=len(groups))
        counts += np.bincount(group[group >= 0], minlength=len(groups))
    mix = np.where(counts > 0, groups.mix, 0.0)
    return float((mix / mix.sum()) @ (sums / np.maximum(counts, 1))), int(counts.sum())
