"""One cell of `make bench-generators`: a generator fitted on half of a table, drawn from, and compared with the other half; knows no page.

`python -m benchmarks.generated SET GENERATOR SEED OUT` writes OUT, a JSON of measures. GENERATOR is one of the package's, or
`rival:NAME`, which the Python that CODSA_RIVALS names runs (benchmarks/rivals.py) on the same rows.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from benchmarks.data import data_folder
from codsa_ray.allocators.balanced import Balanced
from codsa_ray.audit.association import association
from codsa_ray.audit.columns import compared
from codsa_ray.audit.marginals import marginal
from codsa_ray.audit.picks import mixed_like, region_of
from codsa_ray.audit.privacy import privacy
from codsa_ray.audit.two_sample import two_sample
from codsa_ray.errors import CodsaError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.learners.boosted import Boosted
from codsa_ray.local import TARGET, Drawn, Local
from codsa_ray.plugins import make
from codsa_ray.schema import Schema

MOST = 12_000  # rows of either half
RIVAL = "rival:"
FEWER = {RIVAL + "great": 500}  # rows learned from and drawn: it draws a few a second
MIB = 1024.0


@dataclass(frozen=True)
class Set:
    """A table.

    Args:
        file: below CODSA_DATA, without its ending; "" for scikit-learn's digits, 3 and 8 against the others.
        target: the label.
        drop: columns left out.
    """

    file: str
    target: str
    drop: tuple[str, ...] = ("split",)


SETS = {
    "adult": Set("adult", "income"),
    "bank_marketing": Set("bank_marketing", "y"),
    "default_credit_card": Set("default_credit_card", "default payment"),
    "mammography": Set("mammography", "class"),
    "nursery": Set("nursery", "class"),
    "digits": Set("", "label"),
    "creditcard_fraud_sample": Set("creditcard_fraud_sample", "Class"),
    "nsl_kdd": Set("nsl_kdd", "attack_family", ("split", "attack", "level")),
    "omics_colon": Set("omics_colon", "Y"),
}


def table_of(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """(features, labels) of the rows that have one, classes of fewer than 8 rows left out: each half needs some of each."""
    one = SETS[name]
    if not one.file:
        from sklearn.datasets import load_digits

        data = load_digits()
        return pd.DataFrame(data.data, columns=[f"p{i}" for i in range(64)]), np.where(np.isin(data.target, [3, 8]), "rare", "other")
    table = pd.read_parquet(data_folder() / f"{one.file}.parquet")
    table = table.drop(columns=[c for c in one.drop if c in table.columns])
    table = table[table[one.target].notna()]
    table = table[table.groupby(one.target, observed=True)[one.target].transform("size") >= 8]
    return table.drop(columns=[one.target]), table[one.target].astype(str).to_numpy()


@dataclass(frozen=True)
class Halves:
    """A table cut in two by label.

    Args:
        local: all rows.
        data: what is learned from.
        held: canonical rows of the other half with `_region`.
        features: data's rows as the file has them, for rivals.
    """

    local: Local
    data: FitData
    held: pa.Table
    features: pd.DataFrame
    labels: np.ndarray

    @staticmethod
    def of(name: str, seed: int) -> "Halves":
        """Each half at most MOST rows, the same share of every label."""
        features, labels = table_of(name)
        _, group = np.unique(labels, return_inverse=True)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(group))
        rank = np.empty(len(group), dtype=np.int64)
        for g in np.unique(group):
            mine = order[group[order] == g]
            rank[mine] = np.arange(len(mine))
        size = np.bincount(group)[group]
        half = np.minimum(size // 2, np.maximum(np.ceil(size * MOST / len(group)), 4)).astype(np.int64)
        first, second = np.flatnonzero(rank < half), np.flatnonzero((rank >= half) & (rank < 2 * half))
        local = Local.of(pa.Table.from_pandas(features, preserve_index=False), group.astype(np.int64), seed)
        data = local.training(first, Balanced())
        held = data.schema.canonical(local.table.take(pa.array(second)))[0]
        held = held.append_column(REGION, pa.array(group[second].astype(np.int32)))
        return Halves(local, data, held, features.iloc[first], labels[first])


def drawn_here(halves: Halves, name: str, seed: int) -> tuple[pa.Table, dict[str, Any]]:
    """As many rows of each region as were learned from, and what they cost."""
    counts = halves.data.regions.counts.astype(np.int64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    drawn = Drawn.of(make("generators", name), halves.data, int(counts.max()), seed)
    fit = time.process_time() - started
    started = time.process_time()
    rows = drawn.take(counts)
    spent = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Rows that blocks hold beyond what was asked for were drawn as well.
    made = sum(len(block) for held in drawn.blocks.values() for block in held)
    return rows, {"fit": fit, "rate": made / spent, "peak": peak / MIB, "before": before / MIB}


def drawn_there(halves: Halves, name: str, seed: int) -> tuple[pa.Table, dict[str, Any]]:
    """A rival's rows, in an environment of its own; what cannot be read as the schema has it is null or left out, and counted."""
    with tempfile.TemporaryDirectory() as place:
        rows = FEWER.get(name, len(halves.labels))
        learned = halves.features.assign(**{TARGET: halves.labels}).sample(rows, random_state=seed)
        learned.to_parquet(f"{place}/train.parquet", index=False)
        script = Path(__file__).with_name("rivals.py")
        command = [os.environ["CODSA_RIVALS"], str(script), name.removeprefix(RIVAL), str(seed), place, str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
        cost = json.loads(Path(place, "cost.json").read_text())
        frame = pd.read_parquet(f"{place}/drawn.parquet")
    classes = sorted(set(halves.labels))
    found = frame[TARGET].astype(str).map({label: g for g, label in enumerate(classes)})
    kept = found.notna().to_numpy()
    group = found[kept].to_numpy(dtype=np.int64)
    table = pa.Table.from_pandas(frame[kept].assign(**{TARGET: group.astype(str)}), preserve_index=False)
    drawn = halves.data.schema.canonical(table)[0].append_column(REGION, pa.array(group.astype(np.int32)))
    return drawn, {**cost, "unlabelled": int((~kept).sum())}


def measured(halves: Halves, drawn: pa.Table, seed: int) -> dict[str, Any]:
    """How like the held-out half the drawn rows are, and how near to the rows learned from."""
    schema, real, held = halves.data.schema, halves.data.table(), halves.held
    near = privacy(real, held, drawn, schema, seed)
    return {
        **likeness(halves, drawn, seed),
        "tstr": trained(drawn, held, schema),
        "trtr": trained(real, held, schema),
        "dcr": near["dcr_ratio"],
        "copies": near["copies"],
        "copies_held": near["copies_held_out"],
    }


def likeness(halves: Halves, drawn: pa.Table, seed: int) -> dict[str, Any]:
    """How like the held-out half the drawn rows are."""
    schema, held = halves.data.schema, halves.held
    rare = int(np.argmin(halves.data.regions.counts))
    weight = mixed_like(region_of(held), region_of(drawn))
    few, like_few = (table.filter(pa.array(region_of(table) == rare)) for table in (held, drawn))
    return {
        "c2st": (two_sample(held, drawn, schema, seed) or {}).get("auc"),
        "rare_c2st": (two_sample(few, like_few, schema, seed) or {}).get("auc"),
        "distance": float(np.mean([marginal(held, weight, drawn, column)["distance"] for column in compared(schema)])),
        "correlation": association(held, weight, drawn, schema)["error"],
    }


def trained(rows: pa.Table, held: pa.Table, schema: Schema) -> float | None:
    """AUC on the held-out half (one class against the rest, macro) of boosted trees trained on `rows`; None where a class lacks rows."""
    learner, truth = Boosted(), schema.truth(held)
    y, classes = schema.truth(rows), int(truth.max()) + 1
    if len(np.unique(y)) < classes:
        return None
    encoder = learner.encoder(rows, schema)
    scores = np.exp(learner.fit(encoder.encode(rows), y, np.ones(len(y)), classes=classes, seed=0).scores(encoder.encode(held)))
    if classes == 2:
        return float(roc_auc_score(truth, scores[:, 1]))
    return float(roc_auc_score(truth, scores / scores.sum(1, keepdims=True), multi_class="ovr"))


def measure(name: str, generator: str, seed: int) -> dict[str, Any]:
    """Everything of one cell, or why there is nothing."""
    halves = Halves.of(name, seed)
    draw: Callable[[Halves, str, int], tuple[pa.Table, dict[str, Any]]]
    draw = drawn_there if generator.startswith(RIVAL) else drawn_here
    try:
        drawn, cost = draw(halves, generator, seed)
    except (CodsaError, RuntimeError, ValueError) as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    facts = {"rows": len(halves.labels), "columns": len(halves.features.columns), "smallest": int(halves.data.regions.counts.min())}
    return {**facts, **cost, **measured(halves, drawn, seed)}


if __name__ == "__main__":
    Path(sys.argv[4]).write_text(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
