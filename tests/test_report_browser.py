"""The page in headless Chromium: no error, tables that sort, and something to look at on a phone and a desk, light and dark."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from codsa_ray.report.page import render

from report_sample import report_sample

image = pytest.importorskip("PIL.Image")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
# Chromium's windows are at least 500 pixels wide: a phone is a frame of 375 in a page of its own.
PHONE = '<body style="margin:0"><iframe src="page.html" style="width:375px;height:2400px;border:0"></iframe></body>'
WIDTHS = {"phone": 375, "desk": 1280}


def browse(folder: Path, address: Path, *flags: str) -> str:
    """Standard output; fails on anything the page wrote to the console."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, address.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(render(report_sample()), encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    return path


def driven(page: Path, script: str) -> str:
    """The page after a script of the test ran in it; the page's own policy would refuse the script, so it is lifted."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    other = page.with_name("driven.html")
    other.write_text(html.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return browse(page.parent, other, "--dump-dom")


def test_the_page_runs_without_an_error_and_its_script_did_run(page: Path) -> None:
    dom = browse(page.parent, page, "--dump-dom")
    assert "data-error" not in dom
    assert dom.count("<button") > 20
    assert "folded" in dom


def test_a_script_not_of_the_page_does_not_run(page: Path) -> None:
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", "<script>document.title='taken'</script></body>"), encoding="utf-8")
    with pytest.raises(AssertionError, match="violates the following Content Security Po"):
        browse(page.parent, page, "--dump-dom")


def test_an_error_would_be_seen(page: Path) -> None:
    with pytest.raises(AssertionError, match="CONSOLE"):
        driven(page, "nowhere();")


SORT = """
const table = document.getElementById("candidate-table");
const heading = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.trim() === "Loss");
const index = heading.cellIndex;
const losses = () => [...table.tBodies[0].rows].map((row) => row.cells[index].dataset.sort).join(" ");
const button = heading.querySelector("button");
button.focus();
const said = [document.activeElement === button ? "focused" : "lost"];
for (const click of [1, 2]) { button.click(); said.push(heading.getAttribute("aria-sort") + ":" + losses()); }
document.body.dataset.said = said.join("|");
"""


def test_tables_sort_both_ways_by_a_button_that_the_keyboard_reaches_and_missing_values_stay_last(page: Path) -> None:
    found = re.search(r'data-said="([^"]*)"', driven(page, SORT))
    assert found is not None
    focus, *orders = found[1].split("|")
    assert focus == "focused"
    want = [row["loss"] for row in report_sample()["candidates"] if row["loss"] is not None]
    for order, (name, down) in zip(orders, (("ascending", False), ("descending", True)), strict=True):
        state, _, values = order.partition(":")
        assert state == name
        assert values.endswith(" ")
        assert [float(v) for v in values.split()] == sorted(want, reverse=down)


def test_nothing_but_tables_is_wider_than_a_phone(page: Path) -> None:
    driven(page, "parent.postMessage(document.documentElement.scrollWidth + ' ' + innerWidth, '*');")
    listener = "<script>onmessage = (event) => { document.body.dataset.wide = event.data; };</script>"
    frame = page.with_name("frame.html")
    frame.write_text(f"<body>{listener}" + PHONE.replace("page.html", "driven.html"), encoding="utf-8")
    found = re.search(r'data-wide="(\d+) (\d+)"', browse(page.parent, frame, "--virtual-time-budget=3000", "--dump-dom"))
    assert found is not None
    assert [int(found[1]), int(found[2])] == [375, 375]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["phone", "desk"])
def test_the_screenshot_shows_something_in_the_right_light(page: Path, screen: str, scheme: str) -> None:
    shot = page.with_name("shot.png")
    address = page if screen == "desk" else page.with_name("phone.html")
    light = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    browse(page.parent, address, f"--window-size={max(WIDTHS[screen], 500)},2400", light, f"--screenshot={shot}")
    pixels = np.asarray(image.open(shot).convert("L"), dtype=np.float64)[:, : WIDTHS[screen]]
    assert pixels.shape[1] == WIDTHS[screen]
    # Paper is most of the page, and there is ink of the other tone in every third of it.
    assert bool(np.median(pixels) > 200) is (scheme == "light")
    ink = np.abs(pixels - np.median(pixels)) > 80
    assert 0.01 < ink.mean() < 0.3
    assert all(part.mean() > 0.003 for part in np.array_split(ink, 3))
