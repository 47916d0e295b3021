"""The page copes with any part absent, lets no text of the data out of its place, and asks the network for nothing."""

import base64
import hashlib
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from codsa_ray.report.axis import ticks
from codsa_ray.report.curve import beyond, loss_curve, loss_range
from codsa_ray.report.page import HEADLINES, render
from codsa_ray.report.png import picture, png
from codsa_ray.report.text import MINUS, MISSING, number, percent, tag

from report_sample import HOSTILE, report_sample

SECTIONS = {
    "curve": "curve",
    "why": "why",
    "groups": "groups",
    "candidates": "candidates",
    "metrics": "metrics",
    "reliability": "reliability",
    "pictures": "pictures",
    "images": "images",
    "texts": "texts",
    "fidelity": "fidelity",
    "privacy": "privacy",
    "sample": "sample",
    "cost": "stages",
    "schema": "schema",
    "run": "notices",
}
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Tags in order of appearance, what was not closed, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return render(report_sample())


def test_every_section_is_there_and_reachable_from_the_navigation(html: str) -> None:
    for id in SECTIONS:
        assert f'<section id="{id}"' in html
        assert f'href="#{id}"' in html


def test_the_verdict_comes_before_everything_else(html: str) -> None:
    place = html.index(f"<h1>{HEADLINES['augment']}</h1>")
    assert place < min(html.index(f'<section id="{id}"') for id in SECTIONS)


def test_elements_are_closed_in_order_and_ids_are_unique(html: str) -> None:
    page = Page(html)
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_column_named_like_a_script_stays_text(html: str) -> None:
    page = Page(html)
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(" in html
    assert [name for name, _ in page.tags].count("script") == 1
    assert not any("alert" in script for script in page.scripts)


@pytest.mark.parametrize("value", ['"><script>x()</script>', "' onload='x()", "<img src=x onerror=x()>"])
def test_hostile_text_anywhere_in_the_report_adds_no_element_and_no_attribute(value: str) -> None:
    named = {"digit", "age", *report_sample()["metrics"]["names"]}

    def spoil(item: object) -> object:
        if isinstance(item, dict):
            return {str(key) + value if key in named else key: spoil(entry) for key, entry in item.items()}
        if isinstance(item, list):
            return [spoil(entry) for entry in item]
        return item + value if isinstance(item, str) and item not in {"augment", "numeric", "categorical"} else item

    spoilt, plain = Page(render(spoil(report_sample()))), Page(render(report_sample()))  # type: ignore[arg-type]
    assert [name for name, _ in spoilt.tags] == [name for name, _ in plain.tags]
    assert not any(key.startswith("on") for _, attributes in spoilt.tags for key in attributes)


def test_the_page_fetches_nothing(html: str) -> None:
    assert not re.search(r"https?:", html)
    for name, attributes in Page(html).tags:
        for key in ("src", "href", "action", "poster", "srcset"):
            address = attributes.get(key)
            assert address is None or address.startswith(("data:", "#")), (name, address)
    assert "@import" not in html
    assert "url(" not in html


def test_the_content_security_policy_allows_its_own_script_and_no_other(html: str) -> None:
    (script,) = Page(html).scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize("key", sorted(report_sample()))
@pytest.mark.parametrize("empty", ["absent", "none", "empty"])
def test_any_part_may_be_absent_or_empty(key: str, empty: str) -> None:
    report = report_sample()
    report["fidelity"]["columns"] = report["fidelity"]["columns"][:14]
    if empty == "absent":
        del report[key]
    else:
        report[key] = None if empty == "none" else type(report[key])()
    html = render(report)
    for id, source in SECTIONS.items():
        # These two have more than one source.
        gone = source == key and id not in ("schema", "run")
        assert (f'<section id="{id}"' in html) is not gone


def test_a_report_of_nothing_is_still_a_page() -> None:
    page = Page(render({}))
    assert page.open == []
    assert "section" in [name for name, _ in page.tags]


@pytest.mark.parametrize("kind", sorted(HEADLINES))
def test_each_kind_of_verdict_has_its_headline(kind: str) -> None:
    report = report_sample()
    report["verdict"] = {"kind": kind, "sentences": ["One sentence."], "gain": None, "base": "none", "chosen": "none", "plan": None}
    assert f"<h1>{HEADLINES[kind]}</h1>" in render(report)


def test_a_verdict_whose_candidates_are_objects_reads_like_one_of_names() -> None:
    report = report_sample()
    plain = render(report)
    for key in ("base", "chosen"):
        report["verdict"][key] = {"name": report["verdict"][key], "level": "bag", "size": 0, "form": "calibrated", "words": ""}
    assert render(report) == plain
    assert 'class="ring"' in plain
    assert re.search(r'<tr class=" chosen">', plain)
    assert re.search(r'<tr class=" base">', plain)


def test_without_real_rows_the_page_shows_none() -> None:
    report = report_sample()
    for item in report["sample"]:
        item["nearest"]["job"] = "astronaut"
    assert "astronaut" in render(report)
    for item in report["sample"]:
        item["nearest"] = None
    for region in report["pictures"]["regions"]:
        region["real"], region["nearest"] = [], []
    for region in report["images"][0]["regions"]:
        region["real"], region["nearest"] = [], []
    for item in report["texts"][0]["regions"][0]["rows"]:
        item["nearest"] = None
    html = render(report)
    assert "nearest real" not in html
    assert "astronaut" not in html


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render(report_sample()) == render(report_sample())


def test_all_good_candidates_are_within_the_chart_and_those_beyond_are_named() -> None:
    curve = report_sample()["curve"]
    low, high = loss_range(curve["generators"], curve["lines"])
    losses = [p["loss"] for g in curve["generators"] for p in g["points"]]
    assert low <= min(losses) <= max(losses) <= high
    assert [line["name"] for line in beyond(curve)] == [line["name"] for line in curve["lines"] if line["loss"] > high] == ["none, raw"]
    assert 'class="ring"' in loss_curve(curve, report_sample()["verdict"]["chosen"])


def test_one_point_without_lines_or_errors_can_be_drawn() -> None:
    curve = {"generators": [{"name": "g", "points": [{"size": 0, "gamma": 0, "loss": 0.0, "se": None, "name": "g"}]}], "lines": []}
    drawn = loss_curve(curve)
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert drawn.count("<circle") == 2


def test_names_of_lines_never_cover_each_other() -> None:
    curve = report_sample()["curve"]
    curve["lines"] = [{"name": f"line {i}", "loss": 0.15 + 1e-5 * i, "se": 0.01} for i in range(40)]
    wide = loss_curve(curve).split("</svg>")[0]
    places = sorted(float(y) for y in re.findall(r'class="base-name" x="[\d.]+" y="([\d.]+)"', wide))
    assert len(places) == 8
    assert min(np.diff(places)) >= 16.9


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.113, 0.245), (0, 1240), (-3e-5, 2e-5), (99.9, 100.1)])
def test_ticks_are_few_even_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    assert low - 1e-9 <= found[0]
    assert found[-1] <= high + 1e-9
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_numbers_read_well() -> None:
    assert [number(v) for v in (None, float("nan"), 0.0, -0.0321, 12345, 1234.5, 0.000123, True)] == [
        MISSING,
        MISSING,
        "0",
        MINUS + "0.0321",
        "12,345",
        "1,234",
        "0.000123",
        "True",
    ]
    assert [percent(v) for v in (0.0, 0.5312, 1.0, None)] == ["0 %", "53.1 %", "100 %", MISSING]


def test_tags_escape_text_and_attributes_but_not_tags() -> None:
    assert tag("b", "<", tag("i"), title='"', aria_label="&") == '<b title="&#34;" aria-label="&amp;">&lt;<i></i></b>'


def test_a_png_holds_the_pixels_it_was_given() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    data = base64.b64decode(png(pixels).partition(",")[2])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (3, 2)
    start, parts = 8, {}
    while start < len(data):
        (length,), kind = struct.unpack(">I", data[start : start + 4]), data[start + 4 : start + 8]
        body = data[start + 8 : start + 8 + length]
        assert struct.unpack(">I", data[start + 8 + length : start + 12 + length])[0] == zlib.crc32(kind + body)
        parts[kind], start = body, start + 12 + length
    lines = zlib.decompress(parts[b"IDAT"])
    assert b"".join(lines[i * 13 + 1 : (i + 1) * 13] for i in range(2)) == pixels.tobytes()


def test_a_picture_of_all_zeros_and_of_no_range_is_white() -> None:
    assert picture([0.0] * 4, 2, 2, 0.0) == picture([0.0] * 4, 2, 2, 16.0) == png(np.full((2, 2), 255, dtype=np.uint8))
