"""Text words: a text as numbers of a byte-level vocabulary learned on the spot, and back; knows no network and no region.

Byte pair encoding (Sennrich, Haddow & Birch 2016) on bytes (Radford et al. 2019): every text of valid UTF-8 has numbers, and they give it
back unchanged, whatever was in the texts it was learned from. Learned by the library `tokenizers`; kept as its JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LEAST_PAIRS = 2
"""Times that two neighbours are seen before they are one word."""
BROKEN = "\ufffd"
"""What stands for bytes that are no text: a drawn sequence may hold some."""


def garbled(texts: Sequence[str | None]) -> bool:
    """Some text holds BROKEN itself, as scraped ones do: then it says nothing of how a text was drawn."""
    return any(BROKEN in text for text in texts if text is not None)


@dataclass(frozen=True, eq=False)
class TextWords:
    """A vocabulary of `size` numbers from 0."""

    tokenizer: Tokenizer

    @staticmethod
    def learn(texts: Sequence[str], most: int) -> "TextWords":
        """From texts, at most `most` words, the 256 bytes among them."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=max(most, len(alphabet)), min_frequency=LEAST_PAIRS, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return TextWords(tokenizer)

    @property
    def size(self) -> int:
        """How many words there are."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Numbers of each text."""
        return [one.ids for one in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, words: Sequence[Sequence[int]]) -> list[str]:
        """The texts; bytes that are none read as BROKEN."""
        return list(self.tokenizer.decode_batch([list(own) for own in words], skip_special_tokens=False))

    def to_json(self) -> str:
        """The library's own JSON."""
        return str(self.tokenizer.to_str())

    @staticmethod
    def from_json(text: str) -> "TextWords":
        """The inverse of `to_json`."""
        return TextWords(Tokenizer.from_str(text))
