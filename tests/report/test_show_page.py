"""The page of ``cim-plugin show``: it needs nothing from elsewhere, and suits a phone."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from showing import show

from cim_plugin.show.examples import choose_rows, examples
from cim_plugin.show.opening import open_run
from cim_plugin.show.page import page
from cim_plugin.show.summary import summarize


class _Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.images, self.addresses, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            self.images.append(found)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def test_the_page_needs_nothing_from_elsewhere(run, tmp_path):
    file = tmp_path / "m.html"
    assert show(run, "-o", file, "--per_group", "1") == 0
    text = file.read_text()
    page = _Page(text)
    assert page.open == [] and len(page.images) == 4 * 5 + 1
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert all(image["alt"] for image in page.images)
    assert "script" not in text.lower() and "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_names_are_escaped_on_the_page(run):
    learnt = open_run(str(run), "val", "best", None)._replace(class_names=['<script>alert("1")</script>', "a & b"])
    shown = list(examples(learnt, choose_rows(learnt, None, 1, 0), 0))
    text = page(learnt, shown, summarize(learnt, 0, False)).decode()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert any('<script>alert("1")</script>' in text for text in _Page(text).texts)


@pytest.mark.parametrize("scheme, bright", [(0, False), (1, True)], ids=["dark", "light"])
def test_the_page_in_a_browser_on_a_phone(run, tmp_path, scheme, bright):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    page, picture = tmp_path / "m.html", tmp_path / "page.png"
    assert show(run, "-o", page, "--per_group", "1") == 0
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars "
        "--window-size=390,1600"
    ).split()
    words = [
        browser,
        *flags,
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    subprocess.run(words, capture_output=True, timeout=120)
    grey = np.asarray(Image.open(picture).convert("L")).astype(int)
    ground = grey[2, 2]
    assert (ground > 200) == bright
    assert abs(grey[:, -8:] - ground).max() < 8, "something is wider than the phone"
    assert grey[600:].std() > 20
