"""Numbers and tags as text for the page; knows no report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits with a true minus sign; a dash for None and NaN; whole numbers in full."""
    if value is None or isinstance(value, bool | str):
        return MISSING if value is None else str(value)
    if not math.isfinite(value):
        return MISSING
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return count(int(value))
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-5 <= abs(value) < 1e15:
        text = f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.replace("-", MINUS)


def fixed(value: Any) -> str:
    """A loss: four decimals below 1, three above, so that a column of them lines up."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{4 if abs(value) < 1 else 3}f}".replace("-", MINUS)


def signed(value: Any) -> str:
    """A difference of losses, with its sign."""
    return fixed(value) if value is None or value <= 0 else f"+{fixed(value)}"


def count(value: Any) -> str:
    """A whole number with commas; a dash for None."""
    return MISSING if value is None else f"{value:,.0f}".replace("-", MINUS)


def percent(value: Any) -> str:
    """A share as a percentage; a dash for None."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.3g} %" if abs(value) < 0.9995 else f"{100 * value:.0f} %"


def seconds(value: Any) -> str:
    """A time span a person can read."""
    if value is None:
        return MISSING
    if value >= 7200:
        return f"{value / 3600:.1f} h"
    if value >= 120:
        return f"{value / 60:.1f} min"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def words(value: Any) -> str:
    """Any JSON value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items()) or MISSING
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(words, value)) or MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else number(value)


def cell(value: Any) -> str:
    """A value of a data row: null and the empty text are told apart."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else number(value, 5) if isinstance(value, float) else str(value)


def tag(name: str, *inside: Any, **attributes: Any) -> Markup:
    """An element; text and attributes are escaped, other elements are not. `_` in attribute names is `-`, a trailing one is dropped."""
    pairs = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    # Two decimals of a pixel are enough for every coordinate.
    shown = [(key, f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value) for key, value in pairs]
    head = "".join(f' {key}="{escape(value)}"' for key, value in shown)
    return Markup(f"<{name}{head}>{''.join(map(escape, inside))}</{name}>")
