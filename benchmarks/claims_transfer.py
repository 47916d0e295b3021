"""Transfer (CoDSA, Tian & Shen 2025): a diffusion pretrained on a related data set against one without it and one on pooled rows.

Sources: rows of the simulations of another seed (in Simulation 1 with another label rule, as in the paper), a hospital's three sisters,
another country's cohort. The simulations have the networks of claims_codsa's, hospitals and cohorts a smaller one: their rows are tens.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.claims import Claim, Line
from benchmarks.claims_codsa import DIFFUSION, PAPER, Part, Replicate, labelled, network, replicate, taken
from benchmarks.claims_codsa_regression import forest, valued
from benchmarks.data import data_folder
from benchmarks.repeated import Measures, below, mean
from benchmarks.training import EARLIER
from codsa_ray.draw import draw_block
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.infer import infer
from codsa_ray.learners.logistic import Logistic
from codsa_ray.regions import Region, Regions
from codsa_ray.risk import Classification, group_means
from codsa_ray.schema import Schema
from codsa_ray.seeds import rng_of, seed_of
from codsa_ray.stages.fit import LocalWorker
from codsa_ray.summary import Summary

HALF = (0.5, 0.5)
FIRST, SECOND = DIFFUSION, EARLIER
SMALL = replace(SECOND, steps=200, pretrain=300, width=64, batch=128)
WAYS = {"all weights": 0, "LoRA": 8}  # ranks of adapters
OFF, POOLED = "no transfer", "pooled rows"
THIN = 10  # rows of a simulation over those of its thinned target
DRAWN = 1500  # rows of each region
FEW, SITES, TIMES = 40, ("cleveland", "hungarian", "va"), 2
COHORT, ADMISSIONS, COHORTS = 60, 4000, 6

Inside = Callable[[pa.Table], np.ndarray]


def data_of(table: pa.Table, target: str, task: str, seed: int, source: pa.Table | None = None) -> FitData:
    """Rows with a region (0 or 1) as a fit sees them; a source is read by the schema of the rows."""
    schema = infer(Summary.of(table.drop_columns([REGION]), np.arange(len(table))), target, task=task)
    related = None if source is None else _rows(source, schema, target, seed_of(seed, "source"))
    return replace(_rows(table, schema, target, seed), source=related)


def _rows(table: pa.Table, schema: Schema, target: str, seed: int) -> FitData:
    counts = np.bincount(table[REGION].to_numpy(), minlength=2)
    fixed = [((target, str(k)),) if schema.task == "classification" else () for k in (0, 1)]
    regions = Regions(tuple(Region(str(k), k, 0, int(counts[k]), fixed[k], (k,)) for k in (0, 1)), HALF, (2,))
    rows = schema.canonical(table)[0].append_column(REGION, table[REGION])
    return FitData.of(rows.append_column(ROW, pa.array(np.arange(len(table)))), schema, regions, seed)


def drawn(generator: TabularDiffusion, data: FitData, rows: int, inside: Inside | None = None) -> pa.Table:
    """`rows` rows of region 0, then as many of region 1."""
    with TemporaryDirectory() as place:
        generator.fit(data, LocalWorker(Folder(place)))
        fitted = generator.load(Folder(place))
    found = []
    for region in (0, 1):
        seeds = [seed_of(data.seed, "draw", region, block) for block in range(-(-rows // generator.block))]
        blocks = [draw_block(fitted, data.schema, data.regions, region, seed, inside)[0] for seed in seeds]
        found.append(pa.concat_tables(blocks).slice(0, rows))
    return pa.concat_tables(found)


def each_way(
    base: TabularDiffusion, table: pa.Table, source: pa.Table, target: str, task: str, rows: int, seed: int, inside: Inside | None = None
) -> dict[str, pa.Table]:
    """What is drawn without transfer, with it, and from pooled rows."""
    alone, pooled = data_of(table, target, task, seed), pa.concat_tables([table, source], promote_options="permissive")
    found = {OFF: drawn(base, alone, rows, inside), POOLED: drawn(base, data_of(pooled, target, task, seed), rows, inside)}
    related = data_of(table, target, task, seed, source)
    return found | {f"transfer, {way}": drawn(replace(base, lora=rank), related, rows, inside) for way, rank in WAYS.items()}


def lines(found: list[Measures], published: tuple[str, str, str], many: str) -> Iterator[Line]:
    """Mean losses, then what transfer gains, paired by repetition.

    Args:
        found: losses of each repetition, by name.
        published: loss without transfer, with it, and what it gains.
        many: repetitions, as text.
    """
    values = {name: np.array([one[name] for one in found]) for name in found[0]}
    for name, losses in values.items():
        said = published[0] if name == OFF else published[1] if name == "transfer, all weights" else ""
        yield Line(name, said, *mean(losses), None, many)
    told = "paired" + "; held-out rows kept the source's weights both ways" * np.array_equal(*(values[f"transfer, {way}"] for way in WAYS))
    for way in WAYS:
        mine = values[f"transfer, {way}"]
        for other in (OFF, POOLED, *(name for name in values if name.startswith("control"))):
            gain, said = values[other] - mine, published[2] if other == OFF else ""
            holds = below(mine, values[other]) if other == OFF else None
            yield Line(f"gain of transfer, {way}, over {other}", said, *mean(gain), holds, told)


# The simulations


def _table(part: Part, labels: bool) -> pa.Table:
    X, y, region = part
    columns = {f"x{i}": column for i, column in enumerate(X.T)}
    return pa.table({**columns, "y": pa.array(y.astype(str)) if labels else y, REGION: region.astype(np.int32)})


def _part(table: pa.Table, labels: bool) -> Part:
    X = np.stack([table[f"x{i}"].to_numpy() for i in range(table.num_columns - 1)], axis=1)
    region = np.repeat([0, 1], len(table) // 2)
    return X, region if labels else table["y"].to_numpy(), region


def _thinned(rep: Replicate, times: int) -> Part:
    return taken(rep.train, np.concatenate([np.flatnonzero(rep.train[2] == k)[::times] for k in (0, 1)]))


def first(index: int, times: int) -> Measures:
    """Simulation 1: the paper's network on drawn rows alone, balanced test cross-entropy."""
    rep = replicate(*labelled(), index)
    source = _table(labelled(10_000, 2500, 100 + index), True)
    rows = each_way(FIRST, _table(_thinned(rep, times), True), source, "y", "classification", DRAWN, index)
    found = {}
    for name, table in rows.items():
        part = _part(table, True)
        logit = network(part, np.ones(len(part[1])), rep.validation)(rep.test[0])
        scores = -np.logaddexp(0, np.stack([logit, -logit], axis=1))
        found[name] = float(group_means(Classification(2).losses(scores, rep.test[1]), rep.test[1], 2).mean())
    return found


def second(index: int, times: int) -> Measures:
    """Simulation 2: a random forest on drawn rows alone, balanced test squared error."""
    rep = replicate(*valued(), index)

    def inside(rows: pa.Table) -> np.ndarray:
        return (rows["x0"].to_numpy() >= 0.5).astype(np.int64)

    source = _table(valued(5000, 5000, 100 + index), False)
    rows = each_way(SECOND, _table(_thinned(rep, times), False), source, "y", "regression", DRAWN, index, inside)
    return {name: forest(_part(table, False), rep)[1][2] for name, table in rows.items()}


def simulated(measure: Callable[[int, int], Measures], times: int, many: int, published: tuple[str, str, str]) -> Iterator[Line]:
    """One simulation with its target thinned so many times."""
    return lines([measure(index, times) for index in range(many)], published, f"{many} replicates")


# Hospitals and cohorts


def fit_loss(train: pa.Table, weight: np.ndarray, test: pa.Table, schema: Schema) -> float:
    """Balanced test loss of a logistic regression on weighted rows, the classes made equal."""
    learner, y, truth = Logistic(), schema.truth(train), schema.truth(test)
    encoder = learner.encoder(train, schema)
    even = weight / np.bincount(y, weight)[y] * weight.sum() / 2
    scores = learner.fit(encoder.encode(train), y, even, classes=2, seed=0).scores(encoder.encode(test))
    return float(group_means(Classification(2).losses(scores, truth), truth, 2).mean())


def learned(table: pa.Table, test: pa.Table, source: pa.Table, seed: int) -> Measures:
    """Losses on test rows of the target's domain: without synthesis, then real rows and drawn ones of the same weight."""
    schema = data_of(table, "y", "classification", seed).schema
    real, held, others = (schema.canonical(rows)[0] for rows in (table, test, source))
    found = {"control: real rows alone": fit_loss(real, np.ones(len(real)), held, schema)}
    both = pa.concat_tables([real, others])
    found["control: real rows and the source's"] = fit_loss(both, np.ones(len(both)), held, schema)
    for name, rows in each_way(SMALL, table, source, "y", "classification", 10 * len(table), seed).items():
        weight = np.concatenate([np.ones(len(real)), np.full(len(rows), len(real) / len(rows))])
        found[name] = fit_loss(pa.concat_tables([real, rows.select(real.column_names)]), weight, held, schema)
    return found


def cut(frame: pd.DataFrame, rows: int, *name: object) -> tuple[pa.Table, pa.Table]:
    """(train of so many rows, test), stratified by y."""
    rng, order = rng_of("transfer", *name), []
    for label in ("0", "1"):
        mine = rng.permutation(np.flatnonzero(frame["y"] == label))
        order.append((mine[: max(2, round(rows * len(mine) / len(frame)))], mine))
    train = np.sort(np.concatenate([few for few, _ in order]))
    return with_region(frame.iloc[train]), with_region(frame.iloc[np.setdiff1d(np.arange(len(frame)), train)])


def with_region(frame: pd.DataFrame) -> pa.Table:
    """The rows with their class as region."""
    return pa.Table.from_pandas(frame, preserve_index=False).append_column(REGION, pa.array(frame["y"].astype(np.int32).to_numpy()))


def hospitals() -> Iterator[Line]:
    """Each site with few rows, the other three as its source."""
    frame = pd.read_parquet(data_folder() / "heart_disease_4sites.parquet").assign(y=lambda rows: rows["disease"].astype(str))
    frame = frame.drop(columns=["target", "disease"])
    found = []
    for site in SITES:
        mine, others = (frame[(frame["site"] == site) == own].drop(columns="site") for own in (True, False))
        for index in range(TIMES):
            found.append(learned(*cut(mine, FEW, site, index), with_region(others), index))
    return lines(found, ("", "", ""), f"{FEW} rows of {', '.join(SITES)}, {TIMES} times each")


def cohorts() -> Iterator[Line]:
    """Few South Korean admissions, the source Norwegian."""
    names = {"hospital_outcome_1alive_0dead": "y", "age_years": "age", "sex_0male_1female": "sex", "episode_number": "episode"}
    frame = pd.read_parquet(data_folder() / "sepsis_survival.parquet").rename(columns=names)
    frame["y"] = (1 - frame["y"]).astype(str)
    mine, others = (frame[(frame["cohort"] == "validation_south_korea") == own].drop(columns="cohort") for own in (True, False))
    found = []
    for index in range(COHORTS):
        some = others.iloc[rng_of("transfer", "norway", index).choice(len(others), ADMISSIONS, replace=False)]
        found.append(learned(*cut(mine, COHORT, "korea", index), with_region(some), index))
    return lines(found, ("", "", ""), f"{COHORT} of 137 rows, {COHORTS} times")


HOLDS = "a gain above 0 by t"
CLAIMS = (
    Claim(
        "transfer-sim1",
        PAPER,
        "Simulation 1: pretraining on a source lowers the loss.",
        lambda: simulated(first, 1, 3, ("0.4641", "0.4589", "0.005")),
    ),
    Claim(
        "transfer-sim1-thin", PAPER, "The same with a tenth of the target's rows (ours).", lambda: simulated(first, THIN, 3, ("", "", ""))
    ),
    Claim(
        "transfer-sim2",
        PAPER,
        "Simulation 2: pretraining on a source lowers the error.",
        lambda: simulated(second, 1, 3, ("0.809", "0.591", "0.218")),
    ),
    Claim(
        "transfer-sim2-thin", PAPER, "The same with a tenth of the target's rows (ours).", lambda: simulated(second, THIN, 3, ("", "", ""))
    ),
    Claim(
        "transfer-hospitals", PAPER, "A site's few rows gain from the other hospitals' (heart_disease_4sites; ours).", hospitals, data=True
    ),
    Claim("transfer-cohorts", PAPER, "A cohort's few rows gain from another country's (sepsis_survival; ours).", cohorts, data=True),
)
