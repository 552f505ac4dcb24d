"""Of commands that write one folder one wins and the others say so; who has died holds nothing, here or elsewhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest

from cim_plugin.errors import InputError
from cim_plugin.runs import folder_lock
from cim_plugin.runs.folder_lock import FILE, FolderLock, Locked

context = multiprocessing.get_context("fork")


def _hold(folder, connection) -> None:
    """In a child: say whether it holds the folder, and keep it until something is sent."""
    lock = FolderLock(str(folder))
    try:
        lock.acquire()
    except Locked as error:
        connection.send(str(error))
        return
    connection.send("held")
    connection.recv()
    lock.release()


def _start(folder):
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(folder, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _end(process, connection) -> None:
    connection.send("end")
    process.join(30)


def _written_by(folder, **changes) -> None:
    """A lock as another process left it."""
    (folder / FILE).write_text(json.dumps({**folder_lock._this_process(), **changes}))


def test_a_held_folder_is_refused_in_one_line_that_names_the_holder(tmp_path):
    process, connection = _start(tmp_path)
    assert connection.recv() == "held"
    with pytest.raises(Locked) as raised, FolderLock(str(tmp_path), "--output_dir"):
        pass
    said = str(raised.value)
    assert said.startswith(f"--output_dir {tmp_path} is being written by another command (process {process.pid} since ")
    assert "\n" not in said and isinstance(raised.value, InputError)
    _end(process, connection)
    with FolderLock(str(tmp_path)):
        assert (tmp_path / FILE).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_of_many_that_start_at_once_on_a_stale_lock_one_wins(tmp_path):
    for _ in range(5):
        _written_by(tmp_path, started="never")
        started = [_start(tmp_path) for _ in range(8)]
        answers = [connection.recv() for _, connection in started]
        assert answers.count("held") == 1
        for (process, connection), answer in zip(started, answers):
            _end(process, connection) if answer == "held" else process.join(30)
        assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_holds_nothing(tmp_path):
    process, connection = _start(tmp_path)
    assert connection.recv() == "held"
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert (tmp_path / FILE).exists()
    with FolderLock(str(tmp_path)):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


def test_a_kill_while_the_lock_is_made_leaves_none_and_the_next_holder_tidies_up(tmp_path, monkeypatch):
    """What is there when the name of the lock appears, and what a kill just before leaves."""
    linked = []
    real = os.link
    monkeypatch.setattr(os, "link", lambda part, path: (linked.append(json.loads(open(part).read())), real(part, path)))
    (tmp_path / f"{FILE}.left.part").write_text("")
    with FolderLock(str(tmp_path)):
        assert linked[0]["pid"] == os.getpid() and [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_file_system_without_links_has_locks_too(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with FolderLock(str(tmp_path)):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
        with pytest.raises(Locked):
            FolderLock(str(tmp_path)).acquire()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
def test_a_process_number_that_is_used_again_is_not_the_holder(tmp_path):
    _written_by(tmp_path, started="1")
    with FolderLock(str(tmp_path)):
        pass


@pytest.mark.parametrize("silent, dead", [(folder_lock.SILENT - 60, False), (folder_lock.SILENT + 60, True)])
@pytest.mark.parametrize("content", ["of another machine", "being written", "[]", '{"pid": "x"}', '{"pid": -1}'])
def test_a_holder_that_cannot_be_asked_is_dead_when_it_has_been_silent_for_long(tmp_path, content, silent, dead):
    _written_by(tmp_path, machine=["elsewhere"])
    if content != "of another machine":
        (tmp_path / FILE).write_text("" if content == "being written" else content)
    before = time.time() - silent
    os.utime(tmp_path / FILE, (before, before))
    if dead:
        with FolderLock(str(tmp_path)):
            pass
        assert list(tmp_path.iterdir()) == []
        return
    with pytest.raises(Locked, match="elsewhere" if content == "of another machine" else "remove that file"):
        FolderLock(str(tmp_path)).acquire()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT", 0.01)
    with FolderLock(str(tmp_path)):
        os.utime(tmp_path / FILE, (0, 0))
        deadline = time.monotonic() + 30
        while os.stat(tmp_path / FILE).st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.stat(tmp_path / FILE).st_mtime > 0


def test_who_was_taken_for_dead_leaves_the_lock_to_the_next(tmp_path):
    lock = FolderLock(str(tmp_path))
    lock.acquire()
    _written_by(tmp_path, machine=["elsewhere"])
    lock.release()
    assert (tmp_path / FILE).exists()


def test_a_fork_does_not_let_go(tmp_path):
    with FolderLock(str(tmp_path)) as lock:
        child = context.Process(target=lock.release)
        child.start()
        child.join(30)
        assert child.exitcode == 0 and (tmp_path / FILE).exists()


def test_folders_are_made_and_go_again_where_nothing_was_written(tmp_path):
    folder = tmp_path / "a" / "b"
    with FolderLock(str(folder)):
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with FolderLock(str(folder)):
        (tmp_path / "a" / "kept").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--log_dir .*file/below cannot be written \\(Not a directory\\)"):
        FolderLock(str(tmp_path / "file" / "below")).acquire()
