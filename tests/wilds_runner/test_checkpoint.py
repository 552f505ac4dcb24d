"""Files appear whole or not at all; a state is taken up only by the run that left it, and nothing in it is executed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal

import pytest
import torch
from retired import GONE, HARMLESS, said

from cim_plugin.errors import InputError
from cim_plugin.runs.configuration import MAY_DIFFER
from cim_plugin.wilds_runner import checkpoint


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_is_written_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    checkpoint.write_whole(str(path), lambda file: file.write(b"abc"))
    assert files(path.parent) == {"file": b"abc"}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("enforce fail: short write\nmore"), OSError("odd")],
)
def test_a_write_that_fails_half_way_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        file.flush()
        raise error

    with pytest.raises(InputError) as raised:
        checkpoint.write_whole(str(path), half)
    assert files(tmp_path) == {"file": b"old"}
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    assert str(raised.value).startswith(f"cannot write {path} ({reason}); ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_late_leaves_the_old_file_alone(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, no_space)
    with pytest.raises(InputError, match="No space left on device"):
        checkpoint.write_whole(str(path), lambda file: file.write(b"new"))
    assert files(tmp_path) == {"file": b"old"}


def test_a_full_disk_under_torch_save_is_an_input_error(tmp_path, monkeypatch):
    """torch's writer meets the error itself, and turns it into its own kind."""
    path = tmp_path / "file.pth"
    checkpoint.save(str(path), {"a": 1})
    before = files(tmp_path)
    with limited_files(100_000), pytest.raises(InputError, match="cannot write"):
        checkpoint.save(str(path), {"a": torch.zeros(10**6)})
    assert files(tmp_path) == before


@contextlib.contextmanager
def limited_files(size: int):
    """No file of this process becomes larger, as on a disk with so much room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    order = []
    monkeypatch.setattr(os, "fsync", lambda number: order.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: order.append(path.read_bytes()) or replace(*names))
    checkpoint.write_whole(str(path), lambda file: file.write(b"new"))
    assert order == ["fsync", b"old"] and files(tmp_path) == {"file": b"new"}


def test_what_a_killed_run_left_half_written_is_replaced(tmp_path):
    (tmp_path / "file.part").write_bytes(b"a longer rest of a killed run")
    checkpoint.write_whole(str(tmp_path / "file"), lambda file: file.write(b"new"))
    assert files(tmp_path) == {"file": b"new"}


def test_a_link_in_the_place_of_what_is_being_written_is_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "file.part").symlink_to(tmp_path / "victim")
    checkpoint.write_whole(str(tmp_path / "file"), lambda file: file.write(b"new"))
    assert files(tmp_path) == {"file": b"new", "victim": b"precious"}


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        checkpoint.write_whole(str(tmp_path / "file" / "below"), lambda file: None)


def test_states_json_and_predictions_are_read_back(tmp_path):
    state = {"weights": torch.rand(3), "epoch": 4, "names": ["a"], "none": None}
    checkpoint.save(str(tmp_path / "state.pth"), state)
    loaded = torch.load(tmp_path / "state.pth", weights_only=True)
    assert torch.equal(loaded.pop("weights"), state.pop("weights")) and loaded == state
    checkpoint.save_json(str(tmp_path / "a.json"), {"x": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, None]}
    checkpoint.save_predictions(str(tmp_path / "pred.csv"), torch.tensor([1, 0, 12]))
    assert (tmp_path / "pred.csv").read_text() == "1\n0\n12\n"


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False])
def test_a_link_has_the_content_and_replaces_what_was_there(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_space)
    (tmp_path / "source").write_bytes(b"one")
    (tmp_path / "name").write_bytes(b"old")
    (tmp_path / "name.part").write_bytes(b"rest of a killed run")
    checkpoint.link(str(tmp_path / "source"), str(tmp_path / "name"))
    assert files(tmp_path) == {"source": b"one", "name": b"one"}
    assert os.path.samefile(tmp_path / "source", tmp_path / "name") == links


@pytest.mark.parametrize("links", [True, False])
def test_linking_again_leaves_no_third_name(tmp_path, monkeypatch, links):
    """A rename between two names of one file does nothing."""
    if not links:
        monkeypatch.setattr(os, "link", no_space)
    (tmp_path / "source").write_bytes(b"one")
    for _ in range(2):
        checkpoint.link(str(tmp_path / "source"), str(tmp_path / "name"))
    assert files(tmp_path) == {"source": b"one", "name": b"one"}


def test_a_source_that_is_replaced_does_not_change_the_link(tmp_path):
    checkpoint.write_whole(str(tmp_path / "source"), lambda file: file.write(b"one"))
    checkpoint.link(str(tmp_path / "source"), str(tmp_path / "sub" / "name"))
    checkpoint.write_whole(str(tmp_path / "source"), lambda file: file.write(b"two"))
    assert (tmp_path / "sub" / "name").read_bytes() == b"one"


def test_a_disk_too_full_for_a_copy_leaves_the_old_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_space)
    monkeypatch.setattr(shutil, "copyfileobj", no_space)
    (tmp_path / "source").write_bytes(b"one")
    (tmp_path / "name").write_bytes(b"old")
    with pytest.raises(InputError, match="No space left on device"):
        checkpoint.link(str(tmp_path / "source"), str(tmp_path / "name"))
    assert files(tmp_path) == {"source": b"one", "name": b"old"}


# --- taking a run up -------------------------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path, configure):
    """A function (state) -> the folder of a run that left this state."""

    def folder(state: object) -> str:
        torch.save(state, tmp_path / checkpoint.STATE)
        return str(tmp_path)

    return folder


def test_a_run_of_the_same_configuration_is_taken_up(left, configure):
    state = checkpoint.load_state(left({"config": configure().as_record(), "epoch": 3}), configure(), MAY_DIFFER)
    assert state == {"config": configure().as_record(), "epoch": 3}


def test_a_folder_without_a_run_has_no_state(tmp_path, configure):
    assert checkpoint.load_state(str(tmp_path), configure(), MAY_DIFFER) is None


@pytest.mark.parametrize(
    "words, name, before, now",
    [
        ("--lr 0.5", "lr", "1e-05", "0.5"),
        ("--seed 1", "seed", "0", "1"),
        ("--algorithm VIB", "algorithm", "'ERM'", "'VIB'"),
        ("--optimizer_kwargs momentum=0.5", "optimizer_kwargs", "{'momentum': 0.9}", "{'momentum': 0.5}"),
        ("--target_resolution 96", "target_resolution", "[224, 224]", "[96, 96]"),
    ],
)
def test_another_configuration_is_refused_and_its_difference_named(left, configure, words, name, before, now):
    folder = left({"config": configure().as_record()})
    with pytest.raises(InputError) as error:
        checkpoint.load_state(folder, configure(*words.split()), MAY_DIFFER)
    assert (
        str(error.value)
        == f"--resume: the run in {folder} had {name} {before}, now it is {now}; repeat its flags or choose another "
        f"--log_dir"
    )


@pytest.mark.parametrize(
    "words", ["--log_dir elsewhere", "--progress_bar", "--resume", "--cache false", "--root_dir other", "--track wandb"]
)
def test_where_and_how_a_run_runs_may_differ(left, configure, words):
    assert (
        checkpoint.load_state(left({"config": configure().as_record()}), configure(*words.split()), MAY_DIFFER)
        is not None
    )


def test_what_is_younger_than_a_run_had_its_default_then(left, configure):
    older = configure("--algorithm", "CIM").as_record()
    del older["precision"], older["hyperparameters"]["cim_similarity"]
    assert checkpoint.load_state(left({"config": older}), configure("--algorithm", "CIM"), MAY_DIFFER) is not None
    for words in (("--precision", "bf16-mixed"), ("--cim_similarity", "colours")):
        with pytest.raises(
            InputError, match=f"had {words[0].removeprefix('--')} '.*', now it is '{words[1]}'; repeat its flags"
        ):
            checkpoint.load_state(left({"config": older}), configure("--algorithm", "CIM", *words), MAY_DIFFER)


def test_a_run_of_then_goes_on_where_what_is_no_more_did_nothing(left, configure):
    now = configure("--algorithm", "CIM")
    older = {**now.as_record(), "hyperparameters": {**now.hyperparameters, **HARMLESS}}
    assert checkpoint.load_state(left({"config": older}), now, MAY_DIFFER) is not None
    for name, (value, _) in GONE.items():
        hyperparameters = {**older["hyperparameters"], name: value}
        with pytest.raises(InputError) as error:
            checkpoint.load_state(left({"config": {**older, "hyperparameters": hyperparameters}}), now, MAY_DIFFER)
        expected = f"the run that is there cannot be taken up, its {said(name)}; choose another folder"
        assert str(error.value) == expected


@pytest.mark.parametrize(
    "state, message",
    [
        ({}, "is not the state of a run"),
        ({"config": 3}, "is not the state of a run"),
        ([1], "holds a list, not a state dict"),
    ],
)
def test_a_file_that_is_no_state_is_refused(left, configure, state, message):
    with pytest.raises(InputError, match=message):
        checkpoint.load_state(left(state), configure(), MAY_DIFFER)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a zip"])
def test_a_damaged_state_is_refused(tmp_path, configure, content):
    (tmp_path / checkpoint.STATE).write_bytes(content)
    with pytest.raises(InputError, match="^--resume: .* is not a checkpoint of tensors and plain values"):
        checkpoint.load_state(str(tmp_path), configure(), MAY_DIFFER)


def test_nothing_in_a_state_is_executed(left, tmp_path, configure):
    folder = left({"config": configure().as_record(), "bomb": Bomb(tmp_path / "executed")})
    with pytest.raises(InputError, match="nothing else is loaded"):
        checkpoint.load_state(folder, configure(), MAY_DIFFER)
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / checkpoint.STATE, weights_only=False)
    assert (tmp_path / "executed").exists()  # the bomb is a real one
