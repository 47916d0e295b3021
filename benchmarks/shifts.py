"""`make bench-shifts`: few rows of a target domain beside others, and groups a label leans on; writes docs/benchmarks/shifts.md.

`python -m benchmarks.shifts [--case NAME]... [--seeds N] [--minutes M] [--page]` runs what is not there, whole passes of the package, and
goes on where it was stopped; `--page` only writes the page. CODSA_DATA names the folder of the data.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.data import data_folder
from benchmarks.results import Results
from benchmarks.training import EARLIER
from codsa_ray import Job, run
from codsa_ray.candidates import Candidate
from codsa_ray.domain import OTHERS, POOLED, POWERS, TARGET
from codsa_ray.judge import compared, title
from codsa_ray.kept import Kept
from codsa_ray.pipeline import reopened
from codsa_ray.risk import balanced, estimate, group_means

RUNS = Path("runs/shifts")
RESULTS = Results("shifts")
PAGE = Path("docs/benchmarks/shifts.md")
DIFFUSION = f"tabular_diffusion:steps=200,pretrain=300,width=64,batch=128,rate={EARLIER.rate}"  # as in claims_transfer.py
ALONE = f"tabular_diffusion:steps=200,pretrain=0,width=64,batch=128,rate={EARLIER.rate}"
MOST_TEST = 1500
FIRST = 200
OURS, DRAWN = "codsa's decision", "best with synthesis"
FIRSTS = ("pooled", "offset and calibration")
"""What others are held against: the first of them that there is."""

Pair = tuple[Candidate, str]
Loaded = tuple[pd.DataFrame, pd.DataFrame]


def data(name: str) -> Path:
    """A file of the data folder."""
    return data_folder() / name


@dataclass(frozen=True)
class Case:
    """One shift.

    Args:
        load: seed -> (train, test).
        target: the label.
        note: what it is, for the page.
        learners, generators, options: of the job.
        seeds: how many, unless asked otherwise.
    """

    load: Callable[[int], Loaded]
    target: str
    note: str
    learners: tuple[str, ...]
    generators: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    seeds: int = 2


def few(table: pd.DataFrame, home: pd.Series, label: str, many: int, seed: int, others: int = 0) -> Loaded:
    """(so many rows of home, stratified by label, with the others - or so many of them; home's other rows)."""
    rng = np.random.default_rng(seed)
    mine, rest = table[home], table[~home]
    mine = mine.iloc[rng.permutation(len(mine))]
    rank, share = mine.groupby(label).cumcount(), mine[label].map(mine[label].value_counts()) / len(mine)
    inside = rank < np.maximum(np.round(share * many), 4)
    rest = rest.sample(min(others or len(rest), len(rest)), random_state=seed)
    return pd.concat([mine[inside], rest], ignore_index=True), mine[~inside].iloc[:MOST_TEST].reset_index(drop=True)


def hospital(seed: int, site: str) -> Loaded:
    """40 patients of a site, all of the other three."""
    table = pd.read_parquet(data("heart_disease_4sites.parquet")).drop(columns="target")
    return few(table, table["site"] == site, "disease", 40, seed)


def cohort(seed: int) -> Loaded:
    """60 South Korean admissions, 3,000 Norwegian ones."""
    table = pd.read_parquet(data("sepsis_survival.parquet"))
    return few(table, table["cohort"] == "validation_south_korea", "hospital_outcome_1alive_0dead", 60, seed, 3000)


def shop(seed: int, domain: str) -> Loaded:
    """60 reviews of one shop, 1,200 of the other three."""
    table = pd.read_parquet(data("text/amazon_multidomain.parquet"))[["domain", "label", "text"]]
    table["text"] = table["text"].str.slice(0, 600)
    return few(table, table["domain"] == domain, "label", 60, seed, 1200)


def scanner(seed: int) -> Loaded:
    """100 digits of USPS, 1,500 of MNIST at 16 x 16, as pixel columns."""
    with np.load(data("images/mnist.npz")) as mnist, np.load(data("images/usps.npz")) as usps:
        small = np.stack([np.asarray(Image.fromarray(one).resize((16, 16), Image.Resampling.BOX)) for one in mnist["x_train"][:6000]])
        pixels = np.concatenate([usps["x"], small]).reshape(-1, 256)
        labels = np.concatenate([usps["y"], mnist["y_train"][:6000]])
    table = pd.DataFrame(pixels, columns=[f"p{i:03d}" for i in range(256)]).assign(digit=labels.astype(str))
    table["scanner"] = np.where(np.arange(len(table)) < len(labels) - 6000, "usps", "mnist")
    return few(table, table["scanner"] == "usps", "digit", 100, seed, 1500)


def leaning(table: pd.DataFrame, rare: pd.Series, keep: int, most: int, seed: int) -> Loaded:
    """(`most` training rows of which `keep` are rare, test rows as they come)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table))
    tested = np.zeros(len(table), dtype=bool)
    tested[order[: 2 * MOST_TEST]] = True
    inside = order[~tested[order] & rare.to_numpy()[order]][:keep]
    outside = order[~tested[order] & ~rare.to_numpy()[order]][: most - len(inside)]
    return table.iloc[np.concatenate([inside, outside])].reset_index(drop=True), table[tested].reset_index(drop=True)


def income(seed: int) -> Loaded:
    """Adult with 30 women of high income among 2,500 rows."""
    table = pd.read_parquet(data("adult.parquet")).drop(columns=["split", "fnlwgt", "relationship"])
    return leaning(table, (table["sex"] == "Female") & (table["income"] == ">50K"), 30, 2500, seed)


def offence(seed: int) -> Loaded:
    """COMPAS, two races, with 40 white defendants charged again among 1,500 rows."""
    kept = ("sex", "age", "race", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count", "c_charge_degree", "two_year_recid")
    table = pd.read_parquet(data("compas_two_years.parquet"))[list(kept)]
    table = table[table["race"].isin(["African-American", "Caucasian"])].reset_index(drop=True)
    return leaning(table, (table["race"] == "Caucasian") & (table["two_year_recid"] == 1), 40, 1500, seed)


SMALL: dict[str, Any] = {"folds": 3, "repeats": 1, "trials": 9, "draws": 3}
TABLES, TRANSFER = ("boosted", "logistic"), (DIFFUSION, ALONE, "sequential_trees")


def home(column: str, value: str, **more: Any) -> dict[str, Any]:
    """Options of a target domain."""
    return {**SMALL, "domain": column, "target_domain": value, **more}


DOMAINS = {
    f"heart, {site}": Case(partial(hospital, site=site), "disease", str(hospital.__doc__), TABLES, TRANSFER, home("site", site))
    for site in ("cleveland", "hungarian", "va")
} | {
    "sepsis, Korea": Case(
        cohort,
        "hospital_outcome_1alive_0dead",
        str(cohort.__doc__),
        TABLES,
        TRANSFER,
        home("cohort", "validation_south_korea"),
        seeds=3,
    ),
    "reviews, kitchen": Case(
        partial(shop, domain="kitchen"),
        "label",
        str(shop.__doc__),
        ("tfidf",),
        ("text_lm:steps=300",),
        home("domain", "kitchen"),
    ),
    "digits, USPS": Case(
        scanner,
        "digit",
        str(scanner.__doc__),
        ("logistic",),
        (DIFFUSION, ALONE),
        home("scanner", "usps", trials=6, draws=2),
    ),
}
LEANERS, ROWS = ("boosted", "mlp"), ("sequential_trees", "interpolation")
LEANINGS = {
    "adult, sex": Case(income, "income", str(income.__doc__), LEANERS, ROWS, {**SMALL, "group": ("sex",)}),
    "compas, race": Case(offence, "two_year_recid", str(offence.__doc__), LEANERS, ROWS, {**SMALL, "group": ("race",)}),
}
CASES = DOMAINS | LEANINGS


def ways_of(kept: Kept) -> dict[str, Pair]:
    """The (candidate, form) of each way: of several the one of least out-of-fold loss."""
    table, decision = kept.table, kept.decision
    pairs = compared(table.outcomes, kept.job.task, table.tuned(len(kept.bench.learner.variants())))
    assert table.truth is not None
    group = table.truth.group

    def least(among: Callable[[Candidate], bool], form: str = "calibrated") -> Pair | None:
        mine = [pair for pair in pairs if pair[1] == form and pair[0].kind != "synthetic" and among(pair[0])]
        return min(mine, key=lambda pair: balanced(table.losses[pair[0].id, pair[1]], group, table.mix), default=None)

    raw = least(lambda c: c.kind == "plain" and c.fits == 1, "raw")
    if kept.bench.rows.domain is not None:
        named = (("pooled", POOLED), ("target alone", TARGET), ("others alone", OTHERS))
        found = {"pooled, as it is": raw, **{name: least(lambda c, way=way: c.domains == way) for name, way in named}}  # type: ignore[misc]
        found["importance weights"] = least(lambda c: c.domains in POWERS)
    else:
        found = {
            "as it is": raw,
            "offset and calibration": least(lambda c: c.kind == "plain" and c.fits == 1),
            "class weights": least(lambda c: c.kind == "weights" and c.by == "class"),
            "group weights": least(lambda c: c.kind == "weights" and c.by == "group"),
            "group-balanced subsamples": least(lambda c: c.kind == "undersampled" and c.ratio == 1),
            "last layer again": least(lambda c: c.kind == "retrained"),
            "joint cells": least(lambda c: c.kind == "cells"),
        }
    found |= {OURS: decision.chosen, DRAWN: decision.best}
    return {way: pair for way, pair in found.items() if pair is not None}


def judged(kept: Kept) -> dict[str, dict[str, Any]]:
    """Per way its candidate, balanced test loss, that less the first way's (paired by test row), errors of both, and the worst group's."""
    scored, ways, found = kept.scored, ways_of(kept), {}
    groups = scored.test.group
    first = next((scored.test_losses(ways[way]) for way in FIRSTS if way in ways), None)
    for way, pair in ways.items():
        losses = scored.test_losses(pair)
        if losses is not None:
            both = np.stack([losses, losses - (losses if first is None else first)], axis=1)
            mean = estimate(both, groups, scored.mix)
            worst = float(np.nanmax(group_means(losses, groups, len(scored.mix))))
            found[way] = {"candidate": title(*pair), "loss": float(mean.mean[0]), "se": float(mean.se[0]), "worst": worst}
            found[way]["away_se"] = float(mean.se[1])
    return found


def measure(name: str, learner: str, seed: int) -> dict[str, Any]:
    """A whole pass and what its test rows say of every way; learners of one seed go on with the same generators."""
    case, place = CASES[name], RUNS / f"{name.replace(', ', '-').replace(' ', '-')}.{seed}"
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{part}.parquet" for part in ("train", "test")]
    if not all(path.exists() for path in paths):
        for rows, path in zip(case.load(FIRST + seed), paths, strict=True):
            rows.to_parquet(path, index=False)
    started = time.perf_counter()
    settings = {**case.options, "learner": learner, "generator": case.generators, "seed": FIRST + seed, "workers": 1}
    report = run(Job(str(paths[0]), case.target, test=str(paths[1]), out=str(place / "run"), **settings))
    seconds = time.perf_counter() - started
    with reopened(report.folder) as kept:
        ways = judged(kept)
    verdict = {key: report.facts["verdict"][key] for key in ("kind", "chosen", "best", "gain")}
    return {"ways": ways, "verdict": verdict, "seconds": seconds, "data": report.facts["data"], "notices": report.facts["notices"]}


def section(name: str, learner: str) -> list[str]:
    """Lines of one case and learner: means over seeds, errors over seeds where there are several, else of the test rows."""
    found = RESULTS.named(name, learner)
    if not found:
        return []
    lines = [f"| {name}, {learner} ({len(found)} seed(s)) | test loss | against pooled or plain | worst group's |", "|---|---|---|---|"]
    first = next(way for way in FIRSTS if way in found[0]["ways"])
    for way in found[0]["ways"]:
        both = [cell["ways"] for cell in found if way in cell["ways"]]
        loss, worst = (np.array([one[way][key] for one in both]) for key in ("loss", "worst"))
        away = loss - np.array([one[first]["loss"] for one in both])
        errors = (
            [v.std(ddof=1) / np.sqrt(len(v)) for v in (loss, away)] if len(both) > 1 else [both[0][way]["se"], both[0][way].get("away_se")]
        )
        apart = "" if errors[1] is None or way == first else f" ± {errors[1]:.3f}"
        lines.append(f"| {way} | {loss.mean():.3f} ± {errors[0]:.3f} | {away.mean():+.3f}{apart} | {worst.mean():.3f} |")
    kinds = "; ".join(f"{cell['verdict']['kind']} ({cell['verdict']['chosen']})" for cell in found)
    gains = [cell["verdict"]["gain"] for cell in found if cell["verdict"]["gain"]]
    told = "; ".join(f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" for gain in gains)
    return ["", *lines, "", f"Decided: {kinds}. Gain of synthesis out of fold: {told or 'none could be scored'}."]


def page() -> str:
    """The whole page."""
    lines = ["# Other domains, and groups that a label leans on", ""]
    lines += [
        f"`make bench-shifts` on {RESULTS.when()}. Whole passes; losses are balanced log losses on test rows of the target domain",
        "(or of all groups alike) that no choice sees; of each way the candidate that was best out of fold. Lower is better. Errors of one",
        "seed are those of its test rows, and of differences where rows were paired; of several seeds, over these.",
        "",
        "## Few rows of a target domain",
        "",
        "Real rows of all domains train (`--domain`, `--target-domain`); the best candidate of each way, bags and weights among them.",
    ]
    for head, cases in (("", DOMAINS), ("## Groups that a label leans on", LEANINGS)):
        lines += ["", head] if head else []
        for name, case in cases.items():
            told = [line for learner in case.learners for line in section(name, learner)]
            lines += ["", f"### {name}", "", case.note, *(told or ["", "Not measured yet."])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures what is not there."""
    given = argparse.ArgumentParser()
    given.add_argument("--case", action="append", choices=list(CASES))
    given.add_argument("--seeds", type=int)
    given.add_argument("--minutes", type=float, default=float("inf"))
    given.add_argument("--page", action="store_true")
    options = given.parse_args()
    until = time.monotonic() + 60 * options.minutes
    asked_for = [] if options.page else options.case or list(CASES)
    most = options.seeds or max(case.seeds for case in CASES.values())
    for seed, name in ((seed, name) for seed in range(most) for name in asked_for if seed < (options.seeds or CASES[name].seeds)):
        for learner in CASES[name].learners:
            cell = f"{name}, {learner}, {seed}"
            if cell in RESULTS.read() or time.monotonic() > until:
                continue
            value = measure(name, learner, seed)
            RESULTS.keep(cell, value)
            print(f"{cell}: {value['seconds']:.0f} s", flush=True)
            PAGE.write_text(page())
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
