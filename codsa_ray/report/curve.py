"""The chart of loss against synthetic size, with the candidates of size 0 as lines; knows the report's `curve` and nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from codsa_ray.report.axis import Scale, label, ticks
from codsa_ray.report.text import count, fixed, number, tag

COLOURS = 6
BANDS = 7
ROOM = 3.0


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels of one drawing of the chart.

    Args:
        name: CSS class, which says at what page width it is shown.
        width, height: of the whole drawing.
        right: margin for the names of the lines; 0 writes them inside the plot.
        lines: how many candidates of size 0 are drawn.
        letters: longest name.
    """

    name: str
    width: int
    height: int
    right: int
    lines: int
    letters: int


WIDE = Layout("wide", 960, 460, 280, 8, 42)
NARROW = Layout("narrow", 380, 420, 0, 3, 40)
LEFT, TOP, BOTTOM = 54, 16, 46


def loss_curve(curve: Mapping[str, Any], chosen: str = "") -> Markup:
    """The chart twice, for wide pages and for phones; empty when there is nothing to draw."""
    generators = [g for g in curve.get("generators") or [] if g.get("points")]
    lines = sorted((line for line in curve.get("lines") or [] if line.get("loss") is not None), key=lambda line: line["loss"])
    if not generators:
        return Markup("")
    return Markup("").join(_draw(generators, lines, chosen or "", layout) for layout in (WIDE, NARROW))


def beyond(curve: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The candidates of size 0 whose loss lies above the drawn range."""
    generators = [g for g in curve.get("generators") or [] if g.get("points")]
    lines = [line for line in curve.get("lines") or [] if line.get("loss") is not None]
    top = loss_range(generators, lines)[1] if generators else math.inf
    return [line for line in lines if line["loss"] > top]


def loss_range(generators: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """(low, high) drawn: all of the good candidates, and no more above them than three times their spread."""
    points = [p for g in generators for p in g["points"]]
    low = min(p["loss"] - (p.get("se") or 0) for p in points)
    best = min((line["loss"] for line in lines), default=low)
    losses = sorted(p["loss"] + (p.get("se") or 0) for p in points)
    usual = max(best, losses[len(losses) * 3 // 4])
    low = min(low, best)
    most = max([losses[-1], *(line["loss"] for line in lines)])
    high = min(most, low + ROOM * (usual - low)) if usual > low else most
    room = 0.04 * (high - low) or abs(low) * 0.05 or 0.01
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def _draw(generators: list[Mapping[str, Any]], lines: list[Mapping[str, Any]], chosen: str, layout: Layout) -> Markup:
    low, high = loss_range(generators, lines)
    right = layout.width - layout.right - 10
    most = max(max(p["size"] for g in generators for p in g["points"]), 1)
    x = Scale(0, most * 1.04, LEFT, right)
    y = Scale(low, high, layout.height - BOTTOM, TOP)
    drawn = _spaced([line for line in lines if line["loss"] <= high], layout.lines)
    marks = [_line(line, x, y, layout, place) for line, place in zip(drawn, _places(drawn, y, layout), strict=True)]
    for index, generator in enumerate(generators):
        marks.append(_series(generator, index % COLOURS + 1, x, y))
    # Last, so that no other mark covers it.
    marks += [_chosen(p, x, y) for g in generators for p in g["points"] if chosen and p.get("name") == chosen]
    return tag(
        "svg",
        *_frame(x, y, layout),
        *marks,
        class_=f"chart {layout.name}",
        viewBox=f"0 0 {layout.width} {layout.height}",
        role="img",
        aria_label="Loss against synthetic size",
    )


def _frame(x: Scale, y: Scale, layout: Layout) -> list[Markup]:
    few = 4 if layout.right == 0 else 7
    parts = [tag("line", class_="grid", x1=x.start, x2=x.stop, y1=y(t), y2=y(t)) for t in ticks(y.low, y.high)]
    parts += [tag("text", number(t), class_="tick", x=x.start - 8, y=y(t) + 4, text_anchor="end") for t in ticks(y.low, y.high)]
    parts += [tag("text", label(t, x.high), class_="tick", x=x(t), y=y.start + 20, text_anchor="middle") for t in ticks(0, x.high, few)]
    parts.append(tag("line", class_="axis", x1=x.start, x2=x.stop, y1=y.start, y2=y.start))
    parts.append(tag("text", "synthetic rows", class_="name", x=(x.start + x.stop) / 2, y=y.start + 39, text_anchor="middle"))
    return parts


def _spaced(lines: list[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """The better half of `most`, then lines evenly spaced among the rest, the worst of them included."""
    if len(lines) <= most:
        return lines
    first = (most + 1) // 2
    rest, more = lines[first:], most - first
    return lines[:first] + [rest[(i + 1) * len(rest) // more - 1] for i in range(more)]


def _places(lines: list[Mapping[str, Any]], y: Scale, layout: Layout) -> list[float]:
    """Heights of the names, from the lowest line up, pushed apart so that none covers another."""
    gap, places = 17.0, []
    last = y.start + gap
    for line in lines:
        last = min(y(line["loss"]), last - gap)
        places.append(last)
    if layout.right and places and places[-1] < TOP:
        places = [place + TOP - places[-1] for place in places]
    return places


def _line(line: Mapping[str, Any], x: Scale, y: Scale, layout: Layout, place: float) -> Markup:
    height, name = y(line["loss"]), str(line["name"])
    short = name if len(name) <= layout.letters else name[: layout.letters - 1] + "…"
    title = tag("title", f"{name}: {fixed(line['loss'])}" + (f" ± {fixed(line['se'])}" if line.get("se") is not None else ""))
    parts = [title, tag("line", class_="base", x1=x.start, x2=x.stop, y1=height, y2=height)]
    if layout.right:
        parts.append(tag("path", class_="lead", d=f"M{x.stop:.1f} {height:.1f}L{x.stop + 14:.1f} {place:.1f}", fill="none"))
        parts.append(tag("text", short, class_="base-name", x=x.stop + 18, y=place + 4))
    else:
        parts.append(tag("text", short, class_="base-name", x=x.stop, y=min(place, height) - 4, text_anchor="end"))
    return tag("g", *parts)


def _series(generator: Mapping[str, Any], colour: int, x: Scale, y: Scale) -> Markup:
    points = sorted((p for p in generator["points"] if p.get("loss") is not None), key=lambda p: p["size"])
    lowest = _lowest(points)
    path = "M" + "L".join(f"{x(p['size']):.1f} {y.inside(p['loss']):.1f}" for p in lowest)
    parts = [tag("path", class_="trend", d=path, fill="none")] if len(lowest) > 1 else []
    return tag("g", *parts, *(_point(p, x, y) for p in points), class_=f"series s{colour}")


def _lowest(points: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The best point of each band of sizes: other settings differ too, so that a line through all points would say nothing of size."""
    top = max(math.sqrt(p["size"]) for p in points) or 1.0
    few = len({p["size"] for p in points}) <= BANDS + 1
    best: dict[float, Mapping[str, Any]] = {}
    for p in points:
        band = p["size"] if few else min(int(math.sqrt(p["size"]) / top * BANDS), BANDS - 1)
        if band not in best or p["loss"] < best[band]["loss"]:
            best[band] = p
    return [best[band] for band in sorted(best)]


def _point(point: Mapping[str, Any], x: Scale, y: Scale) -> Markup:
    cx, cy, se = x(point["size"]), y.inside(point["loss"]), point.get("se") or 0.0
    text = f"{point.get('name', '')}: {fixed(point['loss'])} ± {fixed(se)} at {count(point['size'])} rows"
    bar = tag("line", class_="error", x1=cx, x2=cx, y1=y.inside(point["loss"] - se), y2=y.inside(point["loss"] + se))
    if point["loss"] > y.high:
        return tag("g", tag("title", text), tag("path", class_="dot", d=f"M{cx - 5:.1f} {cy + 8:.1f}h10l-5 -8z"))
    return tag("g", tag("title", text), bar, tag("circle", class_="dot", cx=cx, cy=cy, r=4.5))


def _chosen(point: Mapping[str, Any], x: Scale, y: Scale) -> Markup:
    cx, cy, se = x(point["size"]), y.inside(point["loss"]), point.get("se") or 0.0
    under = max(y.inside(point["loss"] - se), cy + 9) + 15
    ring = tag("circle", class_="ring", cx=cx, cy=cy, r=9)
    return tag("g", ring, tag("text", "chosen", class_="chosen", x=cx, y=min(under, y.start - 4), text_anchor="middle"))
