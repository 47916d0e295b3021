"""The page a person reads: report.json as one self-contained HTML file; knows stored results and no data."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from codsa_ray.report import charts, text
from codsa_ray.report.curve import beyond, loss_curve
from codsa_ray.report.law import law_chart
from codsa_ray.report.png import heat, picture
from codsa_ray.report.reasons import section

HERE = Path(__file__).parent
HEADLINES = {
    "augment": "Synthetic rows help here.",
    "bag": "A bag of models is enough.",
    "reweight": "Re-weighting is enough.",
    "correct": "Correcting the scores is enough.",
    "leave": "Leave it as it is.",
}
ADVICE = {
    "augment": "augment",
    "bag": "average several models",
    "reweight": "weigh the real rows",
    "correct": "correct the scores",
    "leave": "change nothing",
}
WAYS = {"plain": "as it is", "base": "best without synthesis", "chosen": "verdict", "moved": "as it is, threshold moved"}
LARGE = 2
MOST_PAIRS = 8
MOST_HISTOGRAMS = 12
MOST_TRACKS = 24


def render(report: Mapping[str, Any]) -> str:
    """The page of a report; any part may be absent or empty and is then left out.

    The page asks the network for nothing: its content security policy forbids it, and names its one script by hash, so that no
    text of the data can run either.
    """
    style, script = (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
    page = template("page.html").render(
        report=report,
        verdict=_verdict(report.get("verdict") or {}),
        parts=_parts(report),
        charts=charts,
        picture=picture,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        limits={"histograms": MOST_HISTOGRAMS, "tracks": MOST_TRACKS},
    )
    return page.strip() + "\n"


@cache
def template(name: str) -> Template:
    """One of this folder's pages, with the filters for numbers; text of the data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters.update(
        number=text.number, fixed=text.fixed, count=text.count, percent=text.percent, seconds=text.seconds, words=text.words
    )
    environment.filters["value"] = text.cell
    return environment.get_template(name)


def _parts(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections that have something to show, in the order of the page, with what is computed for them."""
    return {key: {"title": title, **part} for key, title, part in _sections(report) if part}


def _sections(report: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    verdict, curve = report.get("verdict") or {}, report.get("curve") or {}
    chart = loss_curve(curve, curve.get("chosen") or _called(verdict.get("chosen")))
    yield "curve", "Loss against size", {"chart": chart, "beyond": beyond(curve), "names": _names(curve)} if chart else {}
    yield "why", "Why", section(report.get("why") or {})
    study = report.get("scaling") or {}
    yield "scaling", "More rows", {"chart": law_chart(study), "sentences": study["sentences"]} if study else {}
    yield "groups", "Groups", _groups(report.get("groups") or [])
    yield "candidates", "Candidates", _candidates(report.get("candidates") or [])
    yield "metrics", "Metrics", _metrics(report.get("metrics") or {})
    reliability = report.get("reliability") or {}
    drawable = reliability.get("before") or reliability.get("after")
    yield "reliability", "Reliability", {"chart": charts.reliability(reliability), "ece": reliability.get("ece") or {}} if drawable else {}
    yield "pictures", "Pictures", {"value": report.get("pictures")} if (report.get("pictures") or {}).get("regions") else {}
    yield "images", "Drawn pictures", _pictured(report)
    told = {"columns": report["texts"], "quality": {"text_c2st": None, **(report.get("text_quality") or {})}} if report.get("texts") else {}
    yield "texts", "Drawn texts", told
    yield "coupling", "What belongs together", {"pairs": report["coupling"]} if report.get("coupling") else {}
    yield "fidelity", "Fidelity", _fidelity(report.get("fidelity") or {})
    yield "privacy", "Privacy", {"value": report["privacy"]} if report.get("privacy") else {}
    yield "sample", "Drawn rows", {"rows": report["sample"]} if report.get("sample") else {}
    yield "cost", "Cost", _cost(report.get("stages") or [])
    yield "schema", "Schema", _some(columns=report.get("schema"), left_out=report.get("left_out"))
    yield "run", "Run", _some(notices=report.get("notices"), job=report.get("job"), environment=report.get("environment"))


def _pictured(report: Mapping[str, Any]) -> dict[str, Any]:
    quality = {"frechet": None, **(report.get("picture_quality") or {})}
    return {"columns": report["images"], "quality": quality} if report.get("images") else {}


def _some(**values: Any) -> dict[str, Any]:
    """The values, or nothing when all of them are empty."""
    return {key: value or () for key, value in values.items()} if any(values.values()) else {}


def _verdict(verdict: Mapping[str, Any]) -> dict[str, Any]:
    kind, sentences = verdict.get("kind") or "", list(verdict.get("sentences") or [])
    levels = [level for level in verdict.get("levels") or [] if level.get("loss") is not None]
    return {
        "kind": kind,
        "headline": HEADLINES.get(kind, "No verdict yet."),
        "advice": ADVICE.get(kind, kind),
        "sentences": sentences[:LARGE],
        "notes": sentences[LARGE:],
        "gain": verdict.get("gain") or {},
        "base": _called(verdict.get("base")),
        "chosen": _called(verdict.get("chosen")),
        "plan": _plan(verdict.get("plan") or {}),
        "ladder": charts.ladder(levels, kind, ADVICE) if len(levels) > 1 else "",
    }


def _called(entry: Any) -> str:
    """The name of a candidate, given as such or with more about it."""
    return str(entry.get("name") or "") if isinstance(entry, Mapping) else entry or ""


def _plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan's parts as whole numbers of rows; any other plan as it is."""
    if "parts" not in plan:
        return dict(plan)
    parts = [f"{text.count(sum(part['counts']))} rows of weight {text.number(part['row_weight'])}" for part in plan["parts"]]
    return {**{key: value for key, value in plan.items() if key != "parts"}, "each draw": parts}


def _names(curve: Mapping[str, Any]) -> list[str]:
    return [generator["name"] for generator in curve.get("generators") or [] if generator.get("points")]


def _groups(groups: list[dict[str, Any]]) -> dict[str, Any]:
    if not groups:
        return {}
    rarest = sorted(groups, key=lambda group: group.get("train") or 0)
    shown = rarest[:MOST_TRACKS]
    return {"rows": rarest, "chart": charts.dumbbells(shown), "test": charts.dumbbells(shown, "test_loss", "test_se"), "shown": len(shown)}


def _candidates(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    if not candidates:
        return {}
    keys = ("size", "gamma", "eta", "row_weight", "tilt", "draws")
    # Candidates without synthesis have these settings by default only; zeros and ones there would say nothing.
    candidates = [row if row.get("generator") else {**row, **dict.fromkeys(keys)} for row in candidates]
    told = [key for key in keys if any(row.get(key) not in (None, "", 0) for row in candidates)]
    rows = sorted(candidates, key=lambda row: (row.get("loss") is None, row.get("loss") or 0.0))
    return {"rows": rows, "keys": told, "failed": sum(bool(row.get("failed")) for row in candidates)}


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """One table for the test rows, one for held-out training rows: a column per candidate, headed by all it is."""
    tables = []
    for where, title in (("test", "Test rows"), ("out_of_fold", "Held-out training rows")):
        part = metrics.get(where) or {}
        ways = [{**way, "head": ", ".join(WAYS.get(name, name) for name in way["ways"])} for way in part.get("ways") or []]
        names = [name for name in metrics.get("names") or [] if any(name in way["values"] for way in ways)]
        if names:
            heads = [{**way, "head": way["head"][:1].upper() + way["head"][1:]} for way in ways]
            tables.append({"title": title, "rows": part.get("rows"), "ways": heads, "names": names, "notices": part.get("notices") or []})
    return {"tables": tables, **{key: metrics.get(key) for key in ("level", "resamples", "bins")}} if tables else {}


def _fidelity(fidelity: Mapping[str, Any]) -> dict[str, Any]:
    if not any(fidelity.values()):
        return {}
    columns = sorted(fidelity.get("columns") or [], key=lambda column: -(column.get("distance") or 0.0))
    shown = [{**column, "chart": _marginal(column)} for column in columns]
    test, pairs = fidelity.get("c2st") or {}, fidelity.get("correlation") or {}
    if len(pairs.get("names", ())) < 2:
        pairs = {}
    mean = sum(column["distance"] for column in columns) / len(columns) if columns else None
    return {
        "columns": shown,
        "mean": mean,
        "c2st": test,
        "pairs": pairs,
        "heat": [(name, heat(pairs[key])) for name, key in (("real", "real"), ("drawn", "drawn"))] if pairs.get("names") else [],
        "furthest": _furthest(pairs),
        "regions": fidelity.get("regions") or [],
    }


def _marginal(column: Mapping[str, Any]) -> Markup:
    if not column.get("bins"):
        return Markup("")
    return charts.shares(column) if column.get("kind") in ("categorical", "boolean") else charts.histogram(column)


def _furthest(pairs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of columns whose association differs most."""
    names = pairs.get("names") or []
    found = [
        {"first": names[i], "second": names[j], "real": pairs["real"][i][j], "drawn": pairs["drawn"][i][j]}
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]
    return sorted(found, key=lambda pair: -abs(pair["real"] - pair["drawn"]))[:MOST_PAIRS]


def _cost(stages: list[dict[str, Any]]) -> dict[str, Any]:
    total = sum(stage.get("seconds") or 0.0 for stage in stages)
    return {"stages": stages, "total": total, "most": max((s.get("seconds") or 0.0 for s in stages), default=0.0)} if stages else {}
