"""``cim-plugin show`` on real small runs: pictures, the page, the numbers, and what is refused in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hosts import forked_host
from interpreters import SMALL_HOST
from PIL import Image
from retired import HARMLESS

from cim_plugin import cli
from cim_plugin.data import demo
from cim_plugin.data.releases import RELEASES
from cim_plugin.files import write_whole

FLAGS = (
    "--model small_cnn --transform image_base --target_resolution 28 --optimizer Adam --lr 1e-3 --weight_decay 0 "
    "--batch_size 16 --frac 0.1 "
    "--loader_kwargs num_workers=0 --cache false --progress_bar false --n_epochs 1 --evaluate_all_splits false"
).split()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with the demo release of Waterbirds."""
    root = tmp_path_factory.mktemp("root")
    for path, content in demo.make_files("waterbirds", 0).items():
        write_whole(RELEASES["waterbirds"].path(root) / path, content)
    return root


def train(root: Path, folder: Path, algorithm: str) -> Path:
    assert (
        cli.main(
            [
                "train",
                "-d",
                "waterbirds",
                "--algorithm",
                algorithm,
                "--root_dir",
                str(root),
                "--log_dir",
                str(folder),
                *FLAGS,
            ]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def run(root, tmp_path_factory) -> Path:
    """A finished run of CIM_VIB. Not to be changed."""
    return train(root, tmp_path_factory.mktemp("CIM_VIB"), "CIM_VIB")


@pytest.fixture
def copy(run, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


def show(*words) -> int:
    return cli.main(["show", *map(str, words)])


def numbers(capsys, *words) -> dict:
    capsys.readouterr()
    assert show(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *words) -> str:
    """The one line on standard error."""
    capsys.readouterr()
    assert show(*words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("cim-plugin show: error: ")
    return said.err


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_numbers_as_json(run, capsys):
    said = numbers(capsys, run)
    assert list(said) == [
        "run",
        "algorithm",
        "dataset",
        "split",
        "chosen",
        "synthetic",
        "images_in_split",
        "m",
        "shown",
        "picture",
    ]
    assert (said["algorithm"], said["dataset"], said["split"], said["synthetic"], said["images_in_split"]) == (
        "CIM_VIB",
        "waterbirds",
        "val",
        True,
        36,
    )
    assert set(said["m"]["groups"]) <= {
        f"y = {y}, background = {place}" for y in ("landbird", "waterbird") for place in ("land", "water")
    }
    assert 0 < said["m"]["min"] <= said["m"]["mean"] <= said["m"]["max"] < 1
    assert said["m"]["on_figure"] / said["m"]["on_ground"] == pytest.approx(said["m"]["figure_to_ground"], rel=1e-6)
    assert len(said["shown"]) == 8 and said["picture"] is None
    for example in said["shown"]:
        assert 0 < example["after"]["probability"] <= 1 and example["label"] in ("landbird", "waterbird")


def test_named_images_another_split_and_another_rule(run, capsys):
    said = numbers(capsys, run, "--split", "test", "--images", "3", "17", "--rule", "last")
    assert sorted(example["image"] for example in said["shown"]) == [3, 17]
    assert said["split"] == "test" and said["chosen"] == "rule last, epoch 0"


def test_the_prediction_after_is_the_one_that_the_run_wrote(run, capsys):
    written = (run / "waterbirds_split:val_seed:0_epoch:best_pred.csv").read_text().split()
    said = numbers(capsys, run, "--images", *range(36))
    assert {example["image"]: example["after"]["class"] for example in said["shown"]} == {
        row: ("landbird", "waterbird")[int(label)] for row, label in enumerate(written)
    }


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_a_picture_by_its_suffix(run, tmp_path, capsys, suffix):
    file = tmp_path / f"m{suffix}"
    assert show(run, "-o", file, "--per_group", "1") == 0
    said = capsys.readouterr().out
    assert "SYNTHETIC waterbirds" in said and f"4 images are in {file}" in said
    if suffix == ".svg":
        images = ElementTree.parse(file).getroot().iter("{http://www.w3.org/2000/svg}image")
        assert len(list(images)) == 4 * 5 + 1  # and the colour bar
    else:
        with Image.open(file) as picture:
            assert picture.width > 1000 and picture.height > 1000
            assert np.asarray(picture.convert("L")).std() > 20


def test_without_a_display_and_without_pyplot(run, tmp_path):
    code = (
        f"import sys; from cim_plugin.cli import main; status = main(['show', {str(run)!r}, '--images', '2', '-o', "
        f"{str(tmp_path / 'm.png')!r}]);"
        "print('pyplot' if 'matplotlib.pyplot' in sys.modules else 'no pyplot', status)"
    )
    done = forked_host.run(SMALL_HOST, "-c", code, DISPLAY="", WAYLAND_DISPLAY="", MPLBACKEND="TkAgg")
    assert done.stdout.splitlines()[-1] == "no pyplot 0", done.stderr


def test_without_an_output_the_picture_is_in_the_current_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert show(run, "--images", "1") == 0
    assert os.listdir(tmp_path) == ["m.png"]


def test_a_run_and_its_data_may_have_moved(copy, root, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    change(
        copy / "results.json", lambda results: results["config"].update(root_dir="gone", log_dir="gone", download=True)
    )
    assert "gone with the data of the run does not exist" in refusal(capsys, copy)
    assert numbers(capsys, copy, "--root_dir", moved)["images_in_split"] == 36


# --- the page ---------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.images, self.addresses, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            self.images.append(found)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def test_the_page_needs_nothing_from_elsewhere(run, tmp_path):
    file = tmp_path / "m.html"
    assert show(run, "-o", file, "--per_group", "1") == 0
    text = file.read_text()
    page = _Page(text)
    assert page.open == [] and len(page.images) == 4 * 5 + 1
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert all(image["alt"] for image in page.images)
    assert "script" not in text.lower() and "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_names_are_escaped_on_the_page(run, tmp_path, monkeypatch):
    from cim_plugin.show import train
    from cim_plugin.wilds_runner import model

    monkeypatch.setattr(model, "class_names", lambda data: ['<script>alert("1")</script>', "a & b"])
    monkeypatch.setattr(train, "release_figures", lambda *words: None)
    file = tmp_path / "m.html"
    assert show(run, "-o", file, "--per_group", "1") == 0
    assert "<script" not in file.read_text() and "&lt;script&gt;" in file.read_text()
    assert any('<script>alert("1")</script>' in text for text in _Page(file.read_text()).texts)


@pytest.mark.parametrize("scheme, bright", [(0, False), (1, True)], ids=["dark", "light"])
def test_the_page_in_a_browser_on_a_phone(run, tmp_path, scheme, bright):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    page, picture = tmp_path / "m.html", tmp_path / "page.png"
    assert show(run, "-o", page, "--per_group", "1") == 0
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --hide-scrollbars --window-size=390,1600".split()
    words = [
        browser,
        *flags,
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    subprocess.run(words, capture_output=True, timeout=120)
    grey = np.asarray(Image.open(picture).convert("L")).astype(int)
    ground = grey[2, 2]
    assert (ground > 200) == bright
    assert abs(grey[:, -8:] - ground).max() < 8, "something is wider than the phone"
    assert grey[600:].std() > 20


# --- what is refused --------------------------------------------------------------------------------------------------


def change(file: Path, how) -> None:
    value = json.loads(file.read_text())
    how(value)
    file.write_text(json.dumps(value))


def spoil(file: Path) -> None:
    saved = torch.load(file, weights_only=True)
    saved["algorithm"]["head.bias"][0] = torch.nan
    torch.save(saved, file)


class _Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


MODEL = "waterbirds_seed:0_epoch:best_model.pth"


#: what is wrong -> (how a copy of a run is damaged, words after it, what the line says)
def of_version_1(folder: Path) -> None:
    """The model's file as it was when results.json alone said what the network is."""
    model = torch.load(folder / MODEL, weights_only=True)
    del model["recipe"]
    torch.save(model, folder / MODEL)


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


def test_a_run_from_before_a_hyperparameter_is_shown_with_its_default(copy, run, capsys):
    now = numbers(capsys, run)
    change(copy / "results.json", lambda results: results["config"]["hyperparameters"].pop("cim_learning_rate"))
    before = numbers(capsys, copy)
    assert {**before, "run": now["run"]} == now


def test_a_run_of_before_hyperparameters_that_are_no_more_is_shown(copy, run, capsys):
    """What did nothing changes nothing; a sparsity left a counter in the weights; m of three channels is rebuilt."""
    now = numbers(capsys, run)
    model = torch.load(copy / MODEL, weights_only=True)
    del model["recipe"]
    model["algorithm"]["sparsity_step"] = torch.tensor(7)
    torch.save(model, copy / MODEL)
    then = {**HARMLESS, "cim_sparsity": 0.1, "cim_composites": True, "cim_floor": "exact"}
    change(copy / "results.json", lambda results: results["config"]["hyperparameters"].update(then))
    before = numbers(capsys, copy)
    gaps = [said["m"].pop("s_pos_minus_s_neg") for said in (before, now)]  # of the exact floor, and of the smooth one
    assert before["m"] == now["m"] and gaps[0] != gaps[1]
    assert "weights of another network" in refusal(capsys, copy, *per_channel(copy))
    last = "morphing.network.features.6."
    for name in (f"{last}weight", f"{last}bias"):
        model["algorithm"][name] = model["algorithm"][name].repeat_interleave(3, 0)
    torch.save(model, copy / MODEL)
    several = numbers(capsys, copy)
    for key in ("mean", "std_between_images", "on_figure"):
        assert several["m"][key] == pytest.approx(now["m"][key])


def per_channel(folder: Path) -> list[str]:
    """Make a run one of then with a mask per channel, for which its weights do not do yet."""
    change(folder / "results.json", lambda results: results["config"]["hyperparameters"].update(cim_mask="per_channel"))
    return []


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


def test_the_folder_of_the_images_is_named_where_the_file_names_it(run, root, capsys):
    show(run)
    assert f"images are read from {root}, as results.json says" in capsys.readouterr().out.splitlines()
    show(run, "--root_dir", root)
    assert "images are read from" not in capsys.readouterr().out
