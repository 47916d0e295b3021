"""TF-IDF and logistic regression: the plain baseline for texts, with table columns beside them; knows no sentence.

Source: Salton & Buckley 1988 (term weights); Wang & Manning 2012 (that words and pairs of words with a linear model are hard to beat on
short texts). A row is its words and pairs, each with its weight, so that encoded rows are one flat array: places of words and weights side
by side, whatever the vocabulary. A text with more than `kept` of them keeps those that most training texts have: the heaviest are the
rarest, pairs of two texts, and teach the least. Learned on fold-training rows; words that only held-out rows have count nothing.

Memory: 8 bytes per kept word and text, 205 MB on disk for 100,000 texts, and 16 per word that is there while a model is fitted.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import TABLE_KINDS, Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import CandidateError
from codsa_ray.schema import Column, Schema
from codsa_ray.scores import OneClass, log_probabilities
from codsa_ray.words import PATTERN

PENALTIES = (1e-4, 1e-3, 1e-5)
VOCABULARY = 20_000


@dataclass(frozen=True)
class Tfidf:
    """Multinomial logistic regression on words, pairs of words and table columns, ridge penalty relative to the mean loss.

    Args:
        penalty: as Logistic's: sklearn's C is 1 / (penalty x sum of weights).
        kept: words and pairs of a row that are kept, the commonest ones.
        pairs: pairs of neighbouring words count as words.
    """

    penalty: float = PENALTIES[0]
    kept: int = 256
    pairs: bool = True

    @property
    def needs(self) -> Needs:
        """One core; 8 bytes per kept word and text."""
        return Needs(kinds=TABLE_KINDS | {"text"}, tasks=frozenset({"classification"}))

    def variants(self) -> tuple[Self, ...]:
        """This penalty, then the others of PENALTIES."""
        return (self, *(replace(self, penalty=p) for p in PENALTIES if p != self.penalty))

    def encoder(self, train: pa.Table, schema: Schema) -> "Words":
        """Vocabularies and document frequencies of the text columns; the others standardised and one-hot."""
        texts = tuple(column for column in schema.features if column.kind == "text")
        rest = replace(schema, columns=tuple(column for column in schema.columns if column not in texts))
        return Words(OneHot.learn(train, rest), tuple(Vocabulary.learn(train, column, self.pairs) for column in texts), self.kept)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The minimum of the objective; `seed` is not used.

        Raises:
            CandidateError: an offset, which it has no place for.
        """
        if offset is not None:
            raise CandidateError("wanted no offset; got one; take the learner logistic or mlp")
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        # One thread, since the order of a sum must not depend on the machine; fits run side by side anyway.
        with threadpool_limits(1):
            model = LogisticRegression(C=1 / (self.penalty * weight.sum()), max_iter=1000)
            model.fit(opened(X, self.kept), labels, sample_weight=weight)
        # Two classes have one vector in scikit-learn: of the second against the first.
        coefficients, start = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        if len(present) == 2:
            coefficients, start = np.vstack([np.zeros_like(coefficients), coefficients]), np.append(0.0, start)
        return Weighed(coefficients, start, present, classes, self.kept)

    @classmethod
    def tiny(cls) -> Self:
        """Few words."""
        return cls(kept=16)


@dataclass(frozen=True)
class Vocabulary:
    """One text column.

    Args:
        name: of the column.
        words: fitted; None where training rows have no word.
    """

    name: str
    words: TfidfVectorizer | None

    @classmethod
    def learn(cls, table: pa.Table, column: Column, pairs: bool) -> Self:
        """At most VOCABULARY of the commonest; those of one text alone teach nothing, unless there are no others."""
        texts = _texts(table, column.name)
        for least in (2, 1):
            words = TfidfVectorizer(
                sublinear_tf=True,
                min_df=least,
                max_features=VOCABULARY,
                ngram_range=(1, 2 if pairs else 1),
                token_pattern=PATTERN,
                dtype=np.float32,
            )
            try:
                return cls(column.name, words.fit(texts))
            except ValueError:  # how scikit-learn says that there is no word
                continue
        return cls(column.name, None)

    @property
    def rarity(self) -> np.ndarray:
        """(VOCABULARY,) float64 inverse document frequency of every word."""
        found = np.zeros(VOCABULARY)
        if self.words is not None:
            found[: len(self.words.idf_)] = self.words.idf_
        return found

    def weights(self, table: pa.Table) -> sparse.csr_array:
        """(n, VOCABULARY) of every word."""
        if self.words is None:
            return sparse.csr_array((len(table), VOCABULARY), dtype=np.float32)
        found = self.words.transform(_texts(table, self.name)).tocsr()
        return sparse.csr_array((found.data, found.indices, found.indptr), shape=(len(table), VOCABULARY))


@dataclass(frozen=True)
class Words:
    """Rows of table columns and texts.

    Args:
        columns: what is no text.
        texts: in the schema's order.
        kept: words of a row at most.
    """

    columns: OneHot
    texts: tuple[Vocabulary, ...]
    kept: int

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, d + 2 kept) float32: d columns, one more than the places of the words kept, heaviest first, 0 beyond them, their weights."""
        dense = self.columns.encode(table)
        out = np.zeros((len(table), 2 * self.kept), dtype=np.float32)
        if self.texts:
            found = sparse.csr_array(sparse.hstack([text.weights(table) for text in self.texts]))
            rarity = np.concatenate([text.rarity for text in self.texts])
            for row in range(len(table)):
                span = slice(found.indptr[row], found.indptr[row + 1])
                commonest = np.lexsort((found.indices[span], rarity[found.indices[span]]))[: self.kept]
                places, weights = found.indices[span][commonest], found.data[span][commonest]
                heaviest = np.lexsort((places, -weights))
                out[row, : len(heaviest)] = places[heaviest] + 1
                out[row, self.kept : self.kept + len(heaviest)] = weights[heaviest]
        return np.hstack([dense, out])


def opened(X: np.ndarray, kept: int, columns: int = 0) -> sparse.csr_array:
    """The (n, at least `columns`) matrix that encoded rows stand for; rows narrower than 2 `kept` are columns alone."""
    dense = max(X.shape[1] - 2 * kept, 0) if X.shape[1] >= 2 * kept else X.shape[1]
    known = sparse.csr_array(np.asarray(X[:, :dense], dtype=np.float64))
    places = np.asarray(X[:, dense : dense + kept], dtype=np.int64)
    rows, slots = np.nonzero(places)
    weights = np.asarray(X[:, dense + kept :], dtype=np.float64)[rows, slots]
    width = max(columns - dense, int(places.max(initial=0)))
    # What training rows did not have, and so has no coefficient, counts nothing.
    return sparse.csr_array(sparse.hstack([known, sparse.csr_array((weights, (rows, places[rows, slots] - 1)), shape=(len(X), width))]))


def _texts(table: pa.Table, name: str) -> list[str]:
    """A null has no word."""
    return [str(text) for text in pc.fill_null(table[name], "").to_pylist()]


@dataclass(frozen=True)
class Weighed:
    """A fitted model: (P, columns) coefficients, (P,) start, (P,) class ids present, C, words kept."""

    coefficients: np.ndarray
    start: np.ndarray
    present: np.ndarray
    classes: int
    kept: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        with threadpool_limits(1):
            odds = opened(X, self.kept, self.coefficients.shape[1])[:, : self.coefficients.shape[1]] @ self.coefficients.T + self.start
        return log_probabilities(np.asarray(odds), self.present, self.classes)
