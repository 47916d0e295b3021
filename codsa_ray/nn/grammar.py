"""Grammar: which tokens may come next in a value's text; knows no row, no network and no tokenizer but what tokens it gave.

A value is one of some words, or a number of a lattice spelled character by character, and `end` follows it. The words' token sequences
make a trie, the lattice is its own automaton (spelling.py). Both are finite, so that whatever is chosen a value ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from codsa_ray.errors import SettingError
from codsa_ray.nn.spelling import END, Lattice

Tokens = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ValueGrammar:
    """The language of one column's values.

    Args:
        words: word -> its tokens.
        texts: tokens -> the word that they are.
        branches: beginnings of words -> the tokens that go on, `end` among them.
        lattice: of the numbers, or None.
        characters: character -> token, of numbers.
        spellings: token -> character.
        end: token after every value.
    """

    words: Mapping[str, Tokens]
    texts: Mapping[Tokens, str]
    branches: Mapping[Tokens, frozenset[int]]
    lattice: Lattice | None
    characters: Mapping[str, int]
    spellings: Mapping[int, str]
    end: int

    @staticmethod
    def of(words: Mapping[str, Tokens], lattice: Lattice | None, characters: Mapping[str, int], end: int) -> "ValueGrammar":
        """Checked to be readable in one way only.

        Raises:
            SettingError: a word and its end begin another word and its end, or a word begins as a number does.
        """
        branches: dict[Tokens, set[int]] = {}
        for tokens in words.values():
            for place, token in enumerate((*tokens, end)):
                branches.setdefault(tokens[:place], set()).add(token)
        numbers = set(characters.values()) if lattice is not None else set()
        if first := _mixed(words, end) or next((w for w, tokens in words.items() if {*tokens[:1], end} & numbers), None):
            raise SettingError(
                f"a tokenizer that tells {first!r} from what else may stand there", "one that does not", "take a byte-level one"
            )
        texts, spellings = {tokens: word for word, tokens in words.items()}, {token: character for character, token in characters.items()}
        return ValueGrammar(words, texts, {key: frozenset(value) for key, value in branches.items()}, lattice, characters, spellings, end)

    def allowed(self, begun: Tokens) -> tuple[int, ...]:
        """Tokens that may follow, sorted; never none after tokens that were allowed."""
        found = set(self.branches.get(begun, ()))
        if self.lattice is not None and (not begun or not found):
            follow = self.lattice.following(self._number(begun))
            found |= {self.end if character == END else self.characters[character] for character in follow}
        return tuple(sorted(found))

    def whole(self, begun: Tokens) -> bool:
        """Whether these are all tokens of one value: `end` after them ends it."""
        return begun in self.texts or (begun not in self.branches and self.end in self.allowed(begun))

    def accepts(self, tokens: Tokens) -> bool:
        """Whether these are all tokens of one value and `end`."""
        known = self.lattice is not None and all(token in self.spellings for token in tokens[:-1])
        return tokens[-1:] == (self.end,) and (tokens[:-1] in self.texts or (known and self.whole(tokens[:-1])))

    def text(self, tokens: Tokens) -> str:
        """The text of a whole value."""
        return self.texts[tokens] if tokens in self.texts else self._number(tokens)

    def tokens(self, text: str) -> Tokens:
        """The tokens of a value's text, without `end`."""
        return self.words[text] if text in self.words else tuple(self.characters[character] for character in text)

    def _number(self, tokens: Tokens) -> str:
        return "".join(self.spellings[token] for token in tokens)


def _mixed(words: Mapping[str, Tokens], end: int) -> str | None:
    """A word whose tokens and `end` begin those of another word, if there is one."""
    whole = sorted(((*tokens, end), word) for word, tokens in words.items())
    return next((word for (tokens, word), (after, _) in pairwise(whole) if after[: len(tokens)] == tokens), None)
