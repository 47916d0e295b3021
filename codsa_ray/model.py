"""Model: boosted trees of a run, as they lie in its folder, with the correction that belongs to them; trains nothing."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from codsa_ray.correct import Correction, average
from codsa_ray.encode import Ordinal
from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder
from codsa_ray.groups import Groups
from codsa_ray.learners.boosted import Classifier
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass

FILE = "model.json"


@dataclass(frozen=True)
class Model:
    """What `codsa train` writes: scores rows of DATA's columns as the verdict's candidate would.

        from codsa_ray import Model
        p = Model.load("codsa-run/model").predict_proba(table)  # a pandas or an arrow table

    Args:
        schema: of the training rows.
        groups: cells that are known when predicting, for corrections that differ by them.
        encoder: of the features.
        fits: trees; several are averaged.
        correction: correction.json.
    """

    schema: Schema
    groups: Groups
    encoder: Ordinal
    fits: tuple[Classifier | OneClass, ...]
    correction: Correction

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the columns of scores."""
        return self.schema.classes

    def log_proba(self, table: pa.Table) -> np.ndarray:
        """(n, C) corrected log-probabilities of rows with DATA's columns; the target and what was hidden from learners may be missing.

        Raises:
            SchemaError: a column is missing, or of a type it cannot be read from.
        """
        for name in (self.schema.target, *self.schema.hidden):
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), self.schema[name].arrow))
        canonical, _ = self.schema.canonical(table)
        X = self.encoder.encode(canonical)
        raw = average([fit.scores(X) for fit in self.fits])
        cells = self.groups.assign_each_label(table, self.classes) if self.correction.by_cell else None
        return self.correction.apply(raw, cells)

    def predict_proba(self, rows: pa.Table | pd.DataFrame) -> np.ndarray:
        """(n, C) corrected probabilities."""
        return np.exp(self.log_proba(rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)))

    def predict(self, rows: pa.Table | pd.DataFrame) -> np.ndarray:
        """(n,) most probable class names under the target mix."""
        return np.array(self.classes, dtype=object)[self.predict_proba(rows).argmax(axis=1)]

    def save(self, folder: Folder, facts: dict[str, Any]) -> None:
        """Writes the trees in XGBoost's own format and, last, model.json; `facts` go with it."""
        fits = []
        for index, fit in enumerate(self.fits):
            if isinstance(fit, OneClass):
                fits.append(asdict(fit))
                continue
            folder.write_bytes(f"trees-{index:03d}.ubj", fit.trees)
            fits.append({"start": fit.start.tolist(), "present": fit.present.tolist()})
        value = {"schema": self.schema.to_json(), "groups": self.groups.to_json(), "encoder": self.encoder.to_json(), "fits": fits}
        folder.write_json(FILE, {**value, "correction": self.correction.to_json(), **facts})

    @staticmethod
    def load(folder: str) -> "Model":
        """A model from its folder, local or s3://; unpickles nothing.

        Raises:
            FolderError: no model lies there.
        """
        place = Folder(folder).absolute
        if not place.exists(FILE):
            raise FolderError("a folder that `codsa train` wrote", f"{place.shown} without {FILE}", "give RUN/model")
        value = place.read_json(FILE)
        schema = Schema.from_json(value["schema"])
        fits = tuple(_fit(place, index, one, len(schema.classes)) for index, one in enumerate(value["fits"]))
        correction = Correction.from_json(value["correction"])
        return Model(schema, Groups.from_json(value["groups"]), Ordinal.from_json(value["encoder"]), fits, correction)


def _fit(place: Folder, index: int, value: dict[str, Any], classes: int) -> Classifier | OneClass:
    if "start" not in value:
        return OneClass(**value)
    return Classifier(place.read_bytes(f"trees-{index:03d}.ubj"), np.array(value["start"]), np.array(value["present"]), classes)
