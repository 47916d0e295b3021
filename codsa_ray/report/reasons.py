"""The charts of "why this verdict": steps, gains by group, the trade-off's terms and the boundary; knows the report's `why` alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from codsa_ray.report.axis import Scale, label, ticks
from codsa_ray.report.text import count, fixed, number, signed, tag, words

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 40
PLANE = 420
MOST_TRACKS = 24
CHANCES, LEAST = ("symmetry", "beyond_offset", "p_value"), 0.001
BIASES = {"p_value": "Bias p", "score": "Quality score", "cosine": "Cosine", "ratio": "Bias over asymmetry", "gamma": "Theory's gamma"}


def section(why: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of the section shows; empty where there is nothing."""
    gained, trade, border = why.get("gains") or {}, why.get("tradeoff") or {}, why.get("boundary") or {}
    # Rarest first; what is beyond MOST_TRACKS is in the table of groups.
    groups = sorted(gained.get("groups") or [], key=lambda group: group.get("rows") or 0)[:MOST_TRACKS]
    found = {
        "sentences": why.get("sentences") or [],
        "steps": steps(why.get("ladder") or []),
        "test_steps": steps(why.get("ladder") or [], "test_"),
        "gains": gains(groups),
        "test_gains": gains(groups, "test_"),
        "synthesis": gained.get("synthesis"),
        "evidence": evidence(why.get("evidence") or {}, why.get("chosen") or {}),
        "tradeoff": trade,
        "terms": [(name, chart) for name, chart in _terms(trade) if chart],
        "boundary": border,
        "planes": [(when, plane(border, when)) for when in ("before", "after")] if border.get("box") else [],
    }
    return found if any(found.values()) else {}


def _terms(trade: Mapping[str, Any]) -> Iterator[tuple[str, Markup]]:
    if not trade.get("m"):
        return
    size, tilt, fits = trade["size"], trade["tilt"], trade["fits"]
    for across, points, chosen, alike in (("size", trade["m"], size, "tilt"), ("tilt", trade["alpha"], tilt, "size")):
        # The variance is known where fits were: those that differ from the candidate in nothing else.
        own = [p for p in fits if p[alike] == trade[alike] or (p["size"] == 0 and across == "size")]
        by = f", by {'size' if across == 'size' else 'allocation'}"
        yield f"Variance of the fit{by}", term(own, "variance", across, chosen, dots=True)
        yield f"Bias of the generator{by}", term(points, "bias", across, chosen)
        yield f"Mismatch to the target mix{by}", term(points, "mismatch", across, chosen)


def evidence(found: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Theory's view of rare groups and generators as sentences and two tables; empty where the run has none."""
    contrasts, notes = found.get("contrasts") or [], list(found.get("notes") or [])
    gammas = {name.rpartition("-")[0] or name: gamma for name, gamma in (found.get("gammas") or {}).items()}
    reason = found.get("reason")
    told = [f"The theory of the size has nothing to say: {reason}."] if reason else []
    if contrasts:
        told.append(
            "A rare group is symmetric with the common one where balancing them would move no parameter of a logistic pilot, and needs no"
            " more than the offset where it would move the intercept alone; a small p-value speaks against it. A generator is biased where"
            " the pilot tells its rows from held-out rows of the group; a cosine above 0 means that it errs towards the common group, so"
            " that more rows are needed than balance asks for."
        )
    if gammas:
        sizes = ", ".join(f"{name} {number(gamma)}" for name, gamma in sorted(gammas.items()))
        told.append(f"Rows that theory asks for, in units of full balance: {sizes}{_against(chosen)}.")
    sides = [_cells(c, ("group", "against", "rows", "symmetry", "beyond_offset")) for c in contrasts]
    rows = []
    for c in contrasts:
        for b in c.get("biases") or []:
            of = f"{str(b.get('generator', '')).rpartition('-')[0]}: {c.get('group')}"
            rows.append([(of, of), *_cells(b, tuple(BIASES))])
    tables: list[dict[str, Any]] = [
        {
            "title": "Rare groups",
            "words": 2,
            "headings": ("Rare group", "Against", "Rows", "Symmetry p", "Beyond the offset p"),
            "rows": sides,
        },
        {"title": "Generators", "words": 1, "headings": ("Generator and group", *BIASES.values()), "rows": rows},
    ]
    return {"sentences": [*told, *notes], "tables": [t for t in tables if t["rows"]]} if told or notes else {}


def _cells(row: Mapping[str, Any], keys: Sequence[str]) -> list[tuple[Any, str]]:
    """(what sorts, what is shown) of each; small chances as a bound."""
    values = [(key, row.get(key)) for key in keys]
    small = {key for key, value in values if key in CHANCES and value is not None and value < LEAST}
    return [(value, f"< {number(LEAST)}" if key in small else words(value)) for key, value in values]


def _against(chosen: Mapping[str, Any]) -> str:
    if not chosen.get("gamma"):
        return ""
    return f"; the candidate with synthesis has {number(chosen['gamma'])} of {chosen.get('generator')}"


def steps(ladder: Sequence[Mapping[str, Any]], prefix: str = "") -> Markup:
    """A waterfall: each step's bar runs from the loss before it to its own; empty where fewer than two steps have a loss."""
    rows = [row for row in ladder if row.get(f"{prefix}loss") is not None]
    if len(rows) < 2:
        return Markup("")
    losses = [row[f"{prefix}loss"] for row in rows]
    room = 0.05 * (max(losses) - min(losses)) or 1e-6
    place = Scale(min(losses) - room, max(losses) + room, 0, 100)
    return tag("ul", *(_step(row, prefix, place) for row in rows), class_="dumbbells ladder steps")


def _step(row: Mapping[str, Any], prefix: str, place: Scale) -> Markup:
    loss, change, se = row[f"{prefix}loss"], row.get(f"{prefix}change"), row.get(f"{prefix}change_se")
    said = f"{row['candidate']}: {fixed(loss)} ± {fixed(row.get(f'{prefix}se'))}"
    parts, told = [], ""
    if change is not None:
        ends = sorted((place(loss), place(loss - change)))
        way = "after" if change < 0 else "before"
        parts.append(tag("i", class_=f"error {way} step", style=f"left:{ends[0]:.2f}%;width:{ends[1] - ends[0]:.2f}%"))
        told = f"{signed(change)} ± {fixed(se)}"
    parts.append(tag("b", class_="dot after" if row.get("verdict") else "dot before", style=f"left:{place(loss):.2f}%"))
    name = tag("span", row["step"][:1].upper() + row["step"][1:])
    what = tag("span", name, tag("small", row["candidate"], class_="word"), class_="what", title=said)
    value = tag("span", fixed(loss), tag("small", told), class_="value")
    return tag("li", what, tag("span", *parts, class_="track", title=said), value, class_="taken" if row.get("verdict") else None)


def gains(groups: Sequence[Mapping[str, Any]], prefix: str = "") -> Markup:
    """One track per group around no gain: of the best without synthesis (before) and of synthesis on that (after), one standard error."""
    keys = [(f"{prefix}{key}", way) for key, way in (("base", "before"), ("synthesis", "after"))]
    spans = [span for g in groups for key, _ in keys if (span := _span(g, key)) is not None]
    if not spans:
        return Markup("")
    low, high = min(0.0, *(s[0] for s in spans)), max(0.0, *(s[2] for s in spans))
    room = 0.04 * (high - low) or 1e-6
    place = Scale(low - room, high + room, 0, 100)
    rows = [_gain(group, keys, group.get(f"{prefix}rows"), place) for group in groups]
    marks = [tag("span", number(t), style=f"left:{place(t):.2f}%") for t in ticks(place.low, place.high, 5)]
    foot = tag("li", tag("span", class_="what"), tag("span", *marks, class_="scale"), class_="foot", aria_hidden="true")
    return tag("ul", *rows, foot, class_="dumbbells gains")


def _span(group: Mapping[str, Any], key: str) -> tuple[float, float, float] | None:
    value, half = group.get(key), group.get(f"{key}_se") or 0.0
    return None if value is None else (value - half, value, value + half)


def _gain(group: Mapping[str, Any], keys: Sequence[tuple[str, str]], rows: int | None, place: Scale) -> Markup:
    parts, said = [tag("i", class_="zero", style=f"left:{place(0):.2f}%")], []
    for key, way in keys:
        span = _span(group, key)
        if span is None:
            continue
        left, middle, right = map(place, span)
        parts.append(tag("i", class_=f"error {way}", style=f"left:{left:.2f}%;width:{right - left:.2f}%"))
        parts.append(tag("b", class_=f"dot {way}", style=f"left:{middle:.2f}%"))
        said.append(f"{signed(span[1])} ± {fixed(span[2] - span[1])}")
    name = tag("span", group["name"], class_="word")
    what = tag("span", name, tag("small", f"{count(rows)} rows"), class_="what", title=str(group["name"]))
    return tag("li", what, tag("span", *parts, class_="track", title="; ".join(said)))


def term(points: Sequence[Mapping[str, Any]], key: str, across: str, chosen: float | None = None, dots: bool = False) -> Markup:
    """One term against size or tilt: a line, or dots with one standard error; from 0 up, so that flat looks flat.

    Args:
        points: with `across`, `key` and perhaps `se`.
        across: size or tilt.
        chosen: where the ring goes.
        dots: measured at few places.
    """
    shown = sorted((p for p in points if p.get(key) is not None), key=lambda p: p[across])
    if not shown:
        return Markup("")
    top = max(p[key] + ((p.get("se") or 0.0) if dots else 0.0) for p in shown)
    most = max(p[across] for p in points) or 1.0
    x = Scale(-0.04 * most, most, LEFT, WIDTH - RIGHT)
    y = Scale(0.0, 1.08 * top or 1.0, HEIGHT - BOTTOM, TOP)
    path = "M" + "L".join(f"{x(p[across]):.1f} {y(p[key]):.1f}" for p in shown)
    marks = [tag("path", class_="trend", d=path, fill="none")]
    marks += [_dot(p, key, across, x, y) for p in shown] if dots else []
    ring = [p for p in shown if chosen is not None and abs(p[across] - chosen) < 1e-9]
    marks += [tag("circle", class_="ring", cx=x(p[across]), cy=y(p[key]), r=8) for p in ring[:1]]
    series = tag("g", *marks, class_="series after")
    return tag("svg", *_frame(x, y, across), series, class_="chart term", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=key)


def _dot(point: Mapping[str, Any], key: str, across: str, x: Scale, y: Scale) -> Markup:
    value, se = point[key], point.get("se") or 0.0
    title = tag("title", f"{fixed(value)} ± {fixed(se)} at {number(point[across])}")
    bar = tag("line", class_="error", x1=x(point[across]), x2=x(point[across]), y1=y.inside(value - se), y2=y.inside(value + se))
    return tag("g", title, bar, tag("circle", class_="dot", cx=x(point[across]), cy=y(value), r=4.5))


def _frame(x: Scale, y: Scale, across: str) -> list[Markup]:
    name = {"size": "synthetic rows", "tilt": "spread by the target mix"}[across]
    parts = [tag("line", class_="grid", x1=x.start, x2=x.stop, y1=y(t), y2=y(t)) for t in ticks(0, y.high, 4)]
    parts += [tag("text", number(t), class_="tick", x=x.start - 6, y=y(t) + 4, text_anchor="end") for t in ticks(0, y.high, 4)]
    parts += [tag("text", label(t, x.high), class_="tick", x=x(t), y=y.start + 16, text_anchor="middle") for t in ticks(0, x.high, 4)]
    parts.append(tag("line", class_="axis", x1=x.start, x2=x.stop, y1=y.start, y2=y.start))
    parts.append(tag("text", name, class_="name", x=(x.start + x.stop) / 2, y=y.start + 33, text_anchor="middle"))
    return parts


def plane(value: Mapping[str, Any], when: str) -> Markup:
    """Rows on the two components with the contours of one model; the other's middle one is drawn thin beside the after's."""
    x0, x1, y0, y1 = value["box"]
    x, y = Scale(x0, x1, 1, PLANE - 1), Scale(y0, y1, 0.75 * PLANE - 1, 1)
    marks = [tag("rect", class_="field", x=0.5, y=0.5, width=PLANE - 1.0, height=0.75 * PLANE - 1, fill="none")]
    # Rows of the label last: where both lie, the rare one is seen.
    for px, py, hit in sorted(value.get("points") or [], key=lambda p: p[2]):
        if x0 <= px <= x1 and y0 <= py <= y1:
            marks.append(tag("circle", class_="hit" if hit else "miss", cx=x(px), cy=y(py), r=3.2 if hit else 2.4))
    if when == "after":
        marks += [_curve(line, x, y, "before middle") for line in value["before"] if line["level"] == 0.5]
    marks += [_curve(line, x, y, f"{when} middle" if line["level"] == 0.5 else f"{when} side") for line in value[when]]
    named = f"Probability of {value.get('label', '')}, {when}"
    return tag("svg", *marks, class_="chart plane", viewBox=f"0 0 {PLANE} {0.75 * PLANE:g}", role="img", aria_label=named)


def _curve(line: Mapping[str, Any], x: Scale, y: Scale, kind: str) -> Markup:
    pieces = "".join(f"M{x(a):.1f} {y(b):.1f}L{x(c):.1f} {y(d):.1f}" for a, b, c, d in line["segments"])
    return tag("path", tag("title", f"probability {number(line['level'])}"), class_=f"contour {kind}", d=pieces or "M0 0", fill="none")
