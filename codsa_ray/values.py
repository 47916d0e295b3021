"""Values of any arrow type: one spelling as text for labels and categories, one plain type to count with; knows no meaning."""

from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import SchemaError

EXACT = 2.0**53
PLACES = 6
MICROSECONDS = {"day": 86_400_000_000, "s": 1_000_000, "ms": 1_000}
DIGITS = Context(prec=100)
# A picture with the file that it came from, as Hugging Face's parquet files hold it.
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def as_text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Each value's canonical text: true/false, 3, 2.5, ISO dates, strings as they are.

    Equal values have one spelling whatever type holds them (int32 3, double 3.0, decimal 3.00: "3"; date32 and timestamp at
    midnight: "2024-12-31"), so that rows mean the same before and after a change of type. Casting the text back to the
    column's own type gives the value again, except that -0.0 is "0". Null, NaN and infinity are null.
    """
    column = decoded(column)
    if pa.types.is_floating(column.type):
        return _floats(widened(column))
    if pa.types.is_decimal(column.type):
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0*$|(\.[0-9]*[1-9])0+$", r"\1")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return _moments(column)
    return column.cast(pa.string())


def widened(column: pa.Array) -> pa.Array:
    """Floats of any width as float64; a narrow one becomes the decimal of at most PLACES places that it was the nearest value to.

    So float32 0.1 is 0.1 and not 0.10000000149, and casting back gives the same float32. NaN and infinity stay.
    """
    wide = column.cast(pa.float64())
    if column.type == pa.float64():
        return wide
    narrow = np.float32 if column.type == pa.float32() else np.float16
    values = wide.to_numpy(zero_copy_only=False)
    found = values.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for places in range(PLACES, -1, -1):
            rounded = np.round(values, places)
            found = np.where(rounded.astype(narrow) == values, rounded, found)
    return pa.array(found, mask=np.asarray(column.is_null()))


def _floats(column: pa.Array) -> pa.Array:
    column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    whole = pc.and_(pc.equal(column, pc.trunc(column)), pc.less(pc.abs(column), EXACT))
    integers = pc.if_else(whole, column, pa.scalar(None, column.type)).cast(pa.int64())
    return pc.coalesce(integers.cast(pa.string()), column.cast(pa.string()))


def _moments(column: pa.Array) -> pa.Array:
    zone = getattr(column.type, "tz", None)
    text = column.cast(pa.timestamp("us", zone), safe=False).cast(pa.string())
    return text if zone else pc.replace_substring_regex(text, r"( 00:00:00)?\.0*$|(\.[0-9]*[1-9])0+$", r"\2")


def plain(column: pa.ChunkedArray | pa.Array, name: str) -> pa.Array:
    """The column in the one type that stands for its physical type.

    Integers, times of day and durations (in their own unit) and decimals without places: int64. Floats and other decimals:
    float64. bool. Dates and timestamps: timestamp[us], zone kept. Text: string. Bytes: binary. Dictionaries: their values.
    What does not fit (NaN, infinity, above 2^63, a decimal float64 cannot hold) is null; -0.0 is 0.0.

    Raises:
        SchemaError: a nested or unknown type.
    """
    array = decoded(column)
    kind = array.type
    if kind == pa.uint64():
        return _within(array, pa.scalar(2**63 - 1, kind), pa.scalar(0, kind)).cast(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return array.cast(pa.int64())
    if pa.types.is_time32(kind):
        return array.cast(pa.int32()).cast(pa.int64())
    if pa.types.is_floating(kind):
        wide = widened(array)
        return pc.add(pc.if_else(pc.is_finite(wide), wide, pa.scalar(None, pa.float64())), 0.0)
    if pa.types.is_decimal(kind):
        return _undecimal(array)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _moment(array)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_fixed_size_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return array.cast(pa.binary())
    if pa.types.is_boolean(kind) or pa.types.is_binary(kind) or pa.types.is_null(kind):
        return array
    raise SchemaError("numbers, text, dates, booleans or bytes", f"column {name!r} of type {kind}", "unnest, cast or drop it")


def decoded(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array, dictionaries as their values, pictures as their bytes."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if array.type == PICTURE:
        return array.flatten()[0]
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def is_picture(kind: pa.DataType) -> bool:
    """True for bytes, and for a struct of bytes and path in any of arrow's spellings."""
    if not pa.types.is_struct(kind):
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
    fields = {field.name: field.type for field in kind}
    bytes_like = is_picture(fields.get("bytes", pa.null())) and not pa.types.is_struct(fields["bytes"])
    path = fields.get("path", pa.null())
    text = pa.types.is_string(path) or pa.types.is_large_string(path) or pa.types.is_string_view(path) or pa.types.is_null(path)
    return fields.keys() <= {"bytes", "path"} and bytes_like and text


def _undecimal(array: pa.Array) -> pa.Array:
    scale, whole = max(array.type.scale, 0), array.type.scale <= 0
    wide = array.cast(pa.decimal256(76, scale))
    # Up to 2^53 units of the last place, the nearest double gives the decimal back.
    limit = pa.scalar(Decimal(2**63 - 1 if whole else 2**53).scaleb(-scale, DIGITS), wide.type)
    return _within(wide, limit, pc.negate(limit)).cast(pa.int64() if whole else pa.float64())


def _moment(array: pa.Array) -> pa.Array:
    kind = pa.timestamp("us", getattr(array.type, "tz", None))
    per_unit = MICROSECONDS.get(getattr(array.type, "unit", "day" if array.type == pa.date32() else "ms"), 1)
    if per_unit > 1:
        number = array.cast(pa.int32() if array.type == pa.date32() else pa.int64()).cast(pa.int64())
        limit = 2**63 // per_unit - 1
        return pc.multiply(_within(number, pa.scalar(limit), pa.scalar(-limit)), per_unit).cast(kind)
    return array.cast(kind, safe=False)


def _within(array: pa.Array, high: pa.Scalar, low: pa.Scalar) -> pa.Array:
    fits = pc.and_(pc.less_equal(array, high), pc.greater_equal(array, low))
    return pc.if_else(fits, array, pa.scalar(None, array.type))
