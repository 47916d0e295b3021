"""Sentence embeddings and logistic regression: texts by meaning where an encoder is given, else by topics; knows no generator.

With `base`, the folder of any text encoder of transformers, a text is the mean of what the frozen encoder says of its tokens (Reimers &
Gurevych 2019). Without one nothing is downloaded: a text is its place among the topics of the training rows, latent semantic analysis
(Deerwester et al. 1990: TF-IDF and a truncated singular value decomposition), which knows words that occur together and no meaning.
Table columns stand beside the texts, standardised and one-hot; ridge penalty, offsets and weights of any sign as in logistic regression.

Cost: one reading of every text per fold and pool (an encoder of 22 million weights: some 50 texts of 40 tokens a second and core), then a
convex fit on some 400 columns. Not for: texts longer than `longest` tokens, which are read as far; what hangs on single words (tfidf).
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from scipy.sparse.linalg import svds
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import TABLE_KINDS, Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import SettingError
from codsa_ray.nn.sentences import embedded, encoder, tokens
from codsa_ray.ridge import solved
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, log_probabilities
from codsa_ray.words import terms

PENALTIES = (1e-3, 1e-2, 1e-4)
VOCABULARY = 20_000
STEPS = 1000
"""L-BFGS iterations at most."""
LEAST = 1e-6
"""Of the largest singular value: topics below it are rounding."""


@dataclass(frozen=True)
class Sentence:
    """Multinomial logistic regression on sentence embeddings and table columns, ridge penalty relative to the mean loss.

    Args:
        penalty: ridge penalty per nat of mean loss.
        base: folder or name of a text encoder that transformers reads, with safetensors weights; None: topics of the training rows.
        longest: tokens of one text that the encoder reads at most.
        topics: without a base, how many there are at most.
        batch: texts that the encoder reads at a time.
        gpus: GPUs of one trial; with 0 it reads on CPUs.
    """

    penalty: float = PENALTIES[0]
    base: str | None = None
    longest: int = 128
    topics: int = 100
    batch: int = 32
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.penalty <= 0 or min(self.longest, self.topics, self.batch) < 1:
            raise SettingError("a penalty above 0; longest, topics and batch of 1 or more", repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; 4 bytes per embedding column and text."""
        kinds = TABLE_KINDS | {"text"}
        return Needs(gpus=self.gpus, kinds=kinds, tasks=frozenset({"classification"}), offset=True, negative=True)

    def variants(self) -> tuple[Self, ...]:
        """This penalty, then the others of PENALTIES."""
        return (self, *(replace(self, penalty=p) for p in PENALTIES if p != self.penalty))

    def ready(self) -> None:
        """Raises SettingError where the base is not there, or does not read that many tokens at once."""
        if self.base is not None:
            tokens(encoder(self.base), ["."], self.longest)

    def encoder(self, train: pa.Table, schema: Schema) -> "Embedded":
        """Topics of the training rows, or the base's own reading; the other columns standardised and one-hot.

        Raises:
            SettingError: the base cannot be read, or not that many tokens at once.
        """
        texts = tuple(column.name for column in schema.features if column.kind == "text")
        rest = replace(schema, columns=tuple(column for column in schema.columns if column.name not in texts))
        self.ready()
        if self.base is None:
            readers: tuple[Topics | Reader, ...] = tuple(Topics.learn(_texts(train, name), self.topics) for name in texts)
        else:
            readers = (Reader(self.base, self.longest, self.batch, self.gpus > 0),) * len(texts)
        return Embedded(OneHot.learn(train, rest), texts, readers)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The minimum of the objective in float64; `seed` is not used.

        Raises:
            CandidateError: see `ridge.solved`.
        """
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        fixed = None if offset is None else offset[:, present]
        # One thread, since the order of a sum must not depend on the machine; fits run side by side anyway.
        with threadpool_limits(1):
            solution = solved(X, labels, weight, fixed, len(present), self.penalty, STEPS)
        return Separated(solution, present, classes)

    @classmethod
    def tiny(cls) -> Self:
        """Few topics."""
        return cls(topics=8)


@dataclass(frozen=True)
class Topics:
    """Latent semantic analysis of one text column.

    Args:
        words: fitted; None where training rows have no word.
        axes: (words, T) float64 from weights of words to topics.
    """

    words: TfidfVectorizer | None
    axes: np.ndarray

    @classmethod
    def learn(cls, texts: list[str | None], most: int) -> Self:
        """At most `most` topics of texts; words of one text alone say nothing of others, unless there are no others."""
        known = [text or "" for text in texts]
        for least in (2, 1):
            words = TfidfVectorizer(sublinear_tf=True, min_df=least, max_features=VOCABULARY, tokenizer=terms, token_pattern=None)
            try:
                weights = words.fit_transform(known)
            except ValueError:  # how scikit-learn says that there is no word
                continue
            return cls(words, _axes(weights, min(most, min(weights.shape) - 1)))
        return cls(None, np.zeros((0, 1)))

    def read(self, texts: list[str | None]) -> np.ndarray:
        """(n, T) float32 of length 1; a text without a known word is 0."""
        if self.words is None:
            return np.zeros((len(texts), self.axes.shape[1]), dtype=np.float32)
        with threadpool_limits(1):
            found = np.asarray(self.words.transform([text or "" for text in texts]) @ self.axes)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, length, out=np.zeros_like(found), where=length > 0).astype(np.float32)


def _axes(weights: Any, count: int) -> np.ndarray:
    """(words, T) right singular vectors of the largest singular values."""
    if count < 1:
        return np.ones((weights.shape[1], 1)) / np.sqrt(weights.shape[1])
    with threadpool_limits(1):
        # From a stated start, so that the same texts give the same topics.
        _, values, axes = svds(weights, count, v0=np.ones(min(weights.shape)))
    return np.asarray(axes[values > LEAST * values.max()].T)


@dataclass(frozen=True)
class Reader:
    """A pretrained encoder, by name: it is read where it is needed and does not travel."""

    base: str
    longest: int
    batch: int
    gpu: bool

    def read(self, texts: list[str | None]) -> np.ndarray:
        """(n, W) float32 of length 1."""
        return embedded(self.base, texts, self.longest, self.batch, self.gpu)


@dataclass(frozen=True)
class Embedded:
    """Rows of table columns and texts.

    Args:
        columns: what is no text.
        texts: names, in the schema's order.
        readers: of each.
    """

    columns: OneHot
    texts: tuple[str, ...]
    readers: tuple[Topics | Reader, ...]

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, d) float32: embeddings, scaled so that their columns are of the size of standardised ones, beside the table columns."""
        told = [reader.read(_texts(table, name)) for name, reader in zip(self.texts, self.readers, strict=True)]
        return np.hstack([self.columns.encode(table), *(own * np.float32(np.sqrt(own.shape[1])) for own in told)])


def _texts(table: pa.Table, name: str) -> list[str | None]:
    return list(table[name].to_pylist())


@dataclass(frozen=True)
class Separated:
    """A fitted model.

    Args:
        coefficients: (d + 1, P) float64, intercepts last.
        present: (P,) class ids.
        classes: C.
    """

    coefficients: np.ndarray
    present: np.ndarray
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        with threadpool_limits(1):
            logits = np.asarray(X, dtype=np.float64) @ self.coefficients[:-1] + self.coefficients[-1]
        return log_probabilities(logits, self.present, self.classes)
