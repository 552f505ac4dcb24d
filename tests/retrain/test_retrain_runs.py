"""``cim-plugin retrain`` on small finished runs: its numbers are those of its weights, what it may look at, and what it
refuses.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from wilds_runner.small_runs import (
    SIZES,
    model_path,
    prediction_path,
    read_metadata,
    read_model,
    relative_files,
    results,
    train,
    write_metadata,
    write_release,
)

from cim_plugin import cli
from cim_plugin.retrain import features

METHODS = ("dfr", "pseudo", "afr")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trained(release, tmp_path_factory):
    """A finished run of CIM_VIB with pseudo-environments. Not to be changed."""
    write_release(release)
    log_dir = tmp_path_factory.mktemp("runs") / "run"
    assert train(release, log_dir, "--cross_fit", "10", algorithm="CIM_VIB") == 0
    return log_dir


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def retrain(run, method: str, *more: str) -> int:
    return cli.main(["retrain", str(run), "--method", method, *more])


def other(run, method: str):
    return run.parent / f"{run.name}-{method}"


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_a_run_with_another_head(run, method, capsys):
    assert retrain(run, method) == 0
    before, after = read_model(run), read_model(other(run, method))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["head.weight", "head.bias"]
    record = results(other(run, method))
    assert record["config"] == {**results(run)["config"], "retrain": method}
    assert (record["status"], record["algorithm"], record["seed"]) == ("finished", "CIM_VIB", 0)
    assert record["selection"].keys() == results(run)["selection"].keys() - {"oracle"}
    needs = "group labels of validation data" if method == "dfr" else "labels of validation data, none of groups"
    assert record["retrain"]["needs"].startswith(needs) and needs in capsys.readouterr().out


@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_and_figures_are_those_of_its_weights(run, release, split):
    """As --eval_only, which runs the whole network, gives them."""
    assert retrain(run, "dfr") == 0
    folder = other(run, "dfr")
    written = prediction_path(folder, "best", split).read_text()
    labels = np.array(
        [
            int(row["y"])
            for row in read_metadata(release / "waterbirds_v1.0")
            if row["split"] == str(list(SIZES).index(split))
        ]
    )
    accuracy = (np.array(written.split(), dtype=int) == labels).mean()
    assert results(folder)["selection"]["average"]["splits"][split]["accuracy"] == pytest.approx(accuracy)
    prediction_path(folder, "best", split).unlink()
    assert train(release, folder, "--cross_fit", "10", "--eval_only", algorithm="CIM_VIB") == 0
    assert prediction_path(folder, "best", split).read_text() == written


@pytest.mark.slow
def test_what_needs_no_labels_of_groups_does_not_look_at_them(run, release, tmp_path):
    """With other groups the heads of pseudo and afr are the same, dfr's is another one."""
    shuffled = shutil.copytree(release, tmp_path / "data")
    rows = read_metadata(shuffled / "waterbirds_v1.0")
    for number, row in enumerate(rows):
        row["place"] = str(number % 2)
    write_metadata(shuffled / "waterbirds_v1.0", rows)
    for method in METHODS:
        assert retrain(run, method) == 0
        assert retrain(run, method, "--root_dir", str(shuffled), "--log_dir", str(tmp_path / method)) == 0
        same = torch.equal(read_model(other(run, method))["head.weight"], read_model(tmp_path / method)["head.weight"])
        assert same == (method != "dfr")


@pytest.mark.slow
def test_no_method_looks_at_the_test(run, release, tmp_path):
    changed = shutil.copytree(release, tmp_path / "data")
    rows = read_metadata(changed / "waterbirds_v1.0")
    for row in rows:
        if row["split"] == "2":
            row["y"] = str(1 - int(row["y"]))
    write_metadata(changed / "waterbirds_v1.0", rows)
    for method in METHODS:
        assert retrain(run, method) == 0
        assert retrain(run, method, "--root_dir", str(changed), "--log_dir", str(tmp_path / method)) == 0
        assert torch.equal(read_model(other(run, method))["head.weight"], read_model(tmp_path / method)["head.weight"])


def written(file) -> tuple[int, int]:
    """What another one of the same name has not: a file that is written whole is a new one."""
    return file.stat().st_ino, file.stat().st_mtime_ns


def test_features_are_computed_once(run):
    assert retrain(run, "dfr") == 0
    (kept,) = run.glob(f"*{features.FILES}")
    first = written(kept)
    assert retrain(run, "afr") == 0 and written(kept) == first


def test_features_of_another_model_or_of_a_damaged_file_are_computed_again(run):
    assert retrain(run, "dfr") == 0
    (kept,) = run.glob(f"*{features.FILES}")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-40])
    assert retrain(run, "afr") == 0 and kept.read_bytes() == whole
    first = written(kept)
    state = torch.load(model_path(run, "last"), weights_only=True)
    state["algorithm"]["head.bias"] += 1
    torch.save(state, model_path(run, "last"))
    assert retrain(run, "pseudo") == 0 and written(kept) != first


def test_compare_and_show_read_it(run, release, capsys, tmp_path):
    assert retrain(run, "afr") == 0
    assert cli.main(["compare", str(run.parent)]) == 0
    text = capsys.readouterr().out
    assert "retrain=afr" in text
    assert cli.main(["show", str(other(run, "afr")), "-o", str(tmp_path / "m.png")]) == 0


REFUSED = {
    "no such folder": (lambda run: shutil.rmtree(run), "afr", "results.json"),
    "no results": (lambda run: (run / "results.json").unlink(), "afr", "results.json"),
    "not finished": (
        lambda run: _change(run, status="running", epochs=1),
        "afr",
        "is not finished (1 epochs are done); go on with 'cim-plugin train ... --resume' first",
    ),
    "no pseudo-environments": (
        lambda run: (run / "cross_fit.csv").unlink(),
        "pseudo",
        "cross_fit.csv does not exist, the run was trained without pseudo-environments; train one with --cross_fit, "
        "or take --method afr",
    ),
    "no model": (lambda run: model_path(run, "last").unlink(), "dfr", "is missing"),
    "unknown method": (lambda run: None, "lfr", "invalid choice: 'lfr'"),
    "its own folder": (lambda run: None, "afr --log_dir RUN", "is the run's own folder; choose another one"),
}


def _change(run, **values) -> None:
    record = results(run) | values
    (run / "results.json").write_text(json.dumps(record))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(name, run, capsys):
    change, words, said = REFUSED[name]
    change(run)
    before = relative_files(run.parent)
    try:
        status = retrain(run, *(word.replace("RUN", str(run)) for word in words.split()))
    except SystemExit as ended:
        status = ended.code
    error = capsys.readouterr().err.splitlines()
    assert status == 2 and said in error[-1]
    left = relative_files(run.parent) - before
    assert all(name.endswith(features.FILES) for name in left)
    assert not other(run, "afr").exists()


def test_a_folder_that_holds_a_run_is_kept(run, capsys):
    assert retrain(run, "afr") == 0
    before = (other(run, "afr") / "results.json").read_bytes()
    assert retrain(run, "afr") == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (other(run, "afr") / "results.json").read_bytes() == before


def test_stopped_amid_the_work_it_leaves_no_run_and_the_same_command_goes_through(run):
    def stop(model, *_):
        if not model.training:
            raise KeyboardInterrupt

    with register_module_forward_hook(stop):
        assert retrain(run, "dfr") == 130
    assert not (other(run, "dfr") / "results.json").exists()
    assert retrain(run, "dfr") == 0
    assert results(other(run, "dfr"))["status"] == "finished"
