"""Numbers of command lines: those of the digits 0 to 9 within their bounds, and one line for all others."""

from __future__ import annotations

import argparse

import pytest

from cim_plugin import flags

NO_WHOLE = ["", "x", "1.5", "1e3", "nan", "٣", "1_0", "0x10", " ", "--"]
NO_NUMBER = ["", "x", "nan", "inf", "-inf", "1e400", "٣", "1_0", "0x10"]


@pytest.mark.parametrize("text", [*NO_WHOLE, "0", "-1", "2147483648", "9" * 20, "9" * 5000, "-" + "9" * 5000])
def test_no_count(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        flags.whole(1)(text)
    assert "is not a whole number" in str(error.value) and len(str(error.value)) < 120


@pytest.mark.parametrize("text, value", [("1", 1), ("+7", 7), ("0012", 12), ("2147483647", flags.COUNT)])
def test_a_count(text, value):
    assert flags.whole(1)(text) == value


@pytest.mark.parametrize("text", [*NO_NUMBER, "0", "-1", "1.1", "9" * 5000])
def test_no_fraction(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        flags.number(0, strict=True, high=1)(text)
    assert "is not a finite number above 0 and up to 1" in str(error.value) and len(str(error.value)) < 120


@pytest.mark.parametrize("text, value", [("1", 1.0), ("1e-3", 0.001), (".5", 0.5)])
def test_a_fraction(text, value):
    assert flags.number(0, strict=True, high=1)(text) == value


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, 3, 10**400])
def test_what_is_no_whole_number_from_1_to_2(value):
    assert not flags.is_whole(value, 1, 2)
    assert flags.is_whole(1, 1, 2) and flags.is_whole(2, 1, 2)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400])
def test_what_is_no_finite_number(value):
    assert not flags.is_finite(value)
    assert flags.is_finite(0) and flags.is_finite(-1e300)


def test_a_wrong_argument_is_one_line_of_readable_length(capsys):
    parser = flags.Parser(prog="program")
    parser.add_argument("--number", type=flags.whole(1))
    for words in (["--number", "9" * 100_000], ["--nope\n" * 1000]):
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args(words)
        (line,) = capsys.readouterr().err.splitlines()
        assert stopped.value.code == 2 and line.startswith("program: error: ") and len(line) < 1200
