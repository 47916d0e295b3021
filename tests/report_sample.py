"""A believable report of a run on digits with a hidden subclass, in the shape of report.json; made by formula, the same each time."""

import base64
from typing import Any

import numpy as np

from codsa_ray.picture import encoded

from why_sample import why_sample

HOSTILE = '</td><script>alert("größe")</script>'


def report_sample() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        "version": "0.1.0",
        "created": "2026-11-21T10:15:00+00:00",
        "title": "digits.parquet, target high",
        "job": {"data": "digits.parquet", "target": "high", "group": ["digit"], "learner": "boosted", "trials": 24, "seed": 0},
        "data": {"rows": 1797, "train": 1438, "test": 359, "set_aside": 3, "columns": 66, "folds": 5},
        "verdict": _verdict(),
        "schema": _schema(),
        "left_out": [{"column": "row_id", "reason": "unique in every row: an id"}],
        "groups": _groups(),
        "candidates": _candidates(),
        "curve": _curve(),
        "reliability": _reliability(),
        "metrics": _metrics(),
        "why": why_sample(_groups(), HOSTILE),
        "fidelity": _fidelity(rng),
        "privacy": {"dcr_ratio": 0.97, "closer_share": 0.53, "copies": 0.0, "copies_held_out": 0.0, "rows": 620, "points": 2400},
        "sample": _sample(),
        "pictures": _pictures(rng),
        "images": _images(),
        "picture_quality": {
            **{"frechet": 0.31, "frechet_real": 0.08, "picture_precision": 0.81, "picture_fresh": 0.86, "picture_recall": 0.77},
            **{"judged": 0.91, "judged_real": 0.95},
        },
        "texts": _texts(),
        "text_quality": {
            **{"text_c2st": 0.61, "text_c2st_se": 0.02, "perplexity": 5.12, "perplexity_real": 4.66},
            **{"pairs": 0.41, "pairs_real": 0.55, "copied": 0.004, "copied_fresh": 0.01},
        },
        "coupling": _coupling(),
        "stages": _stages(),
        "notices": [
            "The folds were lowered from 5 to 4: the smallest group has 10 rows.",
            "generator/ and this report hold real rows; use --no-rows to leave them out.",
        ],
        "environment": {"python": "3.11.9", "ray": "2.60.0", "torch": "2.9.0", "cores": 2, "gpus": 0},
    }


def _verdict() -> dict[str, Any]:
    return {
        "kind": "augment",
        "sentences": [
            "620 synthetic rows from tabular_diffusion, five draws averaged, cut the balanced loss from 0.145 to 0.122.",
            "The gain over the best candidate without synthesis is 0.023 (95 % interval 0.008 to 0.038), largest in high=yes, digit=8.",
        ],
        "gain": {"mean": 0.023, "low": 0.008, "high": 0.038, "level": 0.95},
        "base": "group weights 0.5, bag of 5, calibrated",
        "chosen": "tabular_diffusion gamma 2, row weight 0.2, 5 draws, calibrated",
        "levels": [
            {"level": "leave", "entry": "none, raw", "loss": 0.391, "se": 0.021, "entries": 1},
            {"level": "correct", "entry": "none, calibrated", "loss": 0.171, "se": 0.013, "entries": 2},
            {"level": "reweight", "entry": "group weights 0.5, calibrated", "loss": 0.156, "se": 0.012, "entries": 9},
            {"level": "bag", "entry": "group weights 0.5, bag of 5, calibrated", "loss": 0.145, "se": 0.011, "entries": 8},
            {
                "level": "augment",
                "entry": "tabular_diffusion gamma 2, row weight 0.2, 5 draws, calibrated",
                "loss": 0.122,
                "se": 0.01,
                "entries": 16,
            },
        ],
        "plan": {"rows": 620, "draws": 5, "row_weight": 0.2, "regions": {"high=yes, digit=8": 310, "high=no, digit=3": 310}},
    }


def _schema() -> list[dict[str, Any]]:
    pixels = [
        {"column": f"pixel_{r}_{c}", "kind": "integer", "range": "0 to 16", "nulls": 0.0, "note": ""} for r in range(8) for c in range(8)
    ]
    extra = [
        {"column": "high", "kind": "boolean", "range": "false, true", "nulls": 0.0, "note": "target"},
        {"column": "digit", "kind": "categorical", "range": "10 values", "nulls": 0.0, "note": "group"},
        {"column": HOSTILE, "kind": "numeric", "range": "-3.1 to 4.2", "nulls": 0.062, "note": "a hard name"},
    ]
    return extra + pixels


def _groups() -> list[dict[str, Any]]:
    rows = [
        ("high=no, digit=3", 10, 37, 0.412, 0.051, 0.255, 0.041),
        ("high=yes, digit=8", 10, 35, 0.538, 0.066, 0.302, 0.049),
        ("high=no, digit=0", 142, 36, 0.031, 0.008, 0.034, 0.008),
        ("high=no, digit=1", 146, 36, 0.094, 0.016, 0.091, 0.015),
        ("high=no, digit=2", 142, 35, 0.062, 0.012, 0.058, 0.011),
        ("high=no, digit=4", 145, 36, 0.071, 0.014, 0.069, 0.013),
        ("high=yes, digit=5", 146, 36, 0.083, 0.013, 0.080, 0.013),
        ("high=yes, digit=6", 145, 36, 0.044, 0.010, 0.047, 0.010),
        ("high=yes, digit=7", 143, 36, 0.066, 0.012, 0.063, 0.012),
        ("high=yes, digit=9", 144, 36, 0.129, 0.019, 0.131, 0.019),
    ]
    return [
        {
            "name": name,
            "mix": 0.1,
            "train": train,
            "test": test,
            "before": {"loss": b, "se": s, "test_loss": b * 1.04, "test_se": s * 1.9},
            "after": {"loss": a, "se": t, "test_loss": a * 1.08, "test_se": t * 1.9},
        }
        for name, train, test, b, s, a, t in rows
    ]


BASES = (
    ("none", "leave", "raw", 0.391),
    ("none", "correct", "offset", 0.232),
    ("none", "correct", "calibrated", 0.171),
    ("class weights full", "reweight", "calibrated", 0.168),
    ("group weights 0.5", "reweight", "calibrated", 0.156),
    ("logit-adjusted loss", "reweight", "calibrated", 0.163),
    ("undersampled 3 x smallest, bag of 5", "bag", "calibrated", 0.189),
    ("bag of 5", "bag", "calibrated", 0.152),
    ("group weights 0.5, bag of 5", "bag", "calibrated", 0.145),
)


def _candidates() -> list[dict[str, Any]]:
    found = []
    for name, level, form, loss in BASES:
        found.append(_candidate(name, level, form, loss, 0.011, 2.4))
    for generator, lift in (("tabular_diffusion", 0.0), ("sequential_trees", 0.014)):
        for gamma, loss in _losses(lift):
            drawn = {
                "generator": generator,
                "gamma": gamma,
                "row_weight": 0.2,
                "draws": 5,
                "size": round(310 * gamma),
                "eta": 0.0,
                "tilt": 0.0,
            }
            name = f"{generator} gamma {gamma:g}, row weight 0.2, 5 draws"
            found.append(_candidate(name, "augment", "calibrated", loss, 0.010, 6.1) | drawn)
    failed = _candidate("sequential_trees gamma 4, row weight 1", "augment", "calibrated", None, None, 0.4)
    return [*found, failed | {"failed": "class 1 has no row in fold 3", "generator": "sequential_trees", "gamma": 4.0, "size": 1240}]


def _candidate(name: str, level: str, form: str, loss: float | None, se: float | None, seconds: float) -> dict[str, Any]:
    test = (None, None) if loss is None else (loss * 1.06, 0.021)
    return {
        "name": f"{name}, {form}",
        "kind": "synthetic" if level == "augment" else "plain",
        "level": level,
        "form": form,
        "generator": None,
        "gamma": None,
        "eta": None,
        "tilt": None,
        "row_weight": None,
        "draws": None,
        "size": 0,
        "loss": loss,
        "se": se,
        "test_loss": test[0],
        "test_se": test[1],
        "seconds": seconds,
        "failed": None,
    }


def _losses(lift: float) -> list[tuple[float, float]]:
    return [
        (g, round(0.112 + lift + 0.034 / (1 + 2 * g) + 0.0022 * g**1.4 + 0.003 * np.sin(9 * g), 4))
        for g in (0.3, 0.7, 1, 1.4, 2, 2.7, 3.3, 4)
    ]


def _curve() -> dict[str, Any]:
    generators = []
    for name, lift in (("tabular_diffusion", 0.0), ("sequential_trees", 0.014)):
        points = [
            {
                "size": round(310 * g),
                "gamma": g,
                "loss": loss,
                "se": 0.010,
                "name": f"{name} gamma {g:g}, row weight 0.2, 5 draws, calibrated",
            }
            for g, loss in _losses(lift)
        ]
        generators.append({"name": name, "points": points})
    return {"generators": generators, "lines": [{"name": f"{name}, {form}", "loss": loss, "se": 0.011} for name, _, form, loss in BASES]}


def _reliability() -> dict[str, Any]:
    p = np.array([0.004, 0.02, 0.07, 0.19, 0.38, 0.61, 0.81, 0.93, 0.98, 0.996])
    before, after = 1 / (1 + np.exp(-0.55 * np.log(p / (1 - p)) + 0.3)), 1 / (1 + np.exp(-0.96 * np.log(p / (1 - p))))

    def points(y: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"p": float(a), "y": float(b), "n": 144, "low": max(0.0, float(b) - 0.07), "high": min(1.0, float(b) + 0.07)}
            for a, b in zip(p, y, strict=True)
        ]

    return {"before": points(before), "after": points(after), "ece": {"before": 0.118, "after": 0.021}}


def _metrics() -> dict[str, Any]:
    plain = {"balanced log loss": (0.391, 0.04), "balanced accuracy": (0.902, 0.02), "macro F1": (0.911, 0.02), "AUROC": (0.971, 0.01)}
    lifts = {"balanced log loss": -0.244, "balanced accuracy": 0.041, "macro F1": 0.033, "AUROC": 0.014}

    def interval(value: float, half: float) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    def way(names: list[str], candidate: str, lift: float, known: tuple[str, ...] = tuple(lifts)) -> dict[str, Any]:
        values = {name: interval(plain[name][0] + lift * lifts[name], plain[name][1]) for name in known}
        return {"ways": names, "candidate": candidate, "values": values}

    ways = [way(["plain"], "none", 0.0), way(["base"], BASES[-1][0], 0.9), way(["chosen"], "tabular_diffusion gamma 2", 1.0)]
    moved = way(["moved"], "none", 0.6, ("balanced accuracy", "macro F1"))
    ways[0]["values"]["AUROC"] = {"value": None, "low": None, "high": None}
    return {
        "names": list(lifts),
        "level": 0.95,
        "resamples": 500,
        "bins": 15,
        "test": {
            "rows": 359,
            "looked_at": 359,
            "ways": [*ways, moved],
            "notices": ["AUROC is undefined: no row of label no (the test rows)"],
        },
        "out_of_fold": {"rows": 1438, "looked_at": 1438, "ways": ways, "notices": []},
    }


def _fidelity(rng: np.random.Generator) -> dict[str, Any]:
    columns = [
        {
            "name": HOSTILE,
            "kind": "numeric",
            "distance": 0.081,
            "bins": [f"{v:.1f} to {v + 0.5:.1f}" for v in np.arange(-3, 4, 0.5)] + ["null"],
            "real": _bell(0.0, 14, 0.06),
            "drawn": _bell(0.35, 14, 0.07),
        },
        {
            "name": "digit",
            "kind": "categorical",
            "distance": 0.012,
            "bins": [str(d) for d in range(10)],
            "real": [0.1, 0.11, 0.1, 0.08, 0.1, 0.11, 0.1, 0.1, 0.1, 0.1],
            "drawn": [0.1, 0.1, 0.1, 0.09, 0.11, 0.1, 0.1, 0.1, 0.1, 0.1],
        },
    ]
    for r, c in [(r, c) for r in range(8) for c in range(8)]:
        real = rng.dirichlet(np.linspace(3, 1, 17))
        drawn = np.abs(real + rng.normal(0, 0.008, 17))
        shares = (drawn / drawn.sum()).tolist()
        columns.append(
            {
                "name": f"pixel_{r}_{c}",
                "kind": "integer",
                "distance": float(np.abs(np.cumsum(real - shares)).max()),
                "bins": [str(v) for v in range(17)],
                "real": real.tolist(),
                "drawn": shares,
            }
        )
    place = np.arange(20)
    real = np.exp(-np.abs(place[:, None] - place) / 3)
    drawn = np.clip(real + rng.normal(0, 0.03, real.shape), 0, 1)
    return {
        "columns": columns,
        "correlation": {
            "names": [f"pixel_{p // 8}_{p % 8}" for p in place],
            "real": real.tolist(),
            "drawn": drawn.tolist(),
            "error": 0.024,
        },
        "c2st": {"auc": 0.742, "se": 0.011},
        "regions": [
            {"name": "high=no, digit=3", "real": 10, "drawn": 310, "distance": 0.141, "c2st": None},
            {"name": "high=no, digit=0", "real": 142, "drawn": 140, "distance": 0.048, "c2st": {"auc": 0.701, "se": 0.03}},
        ],
    }


def _bell(middle: float, bins: int, null: float) -> list[float]:
    mass = np.exp(-0.5 * (np.linspace(-3, 3.5, bins) - middle) ** 2)
    return [*(mass / mass.sum() * (1 - null)).tolist(), null]


def _sample() -> list[dict[str, Any]]:
    real = {"high": True, "digit": "8", HOSTILE: 0.412, "age": 41, "since": "2021-08-05", "job": None}
    return [
        {"region": f"high=yes, digit={d}", "distance": 0.04 * d, "drawn": real | {"age": 41 + d, HOSTILE: 0.4}, "nearest": real}
        for d in (1, 2, 3)
    ]


EIGHT = ("..####..", ".##..##.", ".##..##.", "..####..", ".##..##.", ".##..##.", ".##..##.", "..####..")
THREE = ("..####..", ".##..##.", ".....##.", "...###..", ".....##.", ".....##.", ".##..##.", "..####..")


def _pictures(rng: np.random.Generator) -> dict[str, Any]:
    def some(shape: tuple[str, ...], noise: float) -> list[list[float]]:
        ink = np.array([[15.0 if cell == "#" else 0.0 for cell in line] for line in shape]).ravel()
        return [np.clip(ink + rng.normal(0, noise, 64), 0, 16).round().tolist() for _ in range(10)]

    regions = [
        {"name": name, "real": some(shape, 2.0), "drawn": some(shape, 3.0), "nearest": some(shape, 2.0)}
        for name, shape in (("high=yes, digit=8", EIGHT), ("high=no, digit=3", THREE))
    ]
    return {"rows": 8, "columns": 8, "max": 16.0, "regions": regions}


def _images() -> list[dict[str, Any]]:
    """Discs of two colours on a wide and on a square canvas."""
    rng = np.random.default_rng(3)

    def disc(width: int, colour: tuple[int, int, int]) -> str:
        y, x = np.mgrid[:48, :width]
        inside = (y - rng.normal(24, 3)) ** 2 + (x - rng.normal(width / 2, 3)) ** 2 < rng.normal(15, 2) ** 2
        pixels = np.where(inside[..., None], colour, 235) + rng.normal(0, 8, (48, width, 1))
        return base64.b64encode(encoded(pixels.clip(0, 255).astype(np.uint8))).decode()

    regions = []
    for name, width, colour in ((f"colour=red {HOSTILE}", 64, (200, 40, 30)), ("colour=blue", 48, (40, 60, 200))):
        drawn, nearest, real = ([disc(width, colour) for _ in range(10)] for _ in range(3))
        distance = [round(float(v), 4) for v in rng.uniform(0.05, 0.2, 10)]
        regions.append({"name": name, "drawn": [*drawn[:9], None], "nearest": nearest, "real": real, "distance": distance, "fresh": 0.11})
    return [{"column": "photo", "regions": regions}]


def _texts() -> list[dict[str, Any]]:
    said = [
        ("the room was dirty and the bed was broken", "the bed was broken and the staff rude"),
        (f"noise all night {HOSTILE}", "noise all night and a cold shower"),
        ("החדר היה מלוכלך 😀", "החדר היה קטן 😀"),
        ("", None),
    ]
    rows = [{"drawn": drawn, "nearest": near or "null", "distance": 0.2 + 0.1 * i} for i, (drawn, near) in enumerate(said)]
    return [{"column": "review", "regions": [{"name": "verdict=bad", "rows": rows}]}]


def _coupling() -> list[dict[str, Any]]:
    sides = {"real": (0.91, 0.32, 1.46), "drawn": (0.86, 0.31, 1.06), "independent": (0.5, 0.045, -1.43)}
    told = {side: dict(zip(("auc", "retrieved", "information"), values, strict=True)) for side, values in sides.items()}
    return [{"a": a, "b": b, **told} for a, b in (("table", "photo"), ("photo", HOSTILE))]


def _stages() -> list[dict[str, Any]]:
    stages = [
        ("read", 1800, 1797, 0.8),
        ("fit", 1438, 1438, 21.4),
        ("synthesize", 0, 31744, 6.2),
        ("search", 1438, 47454, 38.0),
        ("draw", 3100, 3100, 1.1),
        ("apply", 1438, 4538, 5.5),
    ]
    return [
        {"name": n, "rows_in": a, "rows_out": b, "seconds": s, "rows_per_second": max(a, b) / s, "reused": n == "read"}
        for n, a, b, s in stages
    ]
