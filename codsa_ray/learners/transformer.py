"""A transformer that reads texts, tuned to tell classes: any encoder or classifier of transformers, or a small one; knows no generator.

Sources: Devlin et al. 2019 (fine-tuning), Hu et al. 2022 (LoRA, by peft), Reimers & Gurevych 2019 (mean pooling), Polyak & Juditsky 1992
(averaged weights are what is kept, at the best loss on rows set aside).
What differs, and why:
- A checkpoint's own head is left aside whatever it tells apart; ours starts at the best constant, so that no step is spent on the prior.
- Table columns have a linear layer of their own beside the text's; the two add up as log-odds. What hangs on a word and a column together
  is missed; words in front of the text would be cut away from long texts first.
- Padding is by mask, so a tokenizer needs no padding token; a row's scores do not depend on its batch but for rounding.

Cost per step: 6 multiplications per weight of the trunk and token of a batch; an encoder of 22 million weights takes 0.5 s a step of 16
texts of 40 tokens on one core. Not for: CPUs and more than some hundred steps with a base; without one, under some ten thousand texts,
of which tfidf makes more; tables without texts.
"""

from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from codsa_ray.aside import levelled, set_aside
from codsa_ray.contracts import TABLE_KINDS, Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import SettingError
from codsa_ray.last_layer import retrained
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.here import train_here
from codsa_ray.nn.lines import CHARACTERS
from codsa_ray.nn.longer import longer
from codsa_ray.nn.pretrained import Pretrained
from codsa_ray.nn.sentences import encoder, tokens
from codsa_ray.nn.text_classifier import Module, TextClassifier, TextLoss, TextRows, scored
from codsa_ray.nn.text_words import TextWords
from codsa_ray.nn.train import Training
from codsa_ray.nn.tuned import Tuned
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, best_constant, log_probabilities
from codsa_ray.seeds import seed_of

SMALL, ADAPTERS, WEIGHTS = (32, 2e-3, 1.0), (16, 2e-3, 0.25), (16, 1e-3, 0.05)
"""What `batch` and `rate` are where they are not given, and the share of the rate that the trunk learns at."""
LOWER = 0.3
"""Of the rate, in the second variant."""
LEAVE, BIAS, BESIDE = "leave.weight", "leave.bias", "beside"
"""The last layers' parameters: of the text and the start, of the columns."""
SCORED = 64
"""Rows scored at a time."""


@dataclass(frozen=True)
class Transformer:
    """Settings of the method.

    Args:
        base: folder or name of a text encoder or classifier that transformers reads, with safetensors weights; None: a small one.
        lora: rank of the base's adapters; 0 tunes all its weights.
        longest: tokens of a row's texts at most; they are read one after the other as far as that.
        batch, rate: rows per step, peak learning rate; None: what the model's size usually needs.
        epochs, least, most: steps are those of `epochs` passes, within [least, most].
        checks, patience: held-out losses in a full training; how many without a gain end it.
        held: share of each class held out for them.
        width, blocks, heads, vocabulary: of the small one.
        gpus: GPUs of one fit; with 0 it runs on CPUs.
    """

    base: str | None = None
    lora: int = 8
    longest: int = 128
    batch: int | None = None
    rate: float | None = None
    epochs: int = 10
    least: int = 200
    most: int = 2000
    checks: int = 20
    patience: int = 8
    held: float = 0.2
    width: int = 64
    blocks: int = 2
    heads: int = 4
    vocabulary: int = 4000
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or min(self.longest, self.least, self.checks, self.patience) < 1 or not 0 < self.held < 1:
            wanted = "a width that heads divide; longest, least, checks and patience of 1 or more; held of 0 to 1"
            raise SettingError(wanted, repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs."""
        return Needs(gpus=self.gpus, kinds=TABLE_KINDS | {"text"}, tasks=frozenset({"classification"}), offset=True, holds_out=True)

    def variants(self) -> tuple[Self, ...]:
        """These settings; slower; longer (nn/longer.py)."""
        return (self, replace(self, rate=LOWER * self._usual[1]), longer(self))

    @property
    def _usual(self) -> tuple[int, float, float]:
        batch, rate, share = SMALL if self.base is None else ADAPTERS if self.lora else WEIGHTS
        return self.batch or batch, self.rate or rate, share

    def ready(self) -> None:
        """Raises SettingError where the base is not there, or does not read that many tokens at once."""
        if self.base is not None:
            tokens(encoder(self.base), ["."], self.longest)

    def encoder(self, train: pa.Table, schema: Schema) -> "Told":
        """Words of the training rows, or the base's own; the other columns standardised and one-hot.

        Raises:
            SettingError: the base cannot be read, or not that many tokens at once.
        """
        texts = tuple(column.name for column in schema.features if column.kind == "text")
        rest = replace(schema, columns=tuple(column for column in schema.columns if column.name not in texts))
        words = None
        self.ready()
        if self.base is None:
            begun = [text[: CHARACTERS * self.longest] for text in joined(train, texts) if text is not None]
            words = TextWords.learn(begun, self.vocabulary)
        return Told(OneHot.learn(train, rest), texts, self.longest, words, self.base)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The averaged weights of the least held-out loss.

        Raises:
            CandidateError: the loss stopped being a number. SettingError: the base cannot be read.
        """
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        fixed = np.zeros((len(y), len(present))) if offset is None else np.asarray(offset, dtype=np.float64)[:, present]
        start = torch.from_numpy(best_constant(fixed, labels, weight)).float()
        columns, told = TextRows.apart(X, self.longest)
        aside = set_aside(labels, self.held, seed)
        scaled = torch.from_numpy(levelled(weight / weight.mean(), labels, aside)).float()
        rows = TextRows(columns, told, torch.from_numpy(labels), scaled, torch.from_numpy(fixed).float())
        inner = torch.from_numpy(aside)
        with one_thread():
            module = self.network(columns.shape[1], bool((told >= 0).any()), start, seed)
            weights = self._train(module, rows.take(~inner).sorted(), rows.take(inner), seed)
        return Read(self, weights, columns.shape[1], present, classes)

    def retrained(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, last: np.ndarray, *, classes: int, seed: int) -> Predictor:
        """Fitted on `weight`; then the last layers, of texts and of columns, again, on weights `last` (last_layer.py)."""
        fitted = self.fit(X, y, weight, classes=classes, seed=seed)
        if not isinstance(fitted, Read):
            return fitted
        labels, slope = np.searchsorted(fitted.present, y), np.hstack([fitted.weights[LEAVE], fitted.weights[BESIDE]]).T
        with threadpool_limits(1):
            slope, start = retrained(lambda places: fitted.features(X[places]), slope, fitted.weights[BIAS], labels, last, self.held, seed)
        width = fitted.weights[LEAVE].shape[1]
        again = {LEAVE: slope[:width].T.copy(), BESIDE: slope[width:].T.copy(), BIAS: start}
        return replace(fitted, weights=fitted.weights | again)

    @property
    def device(self) -> str:
        """Where it is fitted and read."""
        return "cuda" if self.gpus and torch.cuda.is_available() else "cpu"

    def network(self, columns: int, texts: bool, start: Tensor, seed: int) -> TextClassifier:
        """Untrained, on its device; first weights depend on the seed alone.

        Args:
            columns: beside the texts.
            texts: there are any.
            start: (P,) log-odds at first.
            seed: of the first weights.
        """
        trunk: Any = None
        width = self.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "weights"))
            if texts and self.base is not None:
                found = encoder(self.base)
                model, names = Pretrained(deepcopy(found.model), found.words, found.mark).adapted(self.lora, seed_of(seed, "adapters"))
                trunk, width = Tuned(model.to(self.device), names), int(found.model.config.hidden_size)
            elif texts:
                trunk = self._small()
            return TextClassifier(trunk, width, columns, start).to(self.device)

    def _small(self) -> Any:
        # Here, because loading the library takes seconds.
        from transformers import BertConfig, BertModel

        # Dropout is the loss's, with numbers of its own: the library's would take them from the process.
        config = BertConfig(
            vocab_size=max(self.vocabulary, 256),
            hidden_size=self.width,
            num_hidden_layers=self.blocks,
            num_attention_heads=self.heads,
            intermediate_size=2 * self.width,
            max_position_embeddings=self.longest,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return BertModel(config, add_pooling_layer=False)

    def _train(self, module: TextClassifier, rows: TextRows, held: TextRows, seed: int) -> dict[str, np.ndarray]:
        batch, rate, share = self._usual
        steps = int(np.clip(self.epochs * len(rows.target) / batch, self.least, self.most))
        loss, mine = TextLoss(rows, batch, self.device), TextLoss(held, SCORED, self.device)
        every, slower = max(1, steps // self.checks), (("trunk", share),)
        training = Training(steps, rate, every=every, patience=self.patience, checkpoint=steps + 1, slower=slower)
        training = replace(training, dtype=gpu_dtype(self.device))
        return train_here(module, loss, mine.score, training, self.device, seed_of(seed, "train")).weights

    @classmethod
    def tiny(cls) -> Self:
        """A narrow encoder and few steps."""
        return cls(longest=16, width=16, blocks=1, heads=2, vocabulary=300, rate=4e-2, least=300, most=300)


@dataclass(frozen=True)
class Told:
    """Rows of table columns and texts.

    Args:
        columns: what is no text.
        texts: names, in the schema's order.
        longest: tokens of a row at most.
        words: of the small encoder.
        base: or whose words they are.
    """

    columns: OneHot
    texts: tuple[str, ...]
    longest: int
    words: TextWords | None
    base: str | None

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, d + longest) float32: d columns, one more than the tokens, 0 where there are fewer."""
        out = np.zeros((len(table), self.longest), dtype=np.float32)
        if self.texts:
            for row, own in enumerate(self._tokens(joined(table, self.texts))):
                out[row, : min(len(own), self.longest)] = np.array(own[: self.longest], dtype=np.float32) + 1
        return np.hstack([self.columns.encode(table), out])

    def _tokens(self, texts: list[str | None]) -> list[list[int]]:
        if self.base is not None:
            return tokens(encoder(self.base), texts, self.longest)
        assert self.words is not None
        return self.words.encode([(text or "")[: CHARACTERS * self.longest] for text in texts])


def joined(table: pa.Table, names: tuple[str, ...]) -> list[str | None]:
    """Each row's texts, one under the other; None where all are null."""
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    found = ([text for text in row if text is not None] for row in rows)
    return ["\n".join(texts) if texts else None for texts in found]


@dataclass(frozen=True)
class Read:
    """A fitted network.

    Args:
        settings: how it was made.
        weights: of its parameters that were trained.
        columns: beside the texts.
        present: (P,) class ids.
        classes: C.
    """

    settings: Transformer
    weights: dict[str, np.ndarray]
    columns: int
    present: np.ndarray
    classes: int

    def __getstate__(self) -> dict[str, Any]:
        # Without the network: a base stays where it is.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def module(self) -> TextClassifier:
        """The network with its weights."""
        texts = any(name.startswith("trunk.") for name in self.weights)
        module = self.settings.network(self.columns, texts, torch.zeros(len(self.present)), 0)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in self.weights.items()})
        module.requires_grad_(False)
        return module

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        return log_probabilities(self._read(X, self.module, len(self.present)), self.present, self.classes)

    def features(self, X: np.ndarray) -> np.ndarray:
        """(n, W + D) what the last layers see of rows."""
        return self._read(X, self.module.features, self.module.width + self.columns)

    def _read(self, X: np.ndarray, call: Module, width: int) -> np.ndarray:
        columns, told = TextRows.apart(X, self.settings.longest)
        # Texts of a length together: what is padded is read in vain.
        order = torch.argsort((told >= 0).sum(1), stable=True)
        out = np.zeros((len(X), width))
        with torch.inference_mode(), one_thread():
            for places in order.split(SCORED):
                out[places.numpy()] = scored(call, columns[places], told[places], self.settings.device).float().cpu().numpy()
        return out
