"""The part of a believable report that says why: its ladder, gains, evidence, tradeoff and boundary; knows no other part."""

from typing import Any

import numpy as np


def why_sample(groups: list[dict[str, Any]], label: str) -> dict[str, Any]:
    """Of the report's groups and a class of that name."""
    return {
        "sentences": ["Correcting the scores alone takes the balanced loss from .391 to .171."],
        "ladder": _ladder(),
        "gains": {"plain": "none", "base": "group weights", "synthesis": "tabular_diffusion gamma 2", "groups": _gained(groups)},
        "evidence": _evidence(),
        "chosen": {"name": "tabular_diffusion gamma 2", "gamma": 2.0, "eta": 0.0, "generator": "tabular_diffusion"},
        "tradeoff": _tradeoff(groups),
        "boundary": _boundary(label),
    }


def _ladder() -> list[dict[str, Any]]:
    names = ("as it is", "offset", "offset and calibration", "best without synthesis", "the verdict")
    losses = (0.391, 0.232, 0.171, 0.145, 0.122)
    rows = []
    for i, (name, loss) in enumerate(zip(names, losses, strict=True)):
        row = {"step": name, "candidate": f"candidate of step {i}", "verdict": i == 4}
        for prefix, factor in (("", 1.0), ("test_", 1.06)):
            change = (None, None) if i == 0 else (factor * (loss - losses[i - 1]), 0.009)
            row |= dict(
                zip((f"{prefix}{key}" for key in ("loss", "se", "change", "change_se")), (factor * loss, 0.011, *change), strict=True)
            )
        rows.append(row)
    return rows


def _gained(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": g["name"],
            "mix": 0.1,
            "rows": g["train"],
            "test_rows": g["test"],
            "base": 0.02 * i,
            "base_se": 0.01,
            "synthesis": g["before"]["loss"] - g["after"]["loss"],
        }
        | {
            "synthesis_se": g["after"]["se"],
            "test_base": 0.02,
            "test_base_se": 0.02,
            "test_synthesis": 0.01,
            "test_synthesis_se": None,
            "share": 0.1,
        }
        for i, g in enumerate(groups)
    ]


def _evidence() -> dict[str, Any]:
    biased = {
        "generator": "tabular_diffusion-aeec58f0",
        "p_value": 0.03,
        "score": 1.2,
        "published": 8.1,
        "ratio": 0.2,
        "cosine": 0.8,
        "gamma": 1.5,
    }
    contrast = {
        "group": "high=yes, digit=8",
        "against": "high=no, digit=0",
        "rows": 10,
        "against_rows": 142,
        "columns": 2,
        "symmetry": 1e-4,
    }
    return {
        "contrasts": [contrast | {"beyond_offset": 0.2, "biases": [biased, biased | {"gamma": None, "cosine": -0.1}]}],
        "gammas": {"tabular_diffusion-aeec58f0": 1.5},
        "notes": ["sequential_trees drew no row of high=no, digit=3"],
        "reason": None,
    }


def _tradeoff(groups: list[dict[str, Any]]) -> dict[str, Any]:
    def terms(size: int, tilt: float) -> dict[str, Any]:
        return {
            "size": size,
            "tilt": tilt,
            "mismatch": 0.6 / (1 + size / 150) + 0.1 * tilt,
            "bias": 0.03 * size / (size + 200) * (1 - tilt / 2),
        }

    designs = ((0, 0.0, 0.061, 0.008), (620, 0.0, 0.034, 0.005), (1240, 0.0, 0.029, 0.005), (620, 0.5, 0.032, 0.004))
    return {
        "candidate": "tabular_diffusion gamma 2, row weight 0.2, 5 draws",
        "size": 620,
        "tilt": 0.0,
        "m": [terms(round(1240 * i / 12), 0.0) for i in range(13)],
        "alpha": [terms(620, i / 8) for i in range(5)],
        "fits": [terms(size, tilt) | {"variance": value, "se": se} for size, tilt, value, se in designs],
        "groups": [{"name": g["name"], "shift": 0.02, "se": None, "drawn": 310, "held_out": g["train"]} for g in groups],
        "times": 2,
        "task": "classification",
    }


def _boundary(label: str) -> dict[str, Any]:
    place = np.linspace(-2.5, 2.5, 24)

    def line(shift: float) -> list[dict[str, Any]]:
        def pieces(offset: float) -> list[list[float]]:
            x = 0.4 * np.sin(1.5 * place) + shift + offset
            return np.stack([x[:-1], place[:-1], x[1:], place[1:]], axis=1).round(3).tolist()

        return [{"level": level, "segments": pieces(offset)} for level, offset in ((0.25, -0.4), (0.5, 0.0), (0.75, 0.4))]

    rng = np.random.default_rng(3)
    points = [[*rng.normal((1.2 if i % 3 == 0 else -0.6, 0), 0.8).round(3).tolist(), int(i % 3 == 0)] for i in range(180)]
    part = {
        "label": label,
        "names": ["none", "tabular_diffusion gamma 2"],
        "explained": [0.21, 0.14],
        "bandwidth": 0.4,
        "box": [-3, 3, -3, 3],
    }
    return part | {"before": line(0.6), "after": line(-0.1), "points": points}
