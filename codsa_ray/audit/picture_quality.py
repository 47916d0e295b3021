"""Picture quality: how far drawn pictures lie from real ones in the features of a classifier of real ones; knows no generator.

The classifier is a small residual network (learners/convnet.py) that learns on half of the training rows of the audit to tell their
regions by their pictures alone; its last layer's inputs, on their AXES leading principal components, are the features. The other half is
what drawn and held-out pictures are held against, so that no picture that is compared was learned from by the classifier. Distances mean
nothing between data sets: read a drawn one beside the real one of the same line.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from scipy.spatial.distance import cdist

from codsa_ray.audit.coverage import covered
from codsa_ray.audit.images import images
from codsa_ray.audit.picks import even, pick, region_of
from codsa_ray.errors import CandidateError
from codsa_ray.learners.convnet import LARGEST, Convnet, Seen
from codsa_ray.pictured import Pictured
from codsa_ray.schema import Schema

LEAST = 20
"""Pictures of each side from which anything is said."""
MOST = 1_000
"""Pictures of a side that are compared."""
AXES = 32
CLASSIFIER = Convnet(width=16, epochs=8, least=40, most=400, augment="none")
MEASURES = ("frechet", "frechet_real", "picture_precision", "picture_fresh", "picture_recall", "judged", "judged_real")


def picture_quality(real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, float | None]:
    """Means over the columns of pictures of four measures, each beside what real pictures show; empty where there is no such column.

    Args:
        real: canonical training rows with `_region`.
        held_out: canonical rows that nothing was fitted on, with `_region`.
        drawn: canonical drawn rows with `_region`.

    Returns:
        frechet, frechet_real: Frechet distance (Heusel et al. 2017) of drawn, of held-out pictures from training ones, over the training
            ones' variance; as many pictures of each region on all three sides.
        picture_precision, picture_fresh: share of drawn, of held-out pictures that lie among training ones; picture_recall: share of
            training ones that lie among drawn ones (Kynkaanniemi et al. 2019, equations 1 and 2).
        judged, judged_real: share of drawn, of held-out pictures that the classifier takes for their own region's.
        None where a side has fewer than 20 pictures, all are of one region, or the classifier's loss stopped being a number.
    """
    found = [_column(real, held_out, drawn, column.name, schema, seed) for column in images(schema)]
    mean: dict[str, float | None] = {}
    for key in MEASURES if found else ():
        known = [value for one in found if (value := one.get(key)) is not None]
        mean[key] = float(np.mean(known)) if known else None
    return mean


def _column(real: pa.Table, held_out: pa.Table, drawn: pa.Table, name: str, schema: Schema, seed: int) -> dict[str, float]:
    real, held_out, drawn = (table.filter(table[name].is_valid()) for table in (real, held_out, drawn))
    half = pick(region_of(real), (np.bincount(region_of(real)) + 1) // 2, seed, "judge")
    learned, others = real.take(pa.array(half)), real.take(pa.array(np.setdiff1d(np.arange(len(real)), half)))
    sides = _alike((others, held_out, drawn), seed)
    if min(len(sides[0]), len(learned)) < LEAST or len(np.unique(region_of(learned))) < 2:
        return {}
    alone = replace(schema, columns=tuple(c for c in schema.columns if c.name == name), target="", hidden=())
    encoder = Pictured.learn(learned, alone, LARGEST)
    classes = int(max(region_of(table).max() for table in (learned, *sides))) + 1
    try:
        judge = CLASSIFIER.fit(encoder.encode(learned), region_of(learned), np.ones(len(learned)), classes=classes, seed=seed)
    except CandidateError:
        return {}
    assert isinstance(judge, Seen), "two regions or more"
    encoded = [encoder.encode(side) for side in sides]
    reference, fresh, made = _features([judge.features(X) for X in encoded])
    right = [float((judge.scores(X).argmax(axis=1) == region_of(side)).mean()) for X, side in zip(encoded, sides, strict=True)]
    within, across = cdist(reference, reference), cdist(reference, made)
    return {
        **{"frechet": frechet(reference, made), "frechet_real": frechet(reference, fresh)},
        **{"picture_precision": covered(within, across), "picture_fresh": covered(within, cdist(reference, fresh))},
        **{"picture_recall": covered(cdist(made, made), across.T), "judged": right[2], "judged_real": right[1]},
    }


def _alike(tables: tuple[pa.Table, ...], seed: int) -> list[pa.Table]:
    """As many rows of each region of every table."""
    regions = [region_of(table) for table in tables]
    k = max(int(region.max(initial=0)) for region in regions) + 1
    counts = even(np.min([np.bincount(region, minlength=k) for region in regions], axis=0), MOST)
    return [table.take(pa.array(pick(region, counts, seed, "shown"))) for table, region in zip(tables, regions, strict=True)]


def _features(sides: list[np.ndarray]) -> list[np.ndarray]:
    """Along the first side's leading principal components, of total variance 1 there."""
    middle = sides[0].mean(axis=0)
    _, lengths, axes = np.linalg.svd(sides[0] - middle, full_matrices=False)
    scale = float(np.sqrt(np.sum(lengths[:AXES] ** 2) / len(sides[0]))) or 1.0
    return [(side - middle) @ axes[:AXES].T / scale for side in sides]


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of (n, d) and (m, d) points."""
    first, second = (np.cov(points, rowvar=False, ddof=0) for points in (one, other))
    # The eigenvalues of a product of two covariances are real and not negative, but for rounding.
    shared = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    apart = np.sum((one.mean(axis=0) - other.mean(axis=0)) ** 2)
    return float(max(apart + np.trace(first) + np.trace(second) - 2 * shared, 0.0))
