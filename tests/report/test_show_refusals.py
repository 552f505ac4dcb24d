"""What ``cim-plugin show`` refuses in one line: damaged runs, wrong words, and runs that ask for code."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from showing import MODEL, change, numbers, refusal, show


def spoil(file: Path) -> None:
    saved = torch.load(file, weights_only=True)
    saved["algorithm"]["head.bias"][0] = torch.nan
    torch.save(saved, file)


class _Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


def of_version_1(folder: Path) -> None:
    """The model's file as it was when results.json alone said what the network is."""
    model = torch.load(folder / MODEL, weights_only=True)
    del model["recipe"]
    torch.save(model, folder / MODEL)


#: what is wrong -> (how a copy of a run is damaged, words after it, what the line says)
BAD = {
    "no results": (lambda f: (f / "results.json").unlink(), [], "holds neither results.json"),
    "broken JSON": (lambda f: (f / "results.json").write_text('{"status": '), [], "results.json, line 1: not JSON"),
    "not UTF-8": (lambda f: (f / "results.json").write_bytes(b"\xff\xfe\x00"), [], "results.json: is not UTF-8"),
    "a list": (lambda f: (f / "results.json").write_text("[]"), [], "a JSON object is expected"),
    "no configuration": (lambda f: change(f / "results.json", lambda r: r.pop("config")), [], "has no 'config'"),
    "half a configuration": (
        lambda f: change(f / "results.json", lambda r: r["config"].pop("transform")),
        [],
        "has no 'transform'",
    ),
    "no seed": (lambda f: change(f / "results.json", lambda r: r["config"].pop("seed")), [], "has no 'seed'"),
    "nothing selected": (
        lambda f: change(f / "results.json", lambda r: r.update(selection={})),
        [],
        "no epoch has ended yet",
    ),
    "another algorithm": (
        lambda f: change(f / "results.json", lambda r: r.update(algorithm="VIB")),
        [],
        "a run of VIB, which has no transformation network",
    ),
    "an unknown algorithm": (
        lambda f: change(f / "results.json", lambda r: r.update(algorithm="<b>")),
        [],
        "name a run of CIM or CIM_VIB",
    ),
    "another model": (
        lambda f: (of_version_1(f), change(f / "results.json", lambda r: r["config"].update(model="resnet18"))),
        [],
        "holds weights of another network",
    ),
    "an unknown hyperparameter": (
        lambda f: change(f / "results.json", lambda r: r["config"]["hyperparameters"].update(cim_x=1)),
        [],
        "no hyperparameter 'cim_x'",
    ),
    "no model": (lambda f: (f / MODEL).unlink(), [], "is missing"),
    "half a model": (lambda f: (f / MODEL).write_bytes((f / MODEL).read_bytes()[:5000]), [], "is not a checkpoint"),
    "code": (lambda f: torch.save({"algorithm": _Code()}, f / MODEL), [], "nothing else is loaded"),
    "a tensor": (lambda f: torch.save(torch.zeros(3), f / MODEL), [], "holds a Tensor"),
    "another dictionary": (lambda f: torch.save({"weights": {}}, f / MODEL), [], "no model of this plugin"),
    "weights that are not finite": (lambda f: spoil(f / MODEL), [], "weights that are not finite"),
    "another split": (None, ["--split", "dev"], "it has train, val, test"),
    "no such image": (None, ["--images", "0", "36"], "images 0 to 35"),
    "no data": (None, ["--root_dir", "nowhere"], "nowhere"),
    "another suffix": (None, ["-o", "m.pdf"], "must end in .png, .svg, .html"),
    "no suffix": (None, ["-o", "m"], "must end in"),
    "no folder": (None, ["-o", "nowhere/m.png"], "cannot be written"),
    "a folder": (lambda f: (f / "m.png").mkdir(), ["-o", "m.png"], "it is a folder"),
}


@pytest.mark.parametrize("what", BAD)
def test_refused_in_one_line(copy, capsys, monkeypatch, what):
    damage, words, says = BAD[what]
    if damage is not None:
        damage(copy)
    monkeypatch.chdir(copy)
    assert says in refusal(capsys, copy, *words)
    assert not (copy / "executed").exists() and not (copy / "nowhere").exists()
    assert not list(copy.glob("*.png")) or what == "a folder"


@pytest.mark.parametrize(
    "words",
    [
        ["--per_group", "0"],
        ["--images", "-1"],
        ["--images"],
        ["--rule", "luck"],
        ["--seed", "x"],
        ["--seed", str(2**32)],
        ["--nonsense"],
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_refused_at_once(run, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        show(run, *words)
    assert stopped.value.code == 2
    assert re.match(r"cim-plugin( show)?: error: .*--help'\n$", capsys.readouterr().err)


def test_a_run_that_is_not_there(tmp_path, capsys):
    assert "does not exist" in refusal(capsys, tmp_path / "nowhere")
    assert "holds neither results.json" in refusal(capsys, tmp_path)


def test_without_matplotlib_numbers_can_be_had(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'cim_plugin[report]'" in refusal(capsys, run)
    assert numbers(capsys, run, "--images", "1")["picture"] is None


#: what a results.json from somebody else may ask for -> what the line says
HOSTILE = {
    "a pickle": ({"model": "timm/resnet18", "model_kwargs": {"checkpoint_path": "bomb.pth"}}, "checkpoint_path"),
    "a pickle in a configuration": (
        {"model": "timm/resnet18", "model_kwargs": {"pretrained_cfg_overlay": {"file": "bomb.pth"}}},
        "pretrained_cfg_overlay",
    ),
    "a model of a hub": ({"model": "hf-hub:somebody/model"}, "the name of a model"),
    "a model of a folder": ({"model": "local-dir:."}, "the name of a model"),
    "a data set's argument": ({"dataset_kwargs": {"download": True}}, "dataset_kwargs download=True"),
    "a data set elsewhere": ({"dataset": "../../x"}, "dataset '../../x'"),
    "a seed that leads elsewhere": ({"seed": "/../../x"}, "seed '/../../x'"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_run_from_somebody_else_executes_nothing(copy, capsys, monkeypatch, what):
    values, says = HOSTILE[what]
    monkeypatch.chdir(copy)
    torch.save(_Code(), copy / "bomb.pth")
    change(copy / "results.json", lambda results: results["config"].update(values))
    before = sorted(os.listdir())
    assert says in refusal(capsys, copy)
    assert sorted(os.listdir()) == before
