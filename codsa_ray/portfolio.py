"""Portfolio: the plug-ins that `default` and `auto` stand for, by the kinds of DATA's columns and the task; knows no data."""

from codsa_ray.contracts import TABLE_KINDS
from codsa_ray.plugins import make

DEFAULT, AUTO = "default", "auto"

GENERATORS = {
    DEFAULT: {
        "table": ("sequential_trees", "tabular_diffusion"),
        "text": ("text_lm",),
        "image": ("image_diffusion",),
        "both": ("latent_diffusion",),
    },
    AUTO: {
        "table": ("sequential_trees", "tabular_diffusion:continuous=0.5", "interpolation", "bootstrap"),
        "text": ("text_lm", "latent_diffusion", "bootstrap"),
        "image": ("image_diffusion", "image_diffusion:guidance=1.0", "latent_diffusion", "bootstrap"),
        "both": ("latent_diffusion", "bootstrap"),
    },
}
"""By what DATA holds beside tables' kinds. In `auto` a diffusion of tables is fitted where at least half of the drawn columns are
continuous: it costs most of the four, and on categories trees are as faithful."""

LEARNERS = ("boosted", "tfidf", "convnet", "joint", "autoencoder")
"""The first that takes the kinds and does the task is the default."""


def generators(name: str, kinds: frozenset[str], task: str) -> tuple[str, ...]:
    """What `name` stands for; any other name for itself. Of a portfolio, those that do the task.

    Args:
        kinds: of DATA's columns.
    """
    if name not in GENERATORS:
        return (name,)
    beside = kinds - TABLE_KINDS
    held = "both" if len(beside) > 1 else next(iter(beside), "table")
    return tuple(found for found in GENERATORS[name][held] if task in make("generators", found).needs.tasks)


def learner(name: str, kinds: frozenset[str], task: str) -> str:
    """What `name` stands for; where no learner takes the kinds and does the task, the first that does the task, to be refused by name."""
    if name != DEFAULT:
        return name
    able = [found for found in LEARNERS if task in make("learners", found).needs.tasks]
    return next((found for found in able if kinds <= make("learners", found).needs.kinds), able[0])
