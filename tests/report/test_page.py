"""The web page: one file, nothing from outside, readable on a phone in a real browser."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import write_sweep, write_wilds

from cim_plugin import cli

pytest.importorskip("matplotlib", reason="the page has plots")
VOID = {"meta", "wbr", "br", "img", "link", "hr", "input"}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for algorithm, gain in (("ERM", 0), ("CIM", 0.1), ("<img src=x onerror=alert(1)>" + "W" * 200, 0.2)):
        for seed in range(2):
            write_wilds(
                folder / "runs" / f"{algorithm[:3]}{seed}",
                algorithm,
                seed,
                (0.9, 0.5 + gain, 0.4 + 0.03 * seed + gain, 0.8),
            )
    write_sweep(
        folder / "runs" / "sweep",
        np.random.default_rng(0),
        dataset="OfficeHome",
        n_environments=4,
        n_trials=2,
        n_draws=1,
    )
    (write_wilds(folder / "runs" / "damaged") / "results.json").write_text("{")
    assert cli.main(["compare", str(folder / "runs"), "--published", "-o", str(folder / "report.html")]) == 0
    return folder / "report.html"


class Elements(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_ids_are_unique(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    assert not elements.open
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 50
    used = re.findall(r'(?:href="|url\()#([^")]+)', page.read_text(encoding="utf-8"))
    assert used and set(used) <= set(ids)


def test_page_takes_nothing_from_outside_and_runs_nothing(page):
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    assert not {"script", "img", "link", "iframe", "object", "image", "base"} & {tag for tag, _ in elements.tags}
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")]
        assert all(value.startswith("#") for name, value in attributes.items() if name in ("href", "xlink:href"))
    addresses = set(re.findall(r"https?://[^\"' )<]+", text))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML, not places
    assert not re.findall(r"@import|url\((?!#)", text)


def test_every_table_scrolls_in_its_box_and_has_its_plots(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("table") == [attributes.get("class") for _, attributes in elements.tags].count("scroll") == 2 + 5
    assert tags.count("svg") == 3 * 3 + 2 + 3 * 2 + 3
    assert all(
        attributes.get("role") == "img" and attributes.get("aria-label")
        for tag, attributes in elements.tags
        if tag == "svg"
    )
    assert ("html", {"lang": "en"}) in elements.tags and any(
        attributes.get("name") == "viewport" for tag, attributes in elements.tags if tag == "meta"
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A function (flags..., address) -> what a headless Chromium did; skips with the reason where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on the PATH")
    profile = tmp_path_factory.mktemp("profile")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
    ]
    return lambda *words: subprocess.run([path, *flags, *words], capture_output=True, text=True, timeout=120)


#: a frame of a phone's width: a window of Chromium is never narrower than 500 pixels
FRAME = """<!DOCTYPE html><body style="margin: 0">
<iframe style="border: 0; width: {width}px; height: 800px" srcdoc="{page}"></iframe>
<script>addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument, all = what => [...page.querySelectorAll(what)];
  const told = {{
    page: page.documentElement.scrollWidth, window: page.defaultView.innerWidth,
    boxes: all(".scroll").map(box => [box.clientWidth, box.scrollWidth]),
    right: Math.max(...all("h1, h2, li, svg, .scroll").map(e => e.getBoundingClientRect().right)),
    plots: all("svg").map(e => [e.clientWidth, e.clientHeight]),
    font: parseFloat(getComputedStyle(page.body).fontSize) }};
  document.body.innerHTML = "<pre>" + JSON.stringify(told) + "</pre>";
}})</script>"""


def measured(browser, page, tmp_path, width) -> dict:
    """Sizes in pixels, told by a script around the page."""
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width, page=html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    done = browser(f"--window-size={width},800", "--hide-scrollbars", "--dump-dom", frame.as_uri())
    return json.loads(re.search("<pre>(.*)</pre>", done.stdout).group(1))


def test_a_phone_shows_it_without_scrolling_sideways(browser, page, tmp_path):
    told = measured(browser, page, tmp_path, 390)
    assert told["window"] == told["page"] == 390 and told["right"] <= 390
    assert any(content > box for box, content in told["boxes"]) and all(
        box <= 390 for box, _ in told["boxes"]
    )  # wide tables scroll in their boxes
    assert told["font"] >= 16 and all(300 <= width <= 390 and height > 200 for width, height in told["plots"])


def test_a_wide_screen_shows_plots_beside_each_other(browser, page, tmp_path):
    told = measured(browser, page, tmp_path, 1280)
    assert told["page"] == 1280 and max(width for width, _ in told["plots"]) < 600


@pytest.mark.parametrize(("scheme", "dark"), [(1, False), (0, True)])
def test_light_and_dark_follow_the_reader(scheme, dark, browser, page, tmp_path):
    picture = tmp_path / "page.png"
    browser(
        "--window-size=1280,1800",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--hide-scrollbars",
        f"--screenshot={picture}",
        page.as_uri(),
    )
    pixels = np.asarray(Image.open(picture).convert("L")).astype(int)
    paper = np.median(pixels)
    assert (paper < 60) == dark and (paper > 200) != dark
    assert (abs(pixels - paper) > 120).mean() > 0.01  # text and plots stand out against it


def test_the_browser_finds_nothing_to_complain_about(browser, page):
    done = browser("--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", page.as_uri())
    assert "Runs side by side" in done.stdout
    assert not re.findall(r"CONSOLE.*", done.stderr)
