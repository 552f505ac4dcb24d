"""Log files as bytes on the disk."""

from __future__ import annotations

import csv

from cim_plugin.wilds_runner.log_files import LogFiles


def test_the_header_is_written_once(tmp_path):
    logs = LogFiles(str(tmp_path), {})
    logs.row("val_eval.csv", {"epoch": 0, "acc": 0.5}, 0)
    logs.row("val_eval.csv", {"epoch": 1, "acc": 0.25}, 1)
    logs.row("test_eval.csv", {"epoch": 0}, 0)
    assert (tmp_path / "val_eval.csv").read_text() == "epoch,acc\n0,0.5\n1,0.25\n"
    assert (tmp_path / "test_eval.csv").read_text() == "epoch\n0\n"


def test_what_a_csv_needs_to_quote_is_read_back(tmp_path):
    LogFiles(str(tmp_path), {}).row("a.csv", {"y: land, bird": 'x"\n'}, 0)
    with open(tmp_path / "a.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"y: land, bird": 'x"\n'}]


def test_a_resumed_run_cuts_files_back_to_the_recorded_sizes(tmp_path):
    """And goes on behind what was recorded, without a second header and without what came later."""
    logs = LogFiles(str(tmp_path), {})
    logs.write("épochs\n")
    logs.row("a.csv", {"x": 1}, 0)
    recorded = dict(logs.sizes)
    logs.write("lost\n")
    logs.row("a.csv", {"x": 2}, 1)
    logs.row("late.csv", {"x": 3}, 1)

    resumed = LogFiles(str(tmp_path), recorded)
    assert resumed.sizes == recorded == {name: (tmp_path / name).stat().st_size for name in recorded}
    resumed.write("again\n")
    resumed.row("a.csv", {"x": 4}, 1)
    resumed.row("late.csv", {"x": 5}, 1)
    assert (tmp_path / "log.txt").read_text() == "épochs\nagain\n"
    assert (tmp_path / "a.csv").read_text() == "x\n1\n4\n"
    assert (tmp_path / "late.csv").read_text() == "x\n5\n"


def test_a_file_that_an_older_version_began_keeps_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("epoch,acc\n0,0.5\n")
    logs = LogFiles(str(tmp_path), {"a.csv": 100})
    for epoch in (1, 2):
        logs.row("a.csv", {"epoch": epoch, "acc": 0.25, "mask_std": 0.1}, epoch)
    assert (tmp_path / "a.csv").read_text() == "epoch,acc\n0,0.5\n1,0.25\n2,0.25\n"


def test_files_of_an_earlier_run_are_started_anew(tmp_path):
    (tmp_path / "log.txt").write_text("old\n")
    (tmp_path / "a.csv").write_text("y\n9\n")
    logs = LogFiles(str(tmp_path), {})
    logs.write("new\n")
    logs.row("a.csv", {"x": 1}, 0)
    assert (tmp_path / "log.txt").read_text() == "new\n" and (tmp_path / "a.csv").read_text() == "x\n1\n"


def test_a_recorded_file_that_is_shorter_or_gone_gets_no_padding(tmp_path):
    (tmp_path / "log.txt").write_text("ab\n")
    logs = LogFiles(str(tmp_path), {"log.txt": 100, "gone.csv": 5})
    assert logs.sizes == {"log.txt": 3}
    logs.row("gone.csv", {"x": 1}, 0)
    assert (tmp_path / "log.txt").read_bytes() == b"ab\n" and (tmp_path / "gone.csv").read_text() == "x\n1\n"


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logs = LogFiles(None, {"log.txt": 3})
    logs.write("a")
    logs.row("a.csv", {"x": 1}, 0)
    assert not list(tmp_path.iterdir())


def test_text_is_echoed_and_numbers_are_tracked(tmp_path):
    echoed, tracked = [], []
    tracker = type("Tracker", (), {"numbers": lambda self, *words: tracked.append(words)})()
    logs = LogFiles(str(tmp_path), {}, echoed.append, tracker)
    logs.write("hello\n")
    logs.row("val_eval.csv", {"acc": 0.5, "loss": 2.0}, 7)
    assert echoed == ["hello\n"]
    assert tracked == [({"val_eval/acc": 0.5, "val_eval/loss": 2.0}, 7)]


# --- averages --------------------------------------------------------------------------------------------------------
