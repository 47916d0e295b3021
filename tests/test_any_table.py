"""Any table goes through the whole pass: several classes, every arrow type, names that need quoting, text files."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_wine

from codsa_ray.pipeline import run
from codsa_ray.rows import FINAL

import runs


def wines() -> pa.Table:
    """Real, three classes, the first made rare."""
    found = load_wine()
    kept = np.flatnonzero((found.target > 0) | (np.arange(len(found.target)) % 4 == 0))
    columns = {name: found.data[kept, index] for index, name in enumerate(found.feature_names[:4])}
    return pa.table({**columns, "kind": found.target[kept]})


def test_three_classes(here: None, tmp_path: Path) -> None:
    report = run(runs.job(runs.written(tmp_path, wines()), tmp_path / "run", target="kind", trials=1, generator=("sequential_trees",)))
    real, drawn = runs.augmented(report)
    assert real.schema.field("kind").type == wines().schema.field("kind").type
    assert set(drawn["kind"].to_pylist()) <= {0, 1, 2}
    assert len(json.loads((tmp_path / "run" / "correction.json").read_text())["class_terms"]) == 3
    assert report.verdict.loss < np.log(3) / 2


def odd_types(n: int = 120) -> pa.Table:
    """Every less common arrow type, nulls in all, names that need quoting, a constant, a column without a value, doubled rows."""
    rng = np.random.default_rng(3)
    whole, gone = rng.integers(0, 50, n), rng.random(n) < 0.1

    def nulled(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.array(values, mask=gone).cast(kind)

    table = pa.table({
        "u64": nulled(whole.astype(np.uint64), pa.uint64()),
        "big": nulled(whole + 2**53 + 1, pa.int64()),
        "f16": nulled(whole.astype(np.float16), pa.float16()),
        "d64": nulled(whole * 86_400_000, pa.int64()).cast(pa.date64()),
        "t32": nulled(whole.astype(np.int32), pa.int32()).cast(pa.time32("s")),
        "t64": nulled(whole * 1000, pa.int64()).cast(pa.time64("us")),
        "span": nulled(whole, pa.int64()).cast(pa.duration("s")),
        "ns": nulled(whole * 10**15, pa.int64()).cast(pa.timestamp("ns")),
        "large": nulled(whole % 4, pa.int64()).cast(pa.string()).cast(pa.large_string()),
        "view": nulled(whole % 3, pa.int64()).cast(pa.string()).cast(pa.string_view()),
        "coded": nulled(whole % 5, pa.int64()).cast(pa.string()).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "d256": nulled(whole, pa.int64()).cast(pa.decimal256(40, 3)),
        "inf": pa.array(np.where(whole == 0, np.inf, np.where(whole == 1, np.nan, whole / 7))),
        "flat": pa.array([7] * n, pa.int16()),
        "void": pa.nulls(n, pa.float32()),
        "nothing": pa.nulls(n),
        'say "hi", größe <b>': nulled(whole / 3, pa.float64()),
        "the 'label' = x": pa.array(np.where(rng.random(n) < 0.25, "ja, gern", 'nein "danke"')),
    })  # fmt: skip
    return pa.concat_tables([table, table.slice(0, 20)]).combine_chunks()


def test_odd_types_and_names_come_back_as_they_were(here: None, tmp_path: Path) -> None:
    path = runs.written(tmp_path, odd_types())
    # As the file has it: parquet keeps no 64-bit days, no seconds of the day; and of a view, the type without it.
    data = pq.read_table(path)
    data = data.set_column(data.column_names.index("view"), "view", data["view"].cast(pa.string()))
    job = runs.job(path, tmp_path / "run", target="the 'label' = x", trials=2, region=('"f16" >= 25',))
    report = run(job)
    real, drawn = runs.augmented(report)
    assert real.drop_columns(runs.MARKS).schema.remove_metadata() == data.schema == drawn.drop_columns(runs.MARKS).schema.remove_metadata()
    rows = runs.rows_of(report)
    positions = sorted(row for row in runs.parts_of(rows)[FINAL][0])
    assert repr(real.drop_columns(runs.MARKS).to_pylist()) == repr(data.take(positions).to_pylist())
    schema = rows.schema(FINAL)
    schema.check(schema.canonical(drawn)[0])
    assert len(drawn) == runs.plan_of(report)["rows"] * runs.plan_of(report)["draws"] > 0
    assert drawn["void"].null_count == drawn["nothing"].null_count == len(drawn)
    assert 0 < drawn["u64"].null_count < len(drawn) / 2
    assert min(drawn["big"].drop_null().to_pylist()) > 2**53


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_text_files_go_through_the_whole_pass(here: None, tmp_path: Path, ending: str) -> None:
    table = runs.patients().select(["id", "age", "marker", "born", "smokes", "sex", "state"])
    frame = table.to_pandas()
    path = tmp_path / f"patients.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.astype({"born": str}).to_json(path, orient="records", lines=True)
    report = run(runs.job(str(path), tmp_path / "run", trials=1))
    real, drawn = runs.augmented(report)
    assert [str(real.schema.field(name).type) for name in ("age", "marker", "smokes", "state")] == ["int64", "double", "bool", "string"]
    kept = table.filter(pc.is_in(table["id"], value_set=real["id"].combine_chunks()))
    for name in ("id", "age", "smokes", "state"):
        assert real[name].to_pylist() == kept[name].to_pylist()
    assert real["marker"].to_pylist() == pytest.approx(kept["marker"].to_pylist())
    assert len(drawn) == runs.plan_of(report)["rows"] * runs.plan_of(report)["draws"] > 0
