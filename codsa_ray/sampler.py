"""The package as an imbalanced-learn sampler, in this process alone; knows no run folder and no cluster."""

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_sampling_strategy, check_target_type
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import validate_data

from codsa_ray.arrays import Features, joined, table_of
from codsa_ray.candidates import FORMS
from codsa_ray.correct import Correction, Offset
from codsa_ray.errors import InputError, SettingError
from codsa_ray.infer import MOST_CLASSES, refuse
from codsa_ray.local import TARGET, Drawn, Local
from codsa_ray.plugins import make, name_of
from codsa_ray.regions import Regions
from codsa_ray.seeds import seed_of
from codsa_ray.vtss import Settings, Tried, choose, counts_of

VTSS = "vtss"
FIRST_FOLDS, MOST_FOLDS = 2, 20


class CoDSASampler(BaseOverSampler):  # type: ignore[misc]
    """Adds drawn rows of a generator of this package: `fit_resample(X, y)`, as imbalanced-learn's over-samplers have it.

    X is (n, d), an array, a list or a frame: numbers, text, booleans, dates and categories, missing values among them; sparse matrices are
    refused. y is (n,) classes. Returned are X's own rows as they are, then the drawn ones in X's types. Everything runs in this process:
    no Ray is started. What a column is called plays no part.

    With 'vtss' (Ma & Zhang 2026, arXiv 2601.16120) the size is chosen by cross-validation among multiples of the rows that full balance
    adds, none at all included: the smallest whose balanced log loss is within one standard error of the lowest. Other than in the paper, a
    size is judged by scores corrected for the classes' shares in its own training rows and calibrated, like those without synthesis, so
    that it is not credited with what an intercept and a temperature do. Train on the rows, then correct the scores (`correction_`); with
    form='raw' the choice is the paper's, for a classifier whose scores nobody corrects.

    Args:
        sampling_strategy: 'vtss', or what imbalanced-learn's over-samplers take: a ratio, a class set ('auto', 'minority', 'not minority',
            'not majority', 'all'), a dict of rows per class, or a callable that gives one.
        generator: name of a generator (with settings, as on the command line), or an instance.
        learner: of 'vtss': name of the learner that judges sizes, or an instance.
        allocator: of 'vtss': how rows are shared out over classes, a name or an instance.
        form: of 'vtss': how scores are corrected before they are judged: 'calibrated', 'offset' or 'raw'.
        folds: of 'vtss': cross-validation folds, by size where None.
        random_state: an int gives the same rows every time.

    Attributes (after fit_resample):
        sampling_strategy_: dict of rows drawn per class.
        sizes_: of 'vtss': every size tried with its loss (vtss.Tried); empty otherwise.
        correction_: Correction whose `apply` takes the (n, C) log-probabilities of a model trained on the rows that were returned to those
            for classes of equal weight.
        notices_: what had to give way, a line each: fewer folds, fewer neighbours and the like.
        n_features_in_, feature_names_in_: as in scikit-learn.

    Raises (by fit_resample):
        ValueError, TypeError: as imbalanced-learn raises them: one class, a continuous target, a sparse matrix.
        UserError: a plug-in, a setting or a column that does not fit. ShortOfRows: the generator could not draw.
    """

    # imbalanced-learn resolves every strategy but ours; it is asked to let ours pass, and asked again in `_fit_resample`.
    _sampling_type = "bypass"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseOverSampler._parameter_constraints,
        "sampling_strategy": [*BaseOverSampler._parameter_constraints["sampling_strategy"], StrOptions({VTSS})],
        "generator": [str, HasMethods(["fit", "load"])],
        "learner": [str, HasMethods(["encoder", "fit"])],
        "allocator": [str, HasMethods(["weights"])],
        "form": [StrOptions(set(FORMS))],
        "folds": [Interval(Integral, FIRST_FOLDS, MOST_FOLDS, closed="both"), None],
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        generator: Any = "sequential_trees",
        learner: Any = "logistic",
        allocator: Any = "balanced",
        form: str = "calibrated",
        folds: int | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.generator = generator
        self.learner = learner
        self.allocator = allocator
        self.form = form
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Any, y: Any, **params: Any) -> Self:
        """What `fit_resample` learns, without its rows."""
        self.fit_resample(X, y, **params)
        return self

    def _check_X_y(self, X: Any, y: Any, accept_sparse: Any = None) -> tuple[Features, np.ndarray, bool]:
        y, one_vs_all = check_target_type(y, indicate_one_vs_all=True)
        validate_data(self, X=X, reset=True, skip_check_array=True)
        if not hasattr(X, "iloc"):
            X = check_array(X, dtype=None, ensure_all_finite="allow-nan", estimator=self)
        check_consistent_length(X, y)
        return X, y, one_vs_all

    def _fit_resample(self, X: Features, y: np.ndarray) -> tuple[Features, np.ndarray]:
        classes, group = np.unique(y, return_inverse=True)
        if len(classes) > MOST_CLASSES:
            raise InputError(f"at most {MOST_CLASSES} classes in y", f"{len(classes)}", "bin y, merge classes or leave the rarest out")
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        made = self._made()
        local = Local.of(table_of(X), group.astype(np.int64), seed)
        refuse(local.schema, made.generator.needs.kinds, name_of(made.generator))
        data = local.training(np.arange(len(y)), made.allocator)
        counts = self._counts(local, data.regions, y, classes, made)
        self.sampling_strategy_ = {label: int(rows) for label, rows in zip(classes.tolist(), counts, strict=True) if rows}
        weight = np.bincount(group, minlength=len(classes)) + counts
        offset = Offset.of(weight, np.array(local.groups.mix), np.arange(len(classes)), len(classes))
        self.correction_ = Correction("classification", tuple(map(str, classes)), offset)
        if not counts.any():
            return X, y
        drawn = Drawn.of(made.generator, data, int(counts.max()), seed_of(seed, "all"))
        self.notices_ += getattr(drawn.fitted, "notice", ())
        features = local.schema.original(drawn.take(counts)).drop_columns([TARGET])
        return joined(X, features), np.concatenate([y, classes[np.repeat(np.arange(len(classes)), counts)]])

    def _made(self) -> Settings:
        folders = {"generator": "generators", "learner": "learners", "allocator": "allocators"}
        asked = {key: getattr(self, key) for key in folders}
        made: dict[str, Any] = {key: make(folders[key], value) if isinstance(value, str) else value for key, value in asked.items()}
        if "classification" not in made["generator"].needs.tasks:
            raise SettingError("a generator of classes", name_of(made["generator"]), "name another")
        return Settings(**made, form=self.form, folds=self.folds)

    def _counts(self, local: Local, regions: Regions, y: np.ndarray, classes: np.ndarray, made: Settings) -> np.ndarray:
        """(C,) int64 rows to draw of each class."""
        self.sizes_: tuple[Tried, ...] = ()
        self.notices_: list[str] = []
        if isinstance(self.sampling_strategy, str) and self.sampling_strategy == VTSS:
            chosen, self.sizes_ = choose(local, regions, made, self.notices_)
            return counts_of(chosen, regions, made.allocator)
        wanted = check_sampling_strategy(self.sampling_strategy, y, "over-sampling")
        return np.array([wanted.get(label, 0) for label in classes], dtype=np.int64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags
