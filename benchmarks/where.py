"""`make bench-where`: does synthesis help in ten shortages, and how much of what real rows would bring?

`python -m benchmarks.where [--seeds N] [--minutes M] [--learner NAME]...` runs what is not there, whole passes of the package, and writes
docs/benchmarks/where-it-wins.md; `--page` only writes it. CODSA_DATA names the tables' folder. Seeds start at FIRST: no seed that any
default was chosen on.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from benchmarks.data import data_folder
from benchmarks.repeated import mean
from benchmarks.results import Results
from benchmarks.tables import MOST_TEST, TEST_SHARE, digits
from benchmarks.training import EARLIER, default, named
from codsa_ray import Job, run
from codsa_ray.judge import title
from codsa_ray.pipeline import Report, reopened
from codsa_ray.report.scored import Pair
from codsa_ray.risk import estimate, paired

RESULTS = Results("where")
PAGE = Path("docs/benchmarks/where-it-wins.md")
GENERATORS = ("auto",)
LEARNERS = ("boosted", "logistic")
DRAWS, TRIALS = 5, 20
MOST = 3_000  # training rows outside the shortage
LEAST = 16  # of a label
FIRST = 100
LEVEL = 0.05


@dataclass(frozen=True)
class Shortage:
    """A table, and which of its training rows are taken away.

    Args:
        load: all rows; a column `_part` of `train` and `test` where the publisher cut them.
        target: the label.
        keep: rows -> of every shortage, (which rows are inside, how many stay).
        options: of the job.
        most: training rows beside.
    """

    load: Callable[[], pd.DataFrame]
    target: str
    keep: Callable[[pd.DataFrame], list[tuple[pd.Series, int]]] = lambda table: []
    options: dict[str, Any] = field(default_factory=dict)
    most: int = MOST

    def cut(self, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """(train, the rows taken away, test)."""
        rng = np.random.default_rng(seed)
        table = self.load()
        table = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
        rank = table.groupby(self.target, observed=True).cumcount()
        size = table.groupby(self.target, observed=True)[self.target].transform("size")
        tested = table["_part"] == "test" if "_part" in table else rank < (size * TEST_SHARE).round()
        table = table.drop(columns=["_part"], errors="ignore")
        # The first rows of a label went to the test: what is left is shuffled again, or its own first rows would be biased.
        train, test = (part.iloc[rng.permutation(len(part))] for part in (table[~tested], table[tested]))
        kept, inside = [], pd.Series(False, index=train.index)
        for where, rows in self.keep(train):
            kept.append(train[where & ~inside].iloc[:rows])
            inside |= where
        spare = train[inside].drop(index=pd.concat(kept).index) if kept else train.iloc[:0]
        beside = train[~inside]
        first = np.arange(len(beside)) < self.most
        least = beside.groupby(self.target, observed=True).cumcount() < LEAST
        return pd.concat([*kept, beside[first | (least & (self.most > 0))]]), spare, test.iloc[:MOST_TEST]


def _file(name: str, drop: tuple[str, ...] = ("split",), part: str = "") -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        table = pd.read_parquet(data_folder() / f"{name}.parquet")
        table = table.rename(columns={part: "_part"}) if part else table
        return table.drop(columns=[c for c in drop if c in table.columns])

    return load


def _nakada(name: str) -> Callable[[], pd.DataFrame]:
    def load() -> pd.DataFrame:
        place = data_folder() / "papers/nakada"
        parts = [pd.read_parquet(place / f"{name}_{part}.parquet").assign(_part=part) for part in ("train", "test")]
        return pd.concat(parts, ignore_index=True)

    return load


def _few(rows: int) -> Callable[[pd.DataFrame], list[tuple[pd.Series, int]]]:
    return lambda table: [(pd.Series(True, index=table.index), rows)]


def _rich(table: pd.DataFrame) -> pd.Series:
    return table["income"].astype(str).str.contains(">50K")


def _woman(table: pd.DataFrame) -> pd.Series:
    return table["sex"].astype(str).str.strip() == "Female"


def _site(name: str) -> Shortage:
    load = _file("heart_disease_4sites", ("split", "target"))
    return Shortage(load, "disease", lambda t: [(t["site"] == name, 24)], {"region": (f"site = '{name}'",)})


SHORTAGES = {
    "hidden subclass: digits 3 and 8 at 10 rows": Shortage(
        digits, "label", lambda t: [(t["kind"] == k, 10) for k in "38"], {"region": ("kind IN ('3','8')",), "hide": ("kind",)}
    ),
    "new domain: heart disease, Hungary, 24 rows": _site("hungarian"),
    "adult spurious, two cells of 60 rows": Shortage(
        _file("adult"), "income", lambda t: [(_rich(t) & _woman(t), 60), (~_rich(t) & ~_woman(t), 60)], {"group": ("sex",)}
    ),
    "tiny adult, 200 rows in all": Shortage(_file("adult"), "income", _few(200), {"group": ("sex",)}, 0),
    "tiny gender, 200 rows": Shortage(_nakada("gender"), "gender", _few(200), most=0),
    "adult cell (>50K, women) of 50 rows": Shortage(_file("adult"), "income", lambda t: [(_rich(t) & _woman(t), 50)], {"group": ("sex",)}),
    "tiny craft, 200 rows": Shortage(_nakada("craft"), "Target", _few(200), most=0),
    "heart disease, VA, 24 rows": _site("va"),
    "adult, age >= 60 thinned to 60 rows": Shortage(_file("adult"), "income", lambda t: [(t["age"] >= 60, 60)], {"region": ("age >= 60",)}),
    "NSL-KDD, shifted test": Shortage(_file("nsl_kdd", ("attack", "level"), "split"), "attack_family"),
}


def measure(name: str, learner: str, seed: int) -> dict[str, Any]:
    """Test losses of the best candidate without synthesis, of the best with it, of the verdict, and with the rows taken away back in."""
    shortage = SHORTAGES[name]
    train, spare, test = shortage.cut(seed)
    place = tempfile.mkdtemp(prefix="where-")
    try:
        whole = pd.concat([train, spare.iloc[: MOST + len(train)]])
        for part, table in (("train", train), ("whole", whole), ("test", test)):
            table.to_parquet(f"{place}/{part}.parquet", index=False)
        given = {"learner": learner, "test": f"{place}/test.parquet", "seed": seed, "draws": DRAWS, **shortage.options}
        report = run(Job(f"{place}/train.parquet", shortage.target, out=f"{place}/run", generator=GENERATORS, trials=TRIALS, **given))
        found = _losses(report)
        if len(spare):
            rich = run(Job(f"{place}/whole.parquet", shortage.target, out=f"{place}/rich", generator=("bootstrap",), trials=0, **given))
            found["ceiling"] = found["base"] - _losses(rich)["base"]
        return {**found, "train": len(train), "verdict": report.verdict.kind, "trained": default()}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _losses(report: Report) -> dict[str, Any]:
    """Test losses of the candidates that out-of-fold losses named, and gains with the error of their paired test rows."""
    with reopened(report.folder) as kept:
        decision, scored = kept.decision, kept.scored
        groups, mix, best = scored.test.group, scored.mix, decision.best or decision.base

        def losses(pair: Pair) -> np.ndarray:
            found = scored.test_losses(pair)
            if found is None:
                raise RuntimeError(f"{title(*pair)} has no test losses")
            return found

        def gained(pair: Pair) -> tuple[float, float]:
            return paired(losses(decision.base), losses(pair), groups, mix)

        base = estimate(losses(decision.base), groups, mix).mean
        (gain, gain_se), (got, got_se) = gained(best), gained(decision.chosen)
        found = {"base": float(base[0]), "base_name": title(*decision.base), "best_name": title(*best), "notices": report.facts["notices"]}
        return found | {"gain": gain, "gain_se": gain_se, "got": got, "got_se": got_se}


def line(name: str, learner: str) -> str | None:
    """Means over seeds with their errors."""
    cells = RESULTS.named(name, learner)
    if not cells:
        return None
    ceiling = np.array([cell["ceiling"] for cell in cells if "ceiling" in cell])
    kinds = [cell["verdict"] for cell in cells]
    said = ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    base, most = float(np.mean([cell["base"] for cell in cells])), f"{ceiling.mean():+.3f}" if len(ceiling) else "-"
    names = [cell["best_name"] for cell in cells]
    best = max(names, key=names.count)
    gain, got = (f"{value:+.3f} ± {error:.3f}" for value, error in (mean_of(cells, "gain"), mean_of(cells, "got")))
    return f"| {name} | {learner} | {len(cells)} | {base:.3f} | {gain} | {best} | {most} | {said} | {got} | {sum(map(lost, cells))} |"


def lost(cell: dict[str, Any]) -> bool:
    """Said `augment`, and lost by it on test rows."""
    return bool(cell["verdict"] == "augment" and cell["got"] < 0)


def mean_of(cells: list[dict[str, Any]], key: str) -> tuple[float, float]:
    """(mean over seeds, standard error): that of the paired test rows, or over seeds where that is larger, as few seeds understate it."""
    value, over = mean(np.array([cell[key] for cell in cells], dtype=float))
    within = float(np.sqrt(np.sum([cell[f"{key}_se"] ** 2 for cell in cells]))) / len(cells)
    return value, max(over, within)


def beyond_chance() -> str:
    """How many settings gain or lose beyond chance, each for itself and all together."""
    found = [mean_of(cells, "gain") for name in SHORTAGES for learner in LEARNERS if (cells := RESULTS.named(name, learner))]
    z = np.array([value / max(error, 1e-12) for value, error in found])
    # Holm 1979: the smallest p against level / settings, and so on until one is not below.
    p = np.sort(2 * norm.sf(np.abs(z)))
    kept = int(np.cumprod(p * np.arange(len(p), 0, -1) <= LEVEL).sum())
    sure = np.argsort(-np.abs(z))[:kept]
    return (
        f"Of {len(z)} settings the gain is beyond two errors in {(z > 2).sum()}, and a loss in {(z < -2).sum()}; "
        f"with all {len(z)} held to a joint level of {LEVEL:g} (Holm), {(z[sure] > 0).sum()} gains and {(z[sure] < 0).sum()} losses remain."
    )


def augmented() -> str:
    """How often the verdict was `augment`, and which of these lost."""
    cells = RESULTS.read()
    said = [cell["verdict"] for cell in cells.values()].count("augment")
    wrong = [f"{name} ({cell['got']:+.3f} ± {cell['got_se']:.3f})" for name, cell in cells.items() if lost(cell)]
    return f"Of {len(cells)} runs {said} said `augment`; of these lost on test rows: {'; '.join(wrong) or 'none'}."


def page() -> str:
    """The page."""
    lines = {f"{name} ({learner})": line(name, learner) for name in SHORTAGES for learner in LEARNERS}
    trained = "; or ".join(sorted({cell.get("trained", named(EARLIER)) for cell in RESULTS.read().values()}))
    text = [
        "# Where synthesis wins",
        "",
        f"`make bench-where` on {RESULTS.when()}. Whole passes: {', '.join(GENERATORS)}; {DRAWS} draws against bags of {DRAWS}; "
        "every candidate has the offset and calibration; losses are balanced log losses on test rows that chose nothing. "
        f"tabular_diffusion trained at {trained}.",
        "",
        "Gain: loss of the best candidate without synthesis minus that of the best with it, both by out-of-fold loss, mean over seeds "
        "with its standard error: that of the paired test rows, or over seeds where that is larger. "
        "Ceiling: what the best without synthesis gains when the "
        "rows that were taken away come back. Verdict's "
        "gain: of what the verdict says to do. Wrong: runs that said `augment` where it lost on test rows.",
        "",
        "| shortage | learner | seeds | best without | gain | best with (mostly) | ceiling | verdicts | verdict's gain | wrong |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *filter(None, lines.values()),
        "",
        beyond_chance(),
        "",
        augmented(),
    ]
    waiting = [setting for setting, one in lines.items() if one is None]
    text += ["", f"Not measured yet: {'; '.join(waiting)}."] if waiting else []
    return "\n".join(text) + "\n"


def main() -> None:
    """Runs what is not there and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--learner", action="append", choices=LEARNERS)
    options.add_argument("--page", action="store_true")
    given = options.parse_args()
    ends = time.monotonic() + 60 * given.minutes
    for seed in range(FIRST, FIRST + (0 if given.page else given.seeds)):
        for learner in given.learner or LEARNERS:
            for name in SHORTAGES:
                cell = f"{name}, {learner}, {seed}"
                if cell in RESULTS.read() or time.monotonic() > ends:
                    continue
                RESULTS.keep(cell, measure(name, learner, seed))
                print(cell, flush=True)
                PAGE.write_text(page())
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
