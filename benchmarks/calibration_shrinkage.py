"""What shrinkage of the calibration costs with few rows and keeps with many.

Scores with a known fault (none, log-odds too steep or too flat, a bias) for few rare rows and 1000 common ones per class.
Printed: balanced log loss on fresh rows of the calibrated scores minus that of the scores as they are, averaged over data sets.
`python benchmarks/calibration_shrinkage.py`
"""

import numpy as np

from codsa_ray import correct
from codsa_ray.risk import Classification, balanced, row_weights

RARE = (5, 10, 24, 100, 1000)
FAULTS = {"none": (1.0, 0.0), "steep x3": (3.0, 0.0), "flat x.5": (0.5, 0.0), "bias 1": (1.0, 1.0)}


def sample(rng: np.random.Generator, counts: tuple[int, ...], slope: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """(log-probabilities, labels): the scores are the true logits x slope, + bias on the last class."""
    truth = np.repeat(np.arange(len(counts)), counts)
    centre = 2.0 * np.eye(len(counts))[truth]
    x = centre + rng.standard_normal((len(truth), len(counts)))
    logits = 2.0 * x * slope
    logits[:, -1] += bias
    return correct.normalise(logits), truth


def excess(rng: np.random.Generator, counts: tuple[int, ...], fault: tuple[float, float], repeats: int) -> float:
    """Mean of calibrated minus plain loss on fresh balanced rows."""
    classes = len(counts)
    task, mix = Classification(classes), np.full(classes, 1 / classes)
    fresh, label = sample(rng, (4000,) * classes, *fault)
    plain = balanced(task.losses(fresh, label), label, mix)
    total = 0.0
    for _ in range(repeats):
        scores, truth = sample(rng, counts, *fault)
        fitted = correct.Calibration.fit(scores, truth, row_weights(truth, mix))
        total += balanced(task.losses(fitted.apply(fresh), label), label, mix) - plain
    return total / repeats


def table(slope_spread: float, class_spread: float, classes: int, repeats: int = 40) -> None:
    """Prints one setting: a line per fault, a column per number of rare rows."""
    correct.SLOPE_SPREAD, correct.CLASS_SPREAD = slope_spread, class_spread
    print(f"spread of the mean slope {slope_spread}, of classes {class_spread}, {classes} classes; rare rows {RARE}")
    for name, fault in FAULTS.items():
        rng = np.random.default_rng(0)
        cells = [excess(rng, (1000,) * (classes - 1) + (rare,), fault, repeats) for rare in RARE]
        print(f"  {name:9s}" + " ".join(f"{cell:+.4f}" for cell in cells))


if __name__ == "__main__":
    for classes in (2, 5):
        for slope_spread, class_spread in ((100.0, 100.0), (1.0, 1.0), (1.0, 0.5), (0.5, 0.5), (0.5, 0.25), (0.3, 0.3), (0.2, 0.2)):
            table(slope_spread, class_spread, classes)
