"""The search for runs: mixtures, damage, links."""

from __future__ import annotations

import os

import pytest
from run_folders import domainbed_records, write_domainbed, write_wilds

from cim_plugin import files
from cim_plugin.errors import InputError
from cim_plugin.report import reading

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
    found = reading.find([str(tmp_path)])
    assert folders(found) == [str(path) for path in expected]
    assert [run.host for run in found.runs] == ["wilds", "domainbed", "wilds"]
    assert not found.left_out and not found.links


def test_a_run_named_twice_counts_once(tmp_path):
    run = write_wilds(tmp_path / "runs" / "a")
    (tmp_path / "other").symlink_to(tmp_path / "runs")
    found = reading.find([str(tmp_path / "runs"), str(run), str(run) + "/", str(tmp_path / "other")])
    assert folders(found) == [str(run)]


def test_a_folder_that_is_itself_a_link_is_read(tmp_path):
    write_wilds(tmp_path / "runs" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert folders(reading.find([str(tmp_path / "link")])) == [str(tmp_path / "link" / "a")]


def test_links_below_a_folder_are_told_and_not_followed(tmp_path):
    write_wilds(tmp_path / "outside")
    write_wilds(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "runs" / "secret").mkdir()
    (tmp_path / "runs" / "secret" / "results.json").symlink_to("/etc/passwd")
    found = reading.find([str(tmp_path / "runs")])
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
    found = reading.find([str(tmp_path)])
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
    found = reading.find([str(tmp_path)])
    assert folders(found) == [str(tmp_path / "good")] and "huge/results.json: 268 MB is too large" in found.left_out[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_left_out(tmp_path):
    write_wilds(tmp_path / "good")
    (write_wilds(tmp_path / "file") / "results.json").chmod(0)
    write_wilds(tmp_path / "folder").chmod(0)
    try:
        found = reading.find([str(tmp_path)])
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
    found = reading.find([str(tmp_path)])
    assert folders(found) == [str(tmp_path / "good")] and found.left_out == [
        f"{bad}/results.json: cannot be read (Input/output error)"
    ]


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        reading.find([str(tmp_path / "absent")])
    with pytest.raises(
        InputError, match="neither a results.json of 'cim-plugin train' nor a results.jsonl of DomainBed"
    ):
        reading.find([str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        reading.find([str(tmp_path / "file")])
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="links are not followed, name their targets: .*link"):
        reading.find([str(tmp_path)])
