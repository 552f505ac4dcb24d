"""The command line: formats, files that appear whole, and what is said to wrong input."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest
from interpreters import HERE, run_python
from run_folders import domainbed_records, wilds_record, write_domainbed, write_wilds

from cim_plugin import cli
from cim_plugin.compare import formats
from cim_plugin.errors import InputError
from cim_plugin.files import write_whole


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for algorithm in ("ERM", "CIM"):
        write_wilds(folder / algorithm, algorithm)
    write_domainbed(folder / "domainbed", domainbed_records([0], [[(0.5, 0.5)] * 2] * 2))
    return folder


def status(*words) -> int:
    """Exit status, argparse's included."""
    try:
        return cli.main(["compare", *map(str, words)])
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    ("suffix", "name"), [(suffix, name) for name, (suffixes, _) in formats.FORMATS.items() for suffix in suffixes]
)
@pytest.mark.slow
def test_format_follows_from_the_suffix(suffix, name, runs, tmp_path, capsys):
    report = tmp_path / f"report{suffix}"
    assert status(runs, "-o", report) == 0
    assert re.fullmatch(rf"\d+ runs are in {re.escape(str(report))}\n", capsys.readouterr().out)
    written = (tmp_path / f"report{suffix}").read_text(encoding="utf-8")
    assert status(runs, "--format", name) == 0
    assert capsys.readouterr().out == written


def test_text_is_the_default_and_format_beats_the_suffix(runs, tmp_path, capsys):
    assert status(runs) == 0
    text = capsys.readouterr().out
    assert "selected by" in text and "CIM" in text and "Debug28" in text
    assert status(runs, "--format", "json", "-o", tmp_path / "report.txt") == 0
    assert json.loads((tmp_path / "report.txt").read_text())["measured"]


def test_rules_are_shown_as_asked_and_other_hosts_keep_theirs(runs, capsys):
    assert status(runs, "--rules", "last, worst_class,last", "--format", "json") == 0
    measured = json.loads(capsys.readouterr().out)["measured"]
    shown = {table["host"]: [row["selected_by"] for row in table["rows"]] for table in measured}
    assert shown == {
        "cim-plugin train": ["last", "last", "worst_class", "worst_class"],
        "DomainBed": ["training_domain", "oracle"],
    }
    said = {table["host"]: [note for note in table["notes"] if "has no rule" in note] for table in measured}
    assert said == {
        "cim-plugin train": [],
        "DomainBed": ["DomainBed has no rule last or worst_class: its usual ones are shown."],
    }


def test_a_report_is_replaced_whole_with_usual_permissions(runs, tmp_path):
    target = tmp_path / "report.txt"
    target.write_text("before")
    assert status(runs, "-o", target) == 0
    assert "selected by" in target.read_text()
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "report.txt", "runs"]


def test_a_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    target = tmp_path / "report.txt"
    target.write_text("before")

    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*report.txt \(No space left on device\)"):
        write_whole(str(target), b"after")
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]


def test_a_terminal_of_few_letters_still_shows_the_table(runs):
    done = run_python(
        "-m",
        "cim_plugin.cli",
        "compare",
        str(runs),
        PYTHONPATH=str(HERE.parent),
        PYTHONIOENCODING="ascii",
        CIM_PLUGIN_AUTOLOAD="0",
    )
    assert done.returncode == 0 and "ERM" in done.stdout and "?" in done.stdout


def test_what_is_left_out_does_not_stop_the_rest(runs, capsys):
    (write_wilds(runs / "bad") / "results.json").write_text('{"dataset": ')
    assert status(runs) == 0
    assert f"{runs}/bad/results.json, line 1: not JSON" in capsys.readouterr().out


def test_help_says_the_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert status("--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "default: worst_group, average for cim-plugin train; training_domain, leave_one_out, oracle for DomainBed"
        in told
    )
    assert "None" not in told and told.count("(default:") == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: DIR"),
        (("absent",), "absent does not exist; name a folder that holds runs"),
        (("file",), "file is not a folder"),
        (("empty",), "no run in empty: no results.json of"),
        (("damaged",), "damaged/results.json, line 1: not JSON"),
        (("started",), "started: incomplete, stopped before the end of its first epoch"),
        (("killed",), "killed/results.jsonl: incomplete, killed while the first evaluation was written"),
        (("nothing",), "nothing/results.jsonl: incomplete, no evaluation yet"),
        (("runs", "absent"), "absent does not exist"),
        (("runs", "--rules", "best_of_all"), "'best_of_all' is not a selection rule; choose from worst_group"),
        (("runs", "--rules", ""), "'' is not a selection rule"),
        (("runs", "--format", "docx"), "invalid choice: 'docx'"),
        (("runs", "-o", "report.pdf"), "its suffix does not tell the format (.txt"),
        (("runs", "-o", "report"), "pass --format"),
        (("runs", "-o", "empty", "--format", "text"), "-o empty is a folder; name a file in it"),
        (("runs", "-o", "missing/report.txt"), "there is no folder missing; make it first"),
        (("runs", "-o", "file/report.txt"), "there is no folder file"),
        (("runs", "-o", "runs/ERM/results.json"), "is the name of a run's own results"),
        (("runs", "--plots", "file"), "--plots file is a file; name a folder"),
        (("runs", "--published=yes"), "ignored explicit argument 'yes'"),
        (("runs", "--best"), "unrecognized arguments: --best"),
    ],
)
def test_wrong_input_is_said_in_one_line(words, message, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name in ("empty", "damaged", "started", "killed", "nothing"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / "results.json").write_text("{]")
    (tmp_path / "started" / "state.pth").touch()
    (tmp_path / "killed" / "results.jsonl").write_text('{"args": {"al')
    (tmp_path / "nothing" / "results.jsonl").touch()
    before = (runs / "ERM" / "results.json").read_text()
    assert status(*words) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and told.out == ""
    assert (runs / "ERM" / "results.json").read_text() == before and not os.path.exists("report.pdf")


@pytest.mark.slow
def test_random_damage_never_ends_in_a_traceback(runs, tmp_path, capsys):
    """Every value of results.json and of a record replaced by every kind of value: an error in one line, or a table."""
    kinds = [None, True, -1, 0.5, float("nan"), 10**30, "", "x", [], [1], {}, {"a": 1}]

    def places(value, path=()):
        yield path
        if isinstance(value, (dict, list)):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from places(inner, (*path, key))

    def damaged(record, path, value):
        record = json.loads(json.dumps(record))
        inner = record
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return record

    wilds = wilds_record("CIM", hyperparameters={"cim_lambda": 0.5})
    wilds["selection"] = {"average": wilds["selection"]["average"]}
    line = domainbed_records([0], [[(0.5, 0.5)] * 2])[0]
    counts = {0: 0, 2: 0}
    for file, record in ((runs / "ERM" / "results.json", wilds), (runs / "domainbed" / "results.jsonl", line)):
        for path in filter(None, places(record)):
            for value in kinds:
                file.write_text(json.dumps(damaged(record, path, value)) + "\n")
                code = status(file.parent, "--format", "json")
                told = capsys.readouterr()
                assert code in counts and (code == 0 or told.err.count("\n") == 1), (path, value)
                counts[code] += 1
    assert min(counts.values()) > 100
