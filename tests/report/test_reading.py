"""The search for record: mixtures, damage, links."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from run_folders import domainbed_records, wilds_record, write_domainbed, write_wilds

from cim_plugin import files
from cim_plugin.errors import InputError
from cim_plugin.runs import find, packed, record, train

SAME = [[(0.5, 0.5)] * 2] * 2


def folders(found) -> list[str]:
    return [run.folder for run in found.runs]


def test_all_runs_below_a_folder_are_found_in_order(tmp_path):
    expected = [
        write_wilds(tmp_path / "a"),
        write_domainbed(tmp_path / "b" / "sweep" / "1", domainbed_records([0], SAME)),
        write_wilds(tmp_path / "b" / "x" / "y"),
    ]
    (tmp_path / "empty").mkdir()
    found = find.find([str(tmp_path)])
    assert folders(found) == [str(path) for path in expected]
    assert [run.host for run in found.runs] == ["wilds", "domainbed", "wilds"]
    assert not found.left_out and not found.links


def test_a_run_named_twice_counts_once(tmp_path):
    run = write_wilds(tmp_path / "runs" / "a")
    (tmp_path / "other").symlink_to(tmp_path / "runs")
    found = find.find([str(tmp_path / "runs"), str(run), str(run) + "/", str(tmp_path / "other")])
    assert folders(found) == [str(run)]


def test_a_folder_that_is_itself_a_link_is_read(tmp_path):
    write_wilds(tmp_path / "runs" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert folders(find.find([str(tmp_path / "link")])) == [str(tmp_path / "link" / "a")]


def test_links_below_a_folder_are_told_and_not_followed(tmp_path):
    write_wilds(tmp_path / "outside")
    write_wilds(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "runs" / "secret").mkdir()
    (tmp_path / "runs" / "secret" / "results.json").symlink_to("/etc/passwd")
    found = find.find([str(tmp_path / "runs")])
    assert folders(found) == [str(tmp_path / "runs" / "a")]
    assert found.links == [str(tmp_path / "runs" / name) for name in ("loop", "out", "secret/results.json")]


def test_damaged_runs_are_left_out_and_named(tmp_path):
    write_wilds(tmp_path / "good")
    for name, text in (("a", '{"config": {}'), ("b", "[1]"), ("c", "[" * 100000), ("d", "1" * 5000), ("e", "\n\n{x}")):
        (write_wilds(tmp_path / name) / "results.json").write_text(text)
    (write_wilds(tmp_path / "f") / "results.json").write_bytes(b"\xff\xfe")
    (tmp_path / "g" / "results.json").mkdir(parents=True)
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "state.pth").write_bytes(b"a state")
    found = find.find([str(tmp_path)])
    assert folders(found) == [str(tmp_path / "good")]
    told = dict(zip("abcdefgh", found.left_out, strict=True))
    assert all(reason.startswith(str(tmp_path / name)) for name, reason in told.items())
    words = {
        "a": "line 1: not JSON",
        "b": "line 1: a JSON object is expected",
        "c": "line 1",
        "d": "line 1",
        "e": "line 3: not JSON (",
        "f": "is not UTF-8",
        "g": "is not a file",
        "h": "incomplete",
    }
    assert all(words[name] in reason for name, reason in told.items()), told


def test_a_file_of_impossible_size_is_not_read(tmp_path, monkeypatch):
    write_wilds(tmp_path / "good")
    with open(write_wilds(tmp_path / "huge") / "results.json", "wb") as file:
        os.truncate(file.fileno(), files.LARGEST + 1)
    found = find.find([str(tmp_path)])
    assert folders(found) == [str(tmp_path / "good")] and "huge/results.json: 268 MB is too large" in found.left_out[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_left_out(tmp_path):
    write_wilds(tmp_path / "good")
    (write_wilds(tmp_path / "file") / "results.json").chmod(0)
    write_wilds(tmp_path / "folder").chmod(0)
    try:
        found = find.find([str(tmp_path)])
    finally:
        (tmp_path / "folder").chmod(0o700)
    assert folders(found) == [str(tmp_path / "good")]
    assert len(found.left_out) == 2 and all("cannot be read (Permission denied)" in reason for reason in found.left_out)


def test_an_error_of_the_disk_is_left_out(tmp_path, monkeypatch):
    write_wilds(tmp_path / "good")
    bad = write_wilds(tmp_path / "bad")
    real = open

    def failing(path, *words, **settings):
        if str(path).startswith(str(bad)):
            raise OSError(5, "Input/output error")
        return real(path, *words, **settings)

    monkeypatch.setattr("builtins.open", failing)
    found = find.find([str(tmp_path)])
    assert folders(found) == [str(tmp_path / "good")] and found.left_out == [
        f"{bad}/results.json: cannot be read (Input/output error)"
    ]


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find.find([str(tmp_path / "absent")])
    with pytest.raises(
        InputError, match="no results.json of 'cim-plugin train' or SubpopBench and no results.jsonl of DomainBed"
    ):
        find.find([str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        find.find([str(tmp_path / "file")])
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="links are not followed, name their targets: .*link"):
        find.find([str(tmp_path)])


# --- packed record
# ------------------------------------------------------------------------------------------------------


def write_packed(path, **records):
    path.write_bytes(packed.pack(records))
    return path


def test_packed_runs_are_read_as_their_folders_are(tmp_path):
    write_wilds(tmp_path / "runs" / "a")
    write_wilds(tmp_path / "runs" / "b", algorithm="CIM", seed=3)
    (tmp_path / "packed").mkdir()
    file = tmp_path / "packed" / packed.NAME
    write_packed(file, **{name: json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in "ab"})
    folders_of, of_file, below = (find.find([str(path)]).runs for path in (tmp_path / "runs", file, file.parent))
    assert [run.folder for run in of_file] == [run.folder for run in below] == [f"{file}/a", f"{file}/b"]
    for one, other in zip(folders_of, of_file):
        assert dataclasses.replace(one, folder="", is_packed=True).__dict__ == {**other.__dict__, "folder": ""}
    assert len(find.find([str(file), str(file.parent), str(file)]).runs) == 2


def test_of_packed_runs_only_damaged_ones_are_left_out(tmp_path):
    record = wilds_record()
    file = write_packed(tmp_path / "some.jsonl.xz", a=record, b={**record, "seed": "x"}, c={})
    found = find.find([str(file)])
    assert folders(found) == [f"{file}/a"]
    assert found.left_out == [
        f"{file}/b: field 'seed' is 'x', not a whole number",
        f"{file}/c: field 'config' is missing",
    ]


def test_a_damaged_file_of_packed_runs_is_said_and_stops_nothing(tmp_path):
    run = write_wilds(tmp_path / "a")
    (tmp_path / packed.NAME).write_bytes(b"no file of this kind")
    found = find.find([str(tmp_path)])
    assert folders(found) == [str(run)] and len(found.left_out) == 1
    with pytest.raises(InputError, match=r"no run in .*runs.jsonl.xz can be read: .*damaged, or not compressed by xz"):
        find.find([str(tmp_path / packed.NAME)])


@pytest.mark.parametrize("name", ["../a", "/etc", "a\n\x1b[2J", ""])
def test_the_folder_of_a_packed_run_is_only_a_name(tmp_path, name):
    """Nothing is looked for there, not even a curve that lies where the name leads."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "val_eval.csv").write_text("epoch,acc_wg\n0,0.5\n")
    (run,) = find.find([str(write_packed(tmp_path / packed.NAME, **{name: wilds_record()}))]).runs
    with pytest.raises(record.Unreadable, match="packed, without val_eval.csv"):
        train.curve(run)


def test_a_link_by_the_name_of_packed_runs_is_not_followed(tmp_path):
    write_wilds(tmp_path / "a")
    (tmp_path / packed.NAME).symlink_to(write_packed(tmp_path / "elsewhere", b=wilds_record()))
    found = find.find([str(tmp_path)])
    assert len(found.runs) == 1 and found.links == [str(tmp_path / packed.NAME)]
