"""The chart of a scaling study: what extra rows change, as measured and by the law; knows the report's `scaling` and nothing else."""

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from codsa_ray.report.axis import Scale, ticks
from codsa_ray.report.text import count, fixed, number, tag

LEFT, RIGHT, TOP, BOTTOM = 64, 24, 16, 46
# For wide pages and for phones: CSS class, width, height, and of how many sizes one is named.
LAYOUTS = (("wide", 960, 380, 1), ("narrow", 380, 300, 2))


def law_chart(study: Mapping[str, Any]) -> Markup:
    """Change of the loss against no extra rows; the law with its interval, dotted beyond what was measured.

    Sizes double from point to point, and so do distances along the axis: it is the logarithm of rows + the smallest size.
    """
    return Markup("").join(_draw(study, *layout) for layout in LAYOUTS)


def _draw(study: Mapping[str, Any], name: str, width: int, height: int, every: int) -> Markup:
    points, line = study["points"], study["line"]
    first = points[1]["added"]
    x = Scale(0.0, math.log1p(line[-1][0] / first), LEFT, width - RIGHT)
    ends = [end for p in points for end in (p["change"] - p["change_se"], p["change"] + p["change_se"])]
    ends += [end for _, _, low, high in line for end in (low, high)]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    y = Scale(min(*ends, 0.0) - room, max(*ends, 0.0) + room, height - BOTTOM, TOP)

    def at(rows: float) -> float:
        return x(math.log1p(rows / first))

    sizes = [*(p["added"] for p in points), line[-1][0]]
    marks = [*_frame(x, y, sizes[::-every], at), *_law(line, points[-1]["added"], at, y)]
    marks += [_point(p, at(p["added"]), y) for p in points]
    label = "Change of the loss against extra rows"
    return tag("svg", *marks, class_=f"chart {name}", viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _frame(x: Scale, y: Scale, sizes: list[float], at: Any) -> list[Markup]:
    parts = []
    for t in ticks(y.low, y.high, 5):
        parts.append(tag("line", class_="axis" if t == 0 else "grid", x1=x.start, x2=x.stop, y1=y(t), y2=y(t)))
        parts.append(tag("text", number(t), class_="tick", x=x.start - 8, y=y(t) + 4, text_anchor="end"))
    parts += [tag("text", count(size), class_="tick", x=at(size), y=y.start + 20, text_anchor="middle") for size in sizes]
    parts.append(tag("text", "rows beyond balance", class_="name", x=(x.start + x.stop) / 2, y=y.start + 39, text_anchor="middle"))
    return parts


def _law(line: list[list[float]], most: float, at: Any, y: Scale) -> list[Markup]:
    upper = [f"{at(rows):.1f} {y(high):.1f}" for rows, _, _, high in line]
    lower = [f"{at(rows):.1f} {y(low):.1f}" for rows, _, low, _ in reversed(line)]
    parts = [tag("path", class_="band", d="M" + "L".join([*upper, *lower]) + "Z")]
    for name, inside in (("trend", [p for p in line if p[0] <= most]), ("trend beyond", [p for p in line if p[0] >= most])):
        parts.append(tag("path", class_=name, d="M" + "L".join(f"{at(p[0]):.1f} {y(p[1]):.1f}" for p in inside), fill="none"))
    return [tag("g", *parts, class_="series s1")]


def _point(point: Mapping[str, Any], place: float, y: Scale) -> Markup:
    change, se = point["change"], point["change_se"]
    title = tag("title", f"{count(point['added'])} rows: {fixed(point['loss'])}, change {fixed(change)} ± {fixed(se)}")
    bar = tag("line", class_="error", x1=place, x2=place, y1=y(change - se), y2=y(change + se))
    return tag("g", title, bar, tag("circle", class_="dot", cx=place, cy=y(change), r=4.5), class_="series s1")
