"""A log that is a file gets a line now and then, and a terminal a bar."""

from __future__ import annotations

import sys

import pytest

from cim_plugin import progress as module
from cim_plugin.progress import progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds, which stand still until a test moves them."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_what_is_quick_says_nothing(clock, capsys):
    for _ in progress(range(1400), desc="quick", unit="image"):
        clock[0] += 0.005
    assert capsys.readouterr().err == ""


def test_a_line_for_every_tenth(clock, capsys):
    assert [
        item
        for item in progress(range(1400), desc="decoding", unit="image")
        if clock.__setitem__(0, clock[0] + 1) is None
    ] == list(range(1400))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 23 and lines[0] == "decoding: 60 of 1,400 images, 60 s"  # every minute, before a tenth is done


@pytest.mark.parametrize(
    "unit, many", [("image", "images"), ("batch", "batches"), (" folders", "folders"), ("epoch", "epochs")]
)
def test_many_of_a_unit_have_its_plural(clock, capsys, unit, many):
    for _ in progress(range(2), unit=unit):
        clock[0] += 61
    assert capsys.readouterr().err.splitlines()[0] == f"1 of 2 {many}, 61 s"


def test_a_tenth_is_said_when_it_comes_before_the_minute(clock, capsys):
    with progress(total=100, unit="step") as bar:
        for _ in range(100):
            clock[0] += 1.5
            bar.set_postfix_str("loss 1.0", refresh=False)
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[-1] == "100 of 100 steps, 150 s, loss 1.0"


def test_a_work_of_unknown_length(clock, capsys):
    for _ in progress(iter(range(200)), desc="reading", unit=" folders"):
        clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [f"reading: {n} folders, {n} s" for n in (60, 120, 180)]


def test_nothing_is_said_where_nothing_is_to_be_shown(clock, capsys):
    bar = progress(total=2, show=False, unit="step")
    clock[0] += 1000
    bar.update(2)
    bar.close()
    assert bar.disable and bar.n == 2 and capsys.readouterr().err == ""


def test_no_line_is_repeated_while_nothing_goes_on(clock, capsys):
    bar = progress(total=10, unit="step")
    bar.update()
    for _ in range(100):
        clock[0] += 100
        bar.update(0)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    tqdm = pytest.importorskip("tqdm").tqdm
    with progress(total=2, desc="bar", unit="step", leave=False) as bar:
        assert isinstance(bar, tqdm) and bar.total == 2 and bar.unit == "step"
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert isinstance(progress(total=2), module.Lines)
