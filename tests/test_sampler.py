"""The sampler passes imbalanced-learn's own checks, keeps what it is given, chooses sizes by corrected losses, and starts no Ray."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from codsa_ray import CoDSASampler
from codsa_ray.arrays import joined, table_of
from codsa_ray.contracts import Needs
from codsa_ray.errors import InputError, SchemaError, SettingError
from codsa_ray.generators.bootstrap import Bootstrap
from codsa_ray.generators.interpolation import Interpolation
from codsa_ray.learners.logistic import Logistic


class OfNumbers(Bootstrap):
    """A generator for regressions alone."""

    @property
    def needs(self) -> Needs:
        return Needs(tasks=frozenset({"regression"}))


class OfAnomalies(Logistic):
    """A learner of anomalies alone."""

    @property
    def needs(self) -> Needs:
        return Needs(tasks=frozenset({"anomaly"}))


DOCS = Path(__file__).parent.parent / "docs"


def rows(n: int = 300, rare: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussians in the plane, the rarer one (class 1) shifted."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) < rare
    return rng.normal(size=(n, 2)) + 1.5 * y[:, None], y.astype(int)


def frame() -> tuple[pd.DataFrame, pd.Series]:
    """Every common type of column, missing values in most; the label is text."""
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {
            "number": rng.normal(size=n).round(2),
            "whole": rng.integers(0, 9, n).astype(np.int16),
            "word": rng.choice(["a", "b", "c"], n),
            "sort": pd.Categorical(rng.choice(["x", "y"], n), categories=["x", "y", "never"]),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, n), "D"),
            "flag": rng.random(n) < 0.5,
        }
    )
    table.loc[::7, "number"] = np.nan
    table.loc[::9, "word"] = None
    return table, pd.Series(np.where(rng.random(n) < 0.2, "rare", "usual"), name="label")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing or full balance, and no tuning."""
    monkeypatch.setattr("codsa_ray.vtss.GAMMAS", (0.0, 1.0))
    monkeypatch.setattr("codsa_ray.learners.logistic.PENALTIES", (1e-3,))


# --- imbalanced-learn's own checks

CHOOSES = {"check_samplers_fit_resample": "'vtss' chooses how many rows: it need not balance"}


@parametrize_with_checks([CoDSASampler(random_state=0)])
def test_checks_of_imbalanced_learn(estimator: CoDSASampler, check: object) -> None:
    check(estimator)  # type: ignore[operator]


@parametrize_with_checks(
    [CoDSASampler(sampling_strategy="vtss", generator="bootstrap", folds=2, random_state=0)], expected_failed_checks=lambda _: CHOOSES
)
def test_checks_of_imbalanced_learn_with_vtss(estimator: CoDSASampler, check: object, quick: None) -> None:
    check(estimator)  # type: ignore[operator]


# --- what comes back


@pytest.mark.parametrize(
    ("strategy", "drawn"),
    [("auto", {1: 220}), ("minority", {1: 220}), (0.5, {1: 90}), ({1: 100}, {1: 60}), (lambda y: {0: 300, 1: 50}, {0: 40, 1: 10})],
    ids=["auto", "minority", "ratio", "counts", "function"],
)
def test_imbalanced_learn_s_own_strategies_are_kept_exactly(strategy: object, drawn: dict[int, int]) -> None:
    X, y = rows()
    sampler = CoDSASampler(sampling_strategy=strategy, generator="interpolation", random_state=0)
    A, b = sampler.fit_resample(X, y)
    assert sampler.sampling_strategy_ == drawn
    assert np.array_equal(A[: len(X)], X)
    assert np.bincount(b).tolist() == [260 + drawn.get(0, 0), 40 + drawn.get(1, 0)]


def test_the_same_state_gives_the_same_rows_and_names_play_no_part() -> None:
    X, y = rows()
    first, again, other = (CoDSASampler(random_state=state).fit_resample(X, y)[0] for state in (0, 0, 1))
    named = CoDSASampler(random_state=0).fit_resample(pd.DataFrame(X, columns=["_region", "target"]), y)[0]
    assert np.array_equal(first, again)
    assert np.array_equal(first, named.to_numpy())
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "generator", ["interpolation", "sequential_trees", "bootstrap:jitter=0.1", Bootstrap(), Interpolation(k=2)], ids=str
)
def test_frames_keep_types_and_rows_keep_the_schema(generator: object) -> None:
    X, y = frame()
    A, b = CoDSASampler(generator=generator, random_state=0).fit_resample(X, y)
    pd.testing.assert_frame_equal(A.iloc[: len(X)], X)
    assert A.dtypes.equals(X.dtypes)
    assert b.value_counts().nunique() == 1
    drawn = A.iloc[len(X) :]
    assert set(drawn["word"].dropna()) <= set("abc")
    assert set(drawn["sort"]) <= {"x", "y"}
    assert drawn["whole"].between(0, 8).all()
    assert (drawn["day"] == drawn["day"].dt.normalize()).all()
    assert 0 < drawn["number"].isna().mean() < 0.5


def test_arrays_of_objects_and_pandas_sparse_columns_come_back_as_they_were() -> None:
    X, y = frame()
    A, _ = CoDSASampler(generator="bootstrap", random_state=0).fit_resample(X[["word", "whole"]].to_numpy(dtype=object), y)
    assert A.dtype == object
    assert {type(value) for value in A[len(X) :, 0]} <= {str, float}
    thin = pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 0.0, 1.0] * 20), "b": np.arange(60.0)})
    B, _ = CoDSASampler(generator="bootstrap", random_state=0).fit_resample(thin, np.arange(60) < 15)
    assert isinstance(B["a"].dtype, pd.SparseDtype)


def test_a_table_and_back_is_the_same() -> None:
    X, _ = frame()
    again = joined(X.iloc[:0], table_of(X))
    pd.testing.assert_frame_equal(again, X)
    A = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(joined(A[:2], table_of(A[2:])), A)


def test_whole_numbers_and_truth_values_come_back_exactly_beside_missing_ones() -> None:
    """2^53 + 1 is the first whole number that a float cannot hold."""
    whole, truth = [2**53 + 1, None, 3], [True, None, False]
    A = np.array([[w, t] for w, t in zip(whole, truth, strict=True)], dtype=object)
    back = joined(A, table_of(A))[3:]
    assert back[[0, 2]].tolist() == A[[0, 2]].tolist()
    assert [[type(value) for value in row] for row in back] == [[int, bool], [float, float], [int, bool]]
    B = np.array([[2**53 + 1, True], [3, False]], dtype=object)
    assert [[type(value) for value in row] for row in joined(B, table_of(B))[2:]] == [[int, bool]] * 2
    types = {"whole": "Int64", "arrow": "int64[pyarrow]", "object": object, "truth": "boolean"}
    X = pd.DataFrame({"whole": whole, "arrow": whole, "object": whole, "truth": truth}, dtype=object).astype(types)
    pd.testing.assert_frame_equal(joined(X.iloc[:0], table_of(X)), X)


# --- what is refused


@pytest.mark.parametrize("form", [np.asarray, pd.DataFrame, lambda X: pd.DataFrame(X).astype(object), lambda X: X.astype(object)])
def test_infinity_is_refused_in_whatever_form_it_comes(form: object) -> None:
    X, y = rows()
    X[5, 1] = np.inf
    with pytest.raises((ValueError, InputError), match="infinity"):
        CoDSASampler(generator="bootstrap").fit_resample(form(X), y)  # type: ignore[operator]


def test_more_classes_than_can_be_told_apart_are_refused_by_the_name_that_the_caller_gave_them() -> None:
    X = np.random.default_rng(0).normal(size=(303, 2))
    with pytest.raises(InputError, match="at most 100 classes in y; got 101"):
        CoDSASampler(generator="bootstrap").fit_resample(X, np.arange(303) % 101)


def test_a_sparse_matrix_is_refused_in_words() -> None:
    X, y = rows()
    with pytest.raises(TypeError, match="dense data is required"):
        CoDSASampler().fit_resample(sparse.csr_matrix(X), y)


def test_columns_that_cannot_be_drawn_are_named() -> None:
    X, y = rows()
    names = np.array([f"id{i}" for i in range(len(X))], dtype=object)
    with pytest.raises(SchemaError, match="column 1"):
        CoDSASampler(generator="bootstrap").fit_resample(np.column_stack([X[:, :1].astype(object), names]), y)
    with pytest.raises(InputError, match="column 0"):
        CoDSASampler().fit_resample(np.array([[1, 2.0], ["a", 3.0]] * 10, dtype=object), [0, 1] * 10)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"generator": "smot"}, "did you mean"),
        ({"generator": OfNumbers()}, "generator of classes"),
        ({"learner": OfAnomalies()}, "classifies"),
    ],
    ids=str,
)
def test_plug_ins_that_do_not_fit_are_refused(asked: dict[str, str], said: str) -> None:
    X, y = rows()
    with pytest.raises(SettingError, match=said):
        CoDSASampler(sampling_strategy="vtss", **{"generator": "bootstrap", **asked}).fit_resample(X, y)
    with pytest.raises(ValueError, match="'form' parameter"):
        CoDSASampler(form="none").fit_resample(X, y)


def test_a_class_of_one_row_is_drawn_for_but_not_cross_validated() -> None:
    X, y = rows(60, 1)
    assert np.bincount(CoDSASampler(generator="interpolation", random_state=0).fit_resample(X, y)[1]).tolist() == [59, 59]
    few = CoDSASampler(sampling_strategy="vtss", generator="interpolation", folds=5, form="raw", random_state=0)
    few.fit(*rows(60, 6))
    assert any("5 folds lowered to 3" in notice for notice in few.notices_)
    with pytest.raises(SettingError, match="2 rows of every class"):
        CoDSASampler(sampling_strategy="vtss", generator="bootstrap").fit_resample(X, y)


# --- vtss


def test_raw_losses_ask_for_balance_that_corrected_losses_do_not_need(quick: None) -> None:
    """Copies tell a logistic model nothing but class shares, which the offset knows; uncorrected, they look like a gain."""
    X, y = rows(600, 60)
    found = {}
    for form in ("raw", "offset", "calibrated"):
        sampler = CoDSASampler(sampling_strategy="vtss", generator="bootstrap", form=form, folds=3, random_state=0)
        sampler.fit_resample(X, y)
        found[form] = sampler
    assert found["raw"].sampling_strategy_[1] >= 200
    assert found["offset"].sampling_strategy_ == found["calibrated"].sampling_strategy_ == {}
    nothing, balance = (next(s for s in found["raw"].sizes_ if s.gamma == gamma) for gamma in (0.0, 1.0))
    assert balance.rows == 480
    assert balance.loss < nothing.loss - 0.1


def test_synthesis_that_helps_is_drawn() -> None:
    """A tree learner with a dozen rare rows in the plane overfits them; Gaussian noise around them is right by construction."""
    X, y = rows(500, 14, seed=3)
    sampler = CoDSASampler(sampling_strategy="vtss", generator="bootstrap:jitter=0.8", learner="boosted:rounds=30", folds=3, random_state=0)
    A, b = sampler.fit_resample(X, y)
    losses = {tried.gamma: tried.loss for tried in sampler.sizes_}
    chosen = next(tried for tried in sampler.sizes_ if tried.rows == len(A) - len(X))
    best = min(sampler.sizes_, key=lambda tried: tried.loss)
    assert chosen.above <= chosen.se + 1e-12
    assert chosen.rows <= best.rows
    assert best.loss < losses[0.0]
    assert b[len(X) :].all()


def test_the_correction_is_the_exact_offset_of_the_rows_returned() -> None:
    X, y = rows(600, 60)
    sampler = CoDSASampler(sampling_strategy={1: 180}, generator="bootstrap", random_state=0)
    A, b = sampler.fit_resample(X, y)
    log_p = LogisticRegression().fit(A, b).predict_log_proba(X)
    odds = np.diff(sampler.correction_.apply(log_p), axis=1) - np.diff(log_p, axis=1)
    assert np.allclose(odds, np.log(540 / 180))


# --- with others


def test_it_works_in_a_pipeline_and_in_a_grid_search() -> None:
    X, y = rows(400, 50)
    pipe = make_pipeline(CoDSASampler(generator="interpolation", random_state=0), LogisticRegression())
    plain = cross_val_score(LogisticRegression(), X, y, scoring="balanced_accuracy").mean()
    assert cross_val_score(pipe, X, y, scoring="balanced_accuracy").mean() > plain
    asked = {
        "codsasampler__sampling_strategy": ["vtss", 0.5, "auto"],
        "codsasampler__generator": ["bootstrap", Interpolation(k=3)],
        "codsasampler__form": ["raw"],
        "codsasampler__folds": [2],
    }
    search = GridSearchCV(pipe, asked, cv=2, scoring="balanced_accuracy", error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 6
    assert search.best_estimator_[0].sampling_strategy_


def test_a_clone_is_equal_and_settings_stay_what_they_were() -> None:
    sampler = CoDSASampler(generator=Bootstrap(jitter=0.5), allocator="target_mix", folds=3)
    again = clone(sampler)
    assert again.get_params() == sampler.get_params()
    X, y = rows(80, 20)
    assert again.fit(X, y) is again
    assert again.get_params() == sampler.get_params()


def test_neither_ray_nor_torch_is_so_much_as_imported() -> None:
    code = (
        "import sys, numpy as np\n"
        "from codsa_ray import CoDSASampler\n"
        "X = np.random.default_rng(0).normal(size=(90, 3)); y = np.arange(90) < 20\n"
        "CoDSASampler(sampling_strategy='vtss', generator='interpolation', folds=2, random_state=0).fit_resample(X, y)\n"
        "print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_python_of_its_page_runs() -> None:
    names: dict[str, object] = {}
    for text in re.findall(r"^```python\n(.*?)^```$", (DOCS / "sampler.md").read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(text, "docs/sampler.md", "exec"), names)
    assert names["corrected"].shape == names["log_p"].shape  # type: ignore[attr-defined]
    assert isinstance(names["search"].best_score_, float)  # type: ignore[attr-defined]
