"""Any scikit-learn classifier by its import path, for the command line; knows only fit, predict_proba and tags."""

import ast
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self

import numpy as np
import pyarrow as pa
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import Encoder, Needs, Predictor
from codsa_ray.encode import OneHot, Ordinal
from codsa_ray.errors import CandidateError, SettingError
from codsa_ray.schema import Schema
from codsa_ray.scores import LEAST, OneClass, log_probabilities

EXAMPLE = "sklearn.ensemble.RandomForestClassifier(n_estimators=100)"
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Sklearn:
    """An estimator class with predict_proba and weighted fit; making an instance imports it, so that a wrong path fails at once.

    Weights are scaled to mean 1. `random_state` follows the seed and `n_jobs` is 1 where the estimator has them and the settings do not.

    Args:
        path: dotted path of the class.
        settings: (name, value) pairs given to its constructor.

    Raises:
        SettingError: no such module or class, or it is no classifier that learns from weights and gives probabilities.
    """

    path: str = "sklearn.ensemble.RandomForestClassifier"
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # Settings read back from JSON come as lists.
        object.__setattr__(self, "settings", tuple((str(name), value) for name, value in self.settings))
        estimator = self._estimator(0)
        if not callable(getattr(estimator, "predict_proba", None)):
            raise SettingError("an estimator with predict_proba", self.path, "take another classifier, or wrap it in a calibrated one")
        if not has_fit_parameter(estimator, "sample_weight"):
            raise SettingError("an estimator whose fit takes sample_weight", self.path, f"take another, such as {EXAMPLE}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `package.module.Class` or `package.module.Class(name=literal, ...)`.

        Raises:
            SettingError: not of that form, or see the class.
        """
        try:
            node = ast.parse(text.strip(), mode="eval").body
            if not isinstance(node, ast.Call):
                return cls(ast.unparse(node))
            if node.args or any(word.arg is None for word in node.keywords):
                raise ValueError("settings have names")
            return cls(ast.unparse(node.func), tuple((str(word.arg), ast.literal_eval(word.value)) for word in node.keywords))
        except (SyntaxError, ValueError) as error:
            raise SettingError("an import path with literal settings", repr(text), f"write it like {EXAMPLE}") from error

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(tasks=frozenset({"classification"}))

    def variants(self) -> tuple[Self, ...]:
        """Only itself: what there is to tune is not known."""
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        """One column per feature with NaN for null where the estimator takes NaN (trees), else standardised and one-hot columns."""
        takes_nan = get_tags(self._estimator(0)).input_tags.allow_nan
        return Ordinal.learn(train, schema) if takes_nan else OneHot.learn(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The fitted estimator; it takes no offset.

        Raises:
            CandidateError: the estimator refuses the rows or its settings.
        """
        assert offset is None, "needs.offset is False"
        present = np.unique(y)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        estimator = self._estimator(seed % 2**32)
        try:
            with threadpool_limits(1):
                # A copy: where there are nulls, scikit-learn refuses rows that are memory-mapped read-only.
                estimator.fit(np.array(X), y, sample_weight=weight / weight.mean())
        except (ValueError, TypeError, ArithmeticError) as error:
            raise CandidateError(f"{self.path}: {' '.join(str(error).split())}") from error
        return Fitted(estimator, classes)

    def _estimator(self, seed: int) -> Any:
        kind, settings = self._kind(), dict(self.settings)
        try:
            estimator = kind(**settings)
            known = estimator.get_params(deep=False)
        except (TypeError, AttributeError) as error:
            raise SettingError(f"settings of {self.path}", repr(settings), str(error)) from error
        # scikit-learn's own default is one job (and some of its estimators warn when told); that of others is every core.
        ours = {"random_state": seed} if self.path.startswith("sklearn.") else {"random_state": seed, "n_jobs": 1}
        return estimator.set_params(**{name: value for name, value in ours.items() if name in known and name not in settings})

    def _kind(self) -> Any:
        if not PATH.fullmatch(self.path):
            raise SettingError("an import path of a class", repr(self.path), f"write it like {EXAMPLE}")
        module, _, name = self.path.rpartition(".")
        try:
            found = getattr(import_module(module), name, None)
        except ImportError as error:
            raise SettingError(f"a module {module}", str(error), "check the path, or install the package") from error
        if not isinstance(found, type):
            raise SettingError(f"a class {name} in {module}", "none of that name", f"write it like {EXAMPLE}")
        return found

    @classmethod
    def tiny(cls) -> Self:
        """A small forest."""
        return cls(settings=(("n_estimators", 30), ("max_depth", 4)))


@dataclass(frozen=True)
class Fitted:
    """A fitted estimator.

    Args:
        estimator: with classes_ and predict_proba.
        classes: C.
    """

    estimator: Any
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        if not len(X):  # which estimators refuse
            return np.empty((0, self.classes))
        with threadpool_limits(1):
            chances = self.estimator.predict_proba(X)
        return log_probabilities(np.log(np.maximum(chances, LEAST)), self.estimator.classes_.astype(np.int64), self.classes)
