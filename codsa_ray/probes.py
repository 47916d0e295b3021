"""Probes: how many rows and which column types a part of DATA has, mergeable, so that all rows decide; knows no file format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import InputError
from codsa_ray.values import PICTURE, is_picture, plain

WHOLE = r"^-?(0|[1-9][0-9]*)$"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
PADDED = r"^[+-]?0[0-9]"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
NOT_FINITE = pa.array(["nan", "inf", "-inf", "infinity", "-infinity"])
TRUTH = pa.array(["true", "false"])
RESERVED = frozenset({"_synthetic", "_region", "_weight", "_draw", "_row", "_fold", "_group", "_unit"})
# The first type that all values of a text column can be read as is its type.
TYPES = {
    "whole": pa.int64(),
    "number": pa.float64(),
    "truth": pa.bool_(),
    "date": pa.timestamp("us"),
    "zoned": pa.timestamp("us", "UTC"),
    "text": pa.string(),
}
# Quoted text of a json file is never a number.
QUOTED = frozenset({"date", "zoned", "text"})


@dataclass(frozen=True)
class Probed:
    """What is known of one column's type.

    Args:
        type: physical type; string where it is still to be read from text.
        could: names in TYPES that every value so far can be read as; empty for columns that have a type of their own.
        numbers: some value is a number.
        word: the first value in order of text that is no number, or None.
        where: a file that holds the column.
    """

    type: pa.DataType
    where: str
    could: frozenset[str] = frozenset()
    numbers: bool = False
    word: str | None = None

    @property
    def read_as(self) -> pa.DataType:
        """The type of the rows that `load` gives."""
        if not self.could:
            return self.type
        return pa.null() if self.could == TYPES.keys() else next(TYPES[name] for name in TYPES if name in self.could)

    def merge(self, other: "Probed", name: str) -> "Probed":
        """Of both files' rows."""
        if self.could and other.could:
            words = [word for word in (self.word, other.word) if word is not None]
            return replace(self, could=self.could & other.could, numbers=self.numbers or other.numbers, word=min(words, default=None))
        if pa.types.is_null(self.type) or pa.types.is_null(other.type):
            return other if pa.types.is_null(self.type) else self
        try:
            return replace(self, type=_unified(self, other), could=frozenset())
        except pa.ArrowTypeError as error:
            got = f"{self.type} in {self.where} and {other.type} in {other.where}"
            raise InputError(f"column {name!r} of one type in every file", got, "cast it in one of them") from error


def _unified(a: Probed, b: Probed) -> pa.DataType:
    kinds = [a.type, b.type]
    if pa.types.is_dictionary(a.type) != pa.types.is_dictionary(b.type):
        kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
    bytes_like = {pa.types.is_binary(kind) or pa.types.is_large_binary(kind) for kind in kinds}
    if bool(a.could) != bool(b.could) or len(bytes_like) > 1:
        raise pa.ArrowTypeError("text and another type")
    schemas = [pa.schema([("column", kind)]) for kind in kinds]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


@dataclass(frozen=True)
class Probe:
    """Rows and column types of one fragment or of several.

    Args:
        rows: how many.
        where: the first file.
        columns: (name, what is known of it), in the order of the first file.
        optional: a column may be missing in a file (jsonl); it is null there.
        aside: (what, how many) of what lies there and is no column.
        marks: (row, byte where it starts) of places from which one fragment can be read; see `Fragment.cut`.
    """

    rows: int
    where: str
    columns: tuple[tuple[str, Probed], ...]
    optional: bool = False
    aside: tuple[tuple[str, int], ...] = ()
    marks: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(block: pa.Table, where: str, spelled: bool) -> "Probe":
        """Of one block of text (spelled: csv, where numbers are text too; else jsonl).

        Raises:
            SchemaError: a column of a nested type.
        """
        columns = []
        for name, column in zip(block.column_names, block.columns, strict=True):
            probed = Probed(flat(name, column.type), where)
            if pa.types.is_string(column.type):
                could, numbers, word = _readable(pc.utf8_trim_whitespace(column.unique().drop_null()))
                probed = replace(probed, could=could if spelled else could & QUOTED, numbers=numbers and spelled, word=word)
            columns.append((name, probed))
        return Probe(len(block), where, tuple(columns), optional=not spelled)

    def merge(self, other: "Probe") -> "Probe":
        """Of both; associative, and commutative but for the order of columns.

        Raises:
            InputError: a column is missing in one, or of types that do not unify.
        """
        mine, theirs = dict(self.columns), dict(other.columns)
        if not self.optional and mine.keys() != theirs.keys():
            name = min(mine.keys() ^ theirs.keys())
            has, lacks = (self.where, other.where) if name in mine else (other.where, self.where)
            raise InputError("the same columns in every file", f"{name!r} in {has}, not in {lacks}", "name files of one table")
        for name, probed in theirs.items():
            mine[name] = mine[name].merge(probed, name) if name in mine else probed
        aside = Counter(dict(self.aside)) + Counter(dict(other.aside))
        return Probe(self.rows + other.rows, self.where, tuple(mine.items()), self.optional, tuple(sorted(aside.items())))

    @property
    def types(self) -> pa.Schema:
        """The columns' types over all rows.

        Raises:
            InputError: there is no row.
        """
        if self.rows == 0:
            raise InputError("rows", f"none in {self.where}", "check the file")
        return pa.schema([(name, probed.read_as) for name, probed in self.columns])

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know of how the columns were read."""
        mixed = [(name, probed.word) for name, probed in self.columns if probed.numbers and probed.word and probed.read_as == pa.string()]
        words = tuple(
            f"column {name!r} mixes numbers and words such as {word!r}: read as text; if that means missing, leave the field empty"
            for name, word in mixed
        )
        return words + tuple(f"{count} {what} were not read" for what, count in self.aside)


def _readable(values: pa.Array) -> tuple[frozenset[str], bool, str | None]:
    """Names in TYPES that all values can be read as, whether one is a number, and the first in order that is none."""
    values = values.filter(pc.not_equal(values, ""))
    if not len(values):
        return frozenset(TYPES), False, None
    number = pc.match_substring_regex(values, NUMBER)
    finite_or_not = pc.or_(number, pc.is_in(pc.utf8_lower(values), value_set=NOT_FINITE))
    whole = pc.match_substring_regex(values, WHOLE)
    exact = _casts(values.filter(whole), pa.int64()) and not pc.any(pc.match_substring_regex(values, PADDED)).as_py()
    # A cast that fails is slow, so a pattern goes first.
    date = pc.all(pc.match_substring_regex(values, DATE)).as_py()
    could = {
        "whole": exact and pc.all(whole).as_py(),
        "number": exact and pc.all(finite_or_not).as_py() and _casts(values, pa.float64()),
        "truth": pc.all(pc.is_in(pc.utf8_lower(values), value_set=TRUTH)).as_py(),
        "date": date and _casts(values, TYPES["date"]),
        "zoned": date and _casts(values, TYPES["zoned"]),
        "text": True,
    }
    word = pc.min(values.filter(pc.invert(finite_or_not))).as_py()
    return frozenset(name for name, fits in could.items() if fits), bool(pc.any(number).as_py()), word


def _casts(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def flat(name: str, kind: pa.DataType) -> pa.DataType:
    """The type itself; of a view, the type without: arrow cannot filter views, and in a file they are the same. PICTURE for its like.

    Raises:
        SchemaError: it is nested or otherwise none of ours.
    """
    if pa.types.is_struct(kind) and is_picture(kind):
        return PICTURE
    plain(pa.array([], kind.value_type if pa.types.is_dictionary(kind) else kind), name)
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def check_names(names: Sequence[str], where: str) -> None:
    """Raises InputError where two columns have one name, or one a name that rows have of ours."""
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError("column names that differ", f"{doubled[0]!r} twice in {where}", "rename one")
    reserved = [name for name in names if name in RESERVED]
    if reserved:
        do = "rename it, or name the data without synthetic rows"
        raise InputError("no column with a name of our own", f"{reserved[0]!r} in {where}", do)
