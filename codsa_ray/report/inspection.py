"""What generators learned, for people: inspect.json as sentences, as a table of text and as one self-contained page; measures nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from codsa_ray.report.axis import Scale, ticks
from codsa_ray.report.page import template
from codsa_ray.report.text import count, number, tag

HERE = Path(__file__).parent
MOST_TRACKS = 24
# Two standard errors, and what a sign has to exceed to be told in words.
ERRORS, TOLD_APART, SHORT, REPEATED, NARROW = 2.0, 0.6, 0.1, 0.01, 0.2


@dataclass(frozen=True)
class Measure:
    """One measure as it is shown.

    Args:
        key: in inspect.json.
        title, note: for people.
        head: of its column in the printed table.
        fresh: key of what fresh real rows show, or "".
        ideal: the value that nothing is wrong at, where it is the same everywhere.
        top: end of the axis.
    """

    key: str
    title: str
    note: str
    head: str
    fresh: str = ""
    ideal: float | None = None
    top: float | None = None


MEASURES = (
    Measure(
        "c2st",
        "Told from real rows",
        "AUC of a classifier two-sample test; 0.5: it cannot tell, 1: always, well below: repeats",
        "C2ST",
        "",
        0.5,
        1.0,
    ),
    Measure(
        "distance",
        "Distance of columns",
        "mean Kolmogorov-Smirnov or total variation distance to the training rows",
        "columns",
        "distance_fresh",
    ),
    Measure("precision", "Precision", "share of drawn rows that lie where training rows do", "precision", "fresh", None, 1.0),
    Measure("recall", "Recall", "share of training rows that lie where drawn rows do", "recall", "fresh", None, 1.0),
    Measure("distinct", "Distinct rows", "share of rows that differ from every other", "distinct", "distinct_real", None, 1.0),
    Measure(
        "entropy",
        "Entropy of columns",
        "mean over columns, in nats; ordered ones cut at twentieths of the training rows",
        "entropy",
        "entropy_real",
    ),
    Measure("copies", "Copies", "share of rows equal to any training row", "copies", "copies_fresh", None, 1.0),
    Measure(
        "dcr",
        "Distance to the closest training row",
        "median over those looked at, relative to held-out rows; 1: as far as fresh rows, 0: copies",
        "DCR",
        "",
        1.0,
    ),
    Measure(
        "membership",
        "Membership inference",
        "AUC of telling training rows from held-out ones by the nearest drawn row; 0.5: it cannot be told",
        "members",
        "",
        0.5,
        1.0,
    ),
)
TEXTS = (
    Measure(
        "text_c2st",
        "Texts told from real ones",
        "AUC of telling embeddings of drawn texts from those of training texts; 0.5: it cannot be told, 1: always",
        "text C2ST",
        "",
        0.5,
        1.0,
    ),
    Measure(
        "perplexity",
        "Perplexity of texts",
        "per byte, under a model learned on held-out texts: higher than real ones' is less fluent, lower is duller",
        "perplexity",
        "perplexity_real",
    ),
    Measure("pairs", "Distinct pairs of words", "share of different ones in as many words (distinct-2)", "pairs", "pairs_real", None, 1.0),
    Measure(
        "copied",
        "Texts that copy",
        "share of texts of which more than half of the runs of five words stand in training texts",
        "copied",
        "copied_fresh",
        None,
        1.0,
    ),
)
"""Shown where there are columns of texts."""
COUPLED = (
    Measure(
        "coupled",
        "Parts that belong together",
        "AUC of telling a row's own picture, text or table columns from those of another row of the region; 0.5: unrelated",
        "together",
        "coupled_real",
        None,
        1.0,
    ),
)
"""Shown where rows have parts of several kinds."""


def sentences(generators: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands out, a sentence per generator and sign."""
    found = []
    for generator in generators:
        signs: dict[str, list[str]] = {}
        for region in generator["regions"]:
            for sign in _signs(region):
                signs.setdefault(sign, []).append(region["name"])
        said = [f"{generator['name']}: {sign} in {_listed(names)}." for sign, names in signs.items()]
        found += said or [f"{generator['name']}: nothing stands out."]
    return found


def _signs(region: Mapping[str, Any]) -> Iterator[str]:
    def beyond(key: str, bound: float) -> bool:
        value = region.get(key)
        return value is not None and value - ERRORS * (region.get(f"{key}_se") or 0.0) > bound

    def apart(key: str, fresh: str) -> float:
        value, base = region.get(key), region.get(fresh)
        return 0.0 if value is None or base is None else value - base

    if beyond("membership", 0.5):
        yield "drawn rows give away which rows were learned from"
    if apart("copies", "copies_fresh") > REPEATED:
        yield "training rows are repeated more often than fresh rows would"
    if apart("entropy", "entropy_real") < -NARROW:
        yield "values are less diverse than real ones"
    if beyond("c2st", TOLD_APART):
        yield "a classifier tells drawn rows from real ones"
    if beyond("text_c2st", TOLD_APART):
        yield "a classifier tells drawn texts from real ones"
    if apart("copied", "copied_fresh") > REPEATED:
        yield "training texts are copied more often than fresh texts would"
    if apart("coupled", "coupled_real") < -SHORT:
        yield "pictures, texts and table columns of a row belong together less than real ones"
    if apart("precision", "fresh") < -SHORT:
        yield "rows are drawn where there are no real ones"
    if apart("recall", "fresh") < -SHORT:
        yield "real rows are left uncovered"


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def lines(found: Mapping[str, Any]) -> list[str]:
    """A table of text per generator: a line per region, what fresh real rows show in brackets."""
    printed = []
    measures = _shown(found["generators"])
    for generator in found["generators"]:
        head = ["region", "rows", "looked at", *(measure.head for measure in measures)]
        rows = [head]
        for region in generator["regions"]:
            rows.append([region["name"], count(region["rows"]), count(region["looked_at"]), *(_cell(region, m) for m in measures)])
        widths = [max(len(row[j]) for row in rows) for j in range(len(head))]
        printed.append(generator["name"])
        for row in rows:
            cells = (row[j].ljust(widths[j]) if j == 0 else row[j].rjust(widths[j]) for j in range(len(head)))
            printed.append("  " + "  ".join(cells))
        printed.append("")
    return printed


def _cell(region: Mapping[str, Any], measure: Measure) -> str:
    shown = number(region.get(measure.key), 2)
    if measure.fresh:
        return f"{shown} ({number(region.get(measure.fresh), 2)})"
    error = region.get(f"{measure.key}_se")
    return shown if error is None else f"{shown} ± {number(error, 1)}"


def render(found: Mapping[str, Any]) -> str:
    """The page; it asks the network for nothing and runs no script."""
    measures = _shown(found["generators"])
    generators = [{**generator, "charts": _charts(generator["regions"], measures)} for generator in found["generators"]]
    style = Markup((HERE / "page.css").read_text())
    page = template("inspection.html").render(found={**found, "generators": generators}, measures=measures, style=style, cell=_cell)
    return page.strip() + "\n"


def _shown(generators: Sequence[Mapping[str, Any]]) -> tuple[Measure, ...]:
    """All measures but those of texts where there are none, and of parts where there is one."""
    known = {key for generator in generators for region in generator["regions"] for key, value in region.items() if value is not None}
    return (*MEASURES, *(TEXTS if "perplexity" in known else ()), *(COUPLED if "coupled" in known else ()))


def _charts(regions: Sequence[Mapping[str, Any]], measures: Sequence[Measure]) -> list[tuple[Measure, Markup]]:
    shown = [(measure, tracks(regions[:MOST_TRACKS], measure)) for measure in measures]
    return [(measure, chart) for measure, chart in shown if chart]


def tracks(regions: Sequence[Mapping[str, Any]], measure: Measure) -> Markup:
    """One track per region: the measure of drawn rows with one standard error, beside that of fresh real rows or the ideal."""
    known = [region for region in regions if region.get(measure.key) is not None]
    if not known:
        return Markup("")
    values = [region[key] for region in known for key in (measure.key, measure.fresh) if key and region.get(key) is not None]
    top = measure.top or 1.08 * max(*values, measure.ideal or 0.0, 1e-6)
    place = Scale(0.0, top, 0, 100)
    marks = [tag("span", number(t), style=f"left:{place(t):.2f}%") for t in ticks(0.0, top, 5)]
    foot = tag("li", tag("span", class_="what"), tag("span", *marks, class_="scale"), class_="foot", aria_hidden="true")
    return tag("ul", *(_track(region, measure, place) for region in known), foot, class_="dumbbells")


def _track(region: Mapping[str, Any], measure: Measure, place: Scale) -> Markup:
    value, error, fresh = region[measure.key], region.get(f"{measure.key}_se") or 0.0, region.get(measure.fresh)
    low, high = place.inside(value - error), place.inside(value + error)
    parts = [tag("span", class_="zero", style=f"left:{place(measure.ideal):.2f}%")] if measure.ideal is not None else []
    parts.append(tag("i", class_="error after level", style=f"left:{low:.2f}%;width:{high - low:.2f}%"))
    if fresh is not None:
        parts.append(tag("b", class_="dot before", style=f"left:{place.inside(fresh):.2f}%"))
    parts.append(tag("b", class_="dot after", style=f"left:{place.inside(value):.2f}%"))
    rows = tag("small", f"{count(region['rows'])} rows")
    name = tag("span", tag("span", region["name"], class_="word"), rows, class_="what", title=str(region["name"]))
    return tag("li", name, tag("span", *parts, class_="track", title=_cell(region, measure)))
