"""Domain: which rows are of the domain that a model is for, and the ways to take the others into a fit; knows no fold and no loss."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import SchemaError
from codsa_ray.infer import near
from codsa_ray.values import as_text

POOLED, TARGET, OTHERS, WEIGHTED, FLATTENED = "", "target", "others", "weighted", "flattened"
"""Real rows of a fit: those of all domains as they are, of the target's alone, of the others alone, of all with importance weights, or with
their roots."""
POWERS = {WEIGHTED: 1.0, FLATTENED: 0.5}
WAYS = (POOLED, TARGET, OTHERS, WEIGHTED, FLATTENED)
WORDS = {
    TARGET: "target domain alone",
    OTHERS: "other domains alone",
    WEIGHTED: "importance weights full",
    FLATTENED: "importance weights 0.5",
}
AIDED = 10.0
"""Sizes relative to the rows count rows of other domains up to so many times the target's own: the few themselves would bound synthesis
to a few rows, and all of the others would ask for millions."""


@dataclass(frozen=True)
class Domain:
    """Rows whose column holds a value: the ones that are held out, tested, and drawn.

    Args:
        column: tells domains apart; learners do not see it, since it is constant where they will be used.
        value: the target domain's, as `as_text` spells it.
    """

    column: str
    value: str

    def mask(self, table: pa.Table) -> np.ndarray:
        """(n,) bool rows of the target domain; a null is another domain."""
        texts = as_text(table[self.column])
        return np.asarray(pc.fill_null(pc.equal(texts, self.value), False).to_numpy(zero_copy_only=False))

    def names(self, table: pa.Table) -> Counter[str]:
        """Rows of each domain; a null's name is "null"."""
        found = pc.value_counts(pc.fill_null(as_text(table[self.column]), "null"))
        return Counter({pair["values"]: pair["counts"] for pair in found.to_pylist()})

    def check(self, names: Mapping[str, int]) -> None:
        """Raises SchemaError unless there are rows of the target domain and of another, by rows of each."""
        if not names.get(self.value):
            told = f"no row of {self.column!r} is {self.value!r}"
            raise SchemaError("a --target-domain that rows have", told, f"did you mean {near(self.value, sorted(names))}?")
        if len([name for name, rows in names.items() if rows]) < 2:
            got = f"all rows of {self.column!r} are {self.value!r}"
            raise SchemaError("rows of other domains beside the target's", got, "leave --domain out")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def sized(own: int, others: int) -> int:
    """How many of the other domains' rows sizes relative to the rows count (AIDED)."""
    return int(min(others, AIDED * own))
