"""Pretraining of pictures and texts: a source teaches what few rows cannot show, and a fit that died ends alike."""

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits

from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators import image_diffusion
from codsa_ray.generators.image_diffusion import ImageDiffusion
from codsa_ray.generators.text_lm import TextLm
from codsa_ray.nn.line_loss import LineLoss, plain
from codsa_ray.nn.lines import Lines
from codsa_ray.nn.picture_loss import PictureLoss, PictureRows
from codsa_ray.nn.pictures import Frame
from codsa_ray.nn.row_sequences import RowSequences
from codsa_ray.picture import encoded
from codsa_ray.schema import Column

from failing import Died, Mortal
from tables import LocalWorker, digest, with_regions

PICTURES = ImageDiffusion(width=16, steps=30, pretrain=60, batch=48, rate=4e-3, held_out=0.2, evaluations=8, guidance=1.0, block=60)
TEXTS = replace(TextLm.tiny(), steps=60, pretrain=150, block=200, vocabulary=256 + 40)
Method = ImageDiffusion | TextLm


def scans(first: int, last: int) -> pa.Table:
    """Rows first to last of each of three digits, as pictures."""
    X, y = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(y == digit)[first:last] for digit in (0, 1, 4)])
    files = [encoded((X[row] * 15.9).astype(np.uint8).reshape(8, 8, 1)) for row in rows]
    return pa.table({"scan": pa.array(files, pa.binary()), "label": y[rows].astype(str)})


SAID = {"a": "red fox runs home", "b": "old cat sits here"}


def sayings(n: int, seed: int) -> pa.Table:
    """Texts of seven words of a label, each followed by its own next one, now and then with "and" between."""
    rng, label = np.random.default_rng(seed), np.where(np.arange(n) % 2, "b", "a")
    texts = []
    for one, start in zip(label, rng.integers(0, 4, n), strict=True):
        words = (SAID[one].split() * 3)[start : start + 7]
        texts.append(" ".join(f"{word} and" if rng.random() < 0.3 else word for word in words))
    return pa.table({"text": texts, "label": label})


def of(table: pa.Table, source: pa.Table | None) -> FitData:
    rows, schema, regions = with_regions(table, "label", ("label",))
    columns = tuple(Column("text", "text", "string") if column.name == "text" else column for column in schema.columns)
    data = FitData.of(rows, replace(schema, columns=columns), regions, 1)
    if source is None:
        return data
    found, _, regions = with_regions(source, "label", ("label",))
    for column in data.schema.columns:
        if column.name not in found.column_names:
            found = found.append_column(column.name, pa.nulls(len(found), column.arrow))
    return replace(data, source=FitData.of(found, data.schema, replace(data.regions, items=regions.items), 9))


def fit(settings: Method, data: FitData) -> Any:
    worker = LocalWorker(Folder(mkdtemp(prefix="pretraining-")))
    settings.fit(data, worker)
    return settings.load(worker.folder)


def unseen_pictures(fitted: Any) -> float:
    """Cost of pictures that nobody showed it."""
    table = of(scans(10, 20), None).table()
    values, columns = torch.from_numpy(fitted.drawing.frame.read(table["scan"].to_pylist())), fitted.beside.told(table)
    rows = PictureRows.of(values, columns, table[REGION].to_numpy().astype(np.int64), np.ones(3), fitted.drawing.enter)
    loss = PictureLoss(rows, fitted.factors, fitted.drawing.noising, 48, LocalWorker(Folder(mkdtemp())))
    return loss.score(rows, 0)(fitted.drawing.network)


def unseen_texts(fitted: Any) -> float:
    """Cost of a word of texts that nobody showed it."""
    others = of(sayings(200, 2), None)
    table, mass = others.table().sort_by(REGION), torch.linspace(1 / 200, 1, 200, dtype=torch.float64)
    loss = LineLoss(fitted.rows.told(table, foreign=True), mass, 100, LocalWorker(Folder(mkdtemp())), plain)
    return loss.score(fitted.network, 200, 0)


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_what_few_rows_do_not_show_is_expected_after_a_source(kind: str) -> None:
    """As many steps without it bring less: on three seeds what is unseen costs .62 to .65 of that (pictures), .45 to .47 (texts)."""
    if kind == "pictures":
        settings, few, many, cost = PICTURES, scans(0, 1), scans(20, 120), unseen_pictures
    else:
        settings, few, many, cost = TEXTS, sayings(12, 0), sayings(400, 1), unseen_texts
    alone = fit(replace(settings, steps=settings.steps + settings.pretrain), of(few, None))
    fitted = fit(settings, of(few, many))
    assert cost(fitted) < 0.75 * cost(alone)
    assert f"pretrained on {len(many)} rows of the source" in fitted.notice


CASES = {"pictures": (PICTURES, scans(0, 15), scans(20, 60), "scan"), "texts": (TEXTS, sayings(40, 0), sayings(80, 1), "text")}


@pytest.mark.parametrize("kind", CASES)
def test_a_source_that_teaches_nothing_changes_no_byte(kind: str) -> None:
    """It is not asked, or has neither picture nor text; the latter is told."""
    settings, few, many, name = CASES[kind]
    settings = replace(settings, steps=10)
    alone = fit(settings, of(few, None))
    unasked = fit(replace(settings, pretrain=0), of(few, many))
    empty = fit(settings, of(few, many.drop_columns([name])))
    assert digest(alone.block(1, 3)) == digest(unasked.block(1, 3)) == digest(empty.block(1, 3))
    assert alone.notice == unasked.notice
    assert set(empty.notice) - set(alone.notice) == {"the source taught nothing: no row of it lies in a group and has what is drawn"}
    assert settings.needs.source
    assert not replace(settings, pretrain=0).needs.source


def test_where_the_region_fixes_all_columns_no_row_of_a_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told, asked = RowSequences.told, []

    def telling(self: RowSequences, table: pa.Table, foreign: bool = False) -> Lines:
        asked.append(foreign)
        return told(self, table, foreign)

    monkeypatch.setattr(RowSequences, "told", telling)
    rows, schema, regions = with_regions(pa.table({"text": ["no", "yes"] * 20, "label": ["a", "b"] * 20}), "label", ("label", "text"))
    texts = tuple(Column("text", "text", "string") if column.name == "text" else column for column in schema.columns)
    alone = FitData.of(rows, replace(schema, columns=texts), regions, 1)
    fitted = fit(TEXTS, replace(alone, source=alone))
    assert fitted.before is None
    assert fitted.block(1, 0).shape == (TEXTS.block, 0)
    assert asked
    assert not any(asked)


@pytest.mark.parametrize("kind", CASES)
def test_a_fit_that_died_while_tuned_prepares_no_row_of_its_source(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, few, many, _ = CASES[kind]
    settings, data = replace(settings, steps=30, pretrain=30, checkpoint=10), of(few, many)
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path)), dies_saved=40))
    asked: list[int] = []
    told, decoded = RowSequences.told, image_diffusion._values

    def telling(self: RowSequences, table: pa.Table, foreign: bool = False) -> Lines:
        asked.append(len(table))
        return told(self, table, foreign)

    def decoding(frame: Frame, pictures: list[bytes], base: None) -> torch.Tensor:
        asked.append(len(pictures))
        return decoded(frame, pictures, base)

    monkeypatch.setattr(RowSequences, "told", telling)
    monkeypatch.setattr(image_diffusion, "_values", decoding)
    settings.fit(data, LocalWorker(Folder(str(tmp_path))))
    assert sum(asked) <= len(few)
    asked.clear()
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "anew"))))
    assert sum(asked) >= len(many)


@pytest.mark.parametrize("step", [10, 40])
@pytest.mark.parametrize("kind", CASES)
def test_a_fit_that_died_in_either_phase_ends_with_the_bytes_of_one_that_did_not(kind: str, step: int, tmp_path: Path) -> None:
    """Of 30 steps each, with two checkpoints: at the first of either."""
    settings, few, many, _ = CASES[kind]
    settings, data = replace(settings, steps=30, pretrain=30, checkpoint=10), of(few, many)
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path / "died")), dies_saved=step))
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "died"))))
    names = {path.name for path in (tmp_path / "whole").iterdir() if path.is_file()}
    assert names
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "died" / name).read_bytes(), name
