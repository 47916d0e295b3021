"""The small charts of the page: reliability, histograms, dumbbells and intervals; knows plain values only."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from codsa_ray.report.axis import Scale, ticks
from codsa_ray.report.text import count, fixed, number, percent, tag

SIDE, EDGE, FOOT = 380, 44, 44


def reliability(value: Mapping[str, Any]) -> Markup:
    """Predicted against observed shares, before and after, with their intervals."""
    x, y = Scale(0, 1, EDGE, SIDE - 12), Scale(0, 1, SIDE - FOOT, 12)
    parts = [tag("line", class_="grid", x1=x(0), x2=x(1), y1=y(t), y2=y(t)) for t in ticks(0, 1, 5)]
    parts += [tag("text", number(t), class_="tick", x=x(0) - 8, y=y(t) + 4, text_anchor="end") for t in ticks(0, 1, 5)]
    parts += [tag("text", number(t), class_="tick", x=x(t), y=y(0) + 18, text_anchor="middle") for t in ticks(0, 1, 5)]
    parts.append(tag("line", class_="ideal", x1=x(0), y1=y(0), x2=x(1), y2=y(1)))
    parts.append(tag("text", "predicted", class_="name", x=x(0.5), y=SIDE - 6, text_anchor="middle"))
    parts.append(tag("text", "came true", class_="name", x=x(0.02), y=y(1) + 10))
    for name in ("before", "after"):
        points = value.get(name) or []
        path = "M" + "L".join(f"{x(p['p']):.1f} {y(p['y']):.1f}" for p in points)
        drawn = [tag("path", class_="trend", d=path, fill="none")] if points else []
        parts.append(tag("g", *drawn, *(_bin(p, x, y, name) for p in points), class_=f"series {name}"))
    return tag("svg", *parts, class_="chart", viewBox=f"0 0 {SIDE} {SIDE}", role="img", aria_label="Reliability diagram")


def _bin(point: Mapping[str, Any], x: Scale, y: Scale, name: str) -> Markup:
    title = tag("title", f"{name}: predicted {number(point['p'])}, came true {number(point['y'])}, {count(point.get('n'))} rows")
    bar = tag("line", class_="error", x1=x(point["p"]), x2=x(point["p"]), y1=y(point["low"]), y2=y(point["high"]))
    return tag("g", title, bar, tag("circle", class_="dot", cx=x(point["p"]), cy=y(point["y"]), r=4))


def histogram(column: Mapping[str, Any]) -> Markup:
    """Real shares as filled columns, drawn shares as a stepped line over them; stretched to the width it is given."""
    bins, real, drawn = column["bins"], column["real"], column["drawn"]
    top = max([*real, *drawn, 1e-12])
    y = Scale(0, top, 60, 3)
    bars = [
        tag(
            "g",
            tag("title", f"{name}: real {percent(a)}, drawn {percent(b)}"),
            tag("rect", class_="bar-real", x=i + 0.06, width=0.88, y=y(a), height=60 - y(a)),
            tag("rect", class_="hit", x=i, width=1, y=0, height=60),
        )
        for i, (name, a, b) in enumerate(zip(bins, real, drawn, strict=True))
    ]
    steps = "".join(f"{'L' if i else 'M'}{i} {y(b):.1f}H{i + 1}" for i, b in enumerate(drawn))
    line = tag("path", class_="step", d=steps, fill="none")
    return tag("svg", *bars, line, class_="histogram", viewBox=f"0 0 {len(bins)} 60", preserveAspectRatio="none", role="img")


def shares(column: Mapping[str, Any]) -> Markup:
    """One line per category with its real and its drawn share."""
    top = max([*column["real"], *column["drawn"], 1e-12])
    rows = [
        tag(
            "li",
            tag("span", name, class_="what", title=name),
            tag("i", class_="bar-real", style=f"width:{60 * a / top:.1f}%", title=f"real {percent(a)}"),
            tag("i", class_="bar-drawn", style=f"width:{60 * b / top:.1f}%", title=f"drawn {percent(b)}"),
        )
        for name, a, b in zip(column["bins"], column["real"], column["drawn"], strict=True)
    ]
    return tag("ul", *rows, class_="shares")


def dumbbells(groups: Sequence[Mapping[str, Any]], key: str = "loss", se: str = "se") -> Markup:
    """One track per group: loss before and after, each with one standard error to both sides."""
    spans = [span for g in groups for when in ("before", "after") if (span := _span(g.get(when) or {}, key, se)) is not None]
    if not spans:
        return Markup("")
    low, high = min(0.0, *(s[0] for s in spans)), max(s[2] for s in spans) or 1.0
    place = Scale(low, high * 1.02, 0, 100)
    rows = [_track(group, key, se, place) for group in groups]
    marks = [tag("span", number(t), style=f"left:{place(t):.2f}%") for t in ticks(low, place.high, 5)]
    foot = tag("li", tag("span", class_="what"), tag("span", *marks, class_="scale"), class_="foot", aria_hidden="true")
    return tag("ul", *rows, foot, class_="dumbbells")


def _span(part: Mapping[str, Any], key: str, se: str) -> tuple[float, float, float] | None:
    value, half = part.get(key), part.get(se) or 0.0
    return None if value is None else (value - half, value, value + half)


def _track(group: Mapping[str, Any], key: str, se: str, place: Scale) -> Markup:
    parts, said = [], []
    for when in ("before", "after"):
        span = _span(group.get(when) or {}, key, se)
        if span is None:
            continue
        left, middle, right = (place.inside(v) for v in span)
        parts.append(tag("i", class_=f"error {when}", style=f"left:{left:.2f}%;width:{right - left:.2f}%"))
        parts.append(tag("b", class_=f"dot {when}", style=f"left:{middle:.2f}%"))
        said.append(f"{when} {fixed(span[1])} ± {fixed(span[2] - span[1])}")
    rows = tag("small", f"{count(group.get('train'))} rows")
    name = tag("span", tag("span", group["name"], class_="word"), rows, class_="what", title=str(group["name"]))
    return tag("li", name, tag("span", *parts, class_="track", title="; ".join(said)))


def ladder(levels: Sequence[Mapping[str, Any]], kind: str, words: Mapping[str, str]) -> Markup:
    """The best candidate of each level on one scale, with one standard error; the verdict's level is marked."""
    spans = [(level["loss"] - (level.get("se") or 0.0), level["loss"] + (level.get("se") or 0.0)) for level in levels]
    room = 0.06 * (max(s[1] for s in spans) - min(s[0] for s in spans)) or 1e-6
    place = Scale(min(s[0] for s in spans) - room, max(s[1] for s in spans) + room, 0, 100)
    rows = []
    for level, (low, high) in zip(levels, spans, strict=True):
        when = "after" if level["level"] == kind else "before"
        said = f"{level['entry']}: {fixed(level['loss'])} ± {fixed(level.get('se'))}"
        bar = tag("i", class_=f"error {when} level", style=f"left:{place(low):.2f}%;width:{place(high) - place(low):.2f}%")
        dot = tag("b", class_=f"dot {when}", style=f"left:{place(level['loss']):.2f}%")
        small = tag("small", level["entry"], class_="word")
        what = tag("span", tag("span", words.get(level["level"], level["level"])), small, class_="what", title=said)
        value = tag("span", fixed(level["loss"]), class_="value")
        rows.append(tag("li", what, tag("span", bar, dot, class_="track", title=said), value, class_="taken" if when == "after" else None))
    return tag("ul", *rows, class_="dumbbells ladder")


def interval(low: float, mean: float, high: float) -> Markup:
    """A gain with its interval and the zero line."""
    edge = 1.15 * max(abs(low), abs(high), abs(mean), 1e-12)
    place = Scale(min(-0.25 * edge, low * 1.1), max(0.25 * edge, high * 1.1), 0, 100)
    parts = [
        tag("span", class_="zero", style=f"left:{place(0):.2f}%"),
        tag("i", class_="error after", style=f"left:{place(low):.2f}%;width:{place(high) - place(low):.2f}%"),
        tag("b", class_="dot after", style=f"left:{place(mean):.2f}%"),
        tag("span", "no gain", class_="word", style=f"left:{place(0):.2f}%"),
    ]
    return tag("span", *parts, class_="track gain-track", title=f"{fixed(low)} to {fixed(high)}")
