"""``cim-plugin predict``: the table, pictures of m, and what happens where an image cannot be read."""

from __future__ import annotations

import csv
import io
import os

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image

import cim_plugin
from cim_plugin import cli


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of save_pretrained with a model of CIM."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    names = ["land, bird", "waterbird", "none"]
    cim_plugin.build("CIM", encoder="small_cnn", class_names=names, image_size=28, inputs="pixels").save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def photographs(tmp_path):
    """A folder with five images of several kinds and sizes, one of them in a folder inside."""
    folder = tmp_path / "photographs"
    (folder / "inside").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (28, 28, 3)), ("b.jpg", (40, 30, 3)), ("inside/a.png", (30, 50, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    Image.fromarray(rng.integers(0, 256, (33, 33), dtype=np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 256, (33, 33, 4), dtype=np.uint8)).save(folder / "transparent.PNG")
    (folder / "notes.txt").write_text("no image")
    return folder


def predict(*words) -> int:
    return cli.main(["predict", *map(str, words)])


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_table_has_what_the_model_says_of_the_resized_photographs(saved, photographs, capsys):
    assert predict(saved, photographs, "--probabilities", "--batch_size", "2") == 0
    said = capsys.readouterr()
    table = rows(said.out)
    order = ["a.png", "b.jpg", "grey.png", "inside/a.png", "transparent.PNG"]
    assert [row["image"] for row in table] == [str(photographs / name) for name in order] and said.err == ""
    model = cim_plugin.load(saved)
    reference = T.Compose([T.Resize((28, 28)), T.ToTensor()])
    for row in table:
        with Image.open(row["image"]) as image, torch.no_grad():
            expected = model(reference(image.convert("RGB"))[None]).softmax(1)[0]
        got = [float(row[name]) for name in model.class_names]
        assert got == pytest.approx(expected.tolist(), abs=1e-5)
        assert row["class"] == model.class_names[int(expected.argmax())]
        assert float(row["probability"]) == pytest.approx(max(got), abs=1e-6)


def test_a_file_and_pictures_of_m(saved, photographs, tmp_path, capsys):
    words = [photographs / "a.png", photographs / "inside", "--csv", tmp_path / "out.csv", "--masks", tmp_path / "m"]
    assert predict(saved, *words) == 0
    assert capsys.readouterr().out == ""
    assert [row["image"][-5:] for row in rows((tmp_path / "out.csv").read_text())] == ["a.png", "a.png"]
    assert sorted(os.listdir(tmp_path / "m")) == ["0_a.png", "1_a.png"]
    with Image.open(tmp_path / "m" / "0_a.png") as opened:
        panels = np.asarray(opened).reshape(28, 3, 28, 3).transpose(1, 0, 2, 3)
    x, m, psi = panels.astype(float)
    with Image.open(photographs / "a.png") as image:
        assert np.array_equal(x, np.asarray(image))
    assert (m[..., 0] == m[..., 1]).all() and np.abs(m / 255 * x - psi).max() <= 2  # three roundings of half a step


def test_every_unreadable_image_is_a_line_and_nothing_is_written(saved, photographs, tmp_path, capsys):
    (photographs / "half.jpg").write_bytes((photographs / "b.jpg").read_bytes()[:200])
    (photographs / "text.png").write_text("no image")
    os.mkfifo(photographs / "pipe.png")
    before = sorted(os.listdir(tmp_path))
    assert predict(saved, photographs, "--csv", tmp_path / "out.csv", "--masks", tmp_path / "m") == 2
    said = capsys.readouterr()
    assert said.out == "" and sorted(os.listdir(tmp_path)) == before
    lines = said.err.splitlines()
    assert [line.split(" cannot be read")[0].rpartition("/")[2] for line in lines] == [
        "half.jpg",
        "pipe.png",
        "text.png",
    ]
    assert all(line.startswith("cim-plugin predict: error: ") for line in lines)


@pytest.mark.parametrize(
    "words, says",
    [
        (["nowhere.png"], "nowhere.png does not exist; name images, or folders"),
        (["empty"], "empty holds no image"),
        (["photographs", "--masks", "photographs"], "--masks photographs exists already"),
        (["photographs", "--csv", "photographs"], "photographs"),
        (["photographs/a.png", "--masks", "photographs/a.png/m"], "cannot be made"),
    ],
)
def test_refused_in_one_line(saved, photographs, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    before = sorted(os.listdir())
    assert predict(saved, *words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and says in said.err
    assert sorted(os.listdir()) == before


def test_without_psi_there_are_no_pictures(photographs, tmp_path, capsys):
    model = cim_plugin.build("ERM", encoder="small_cnn", n_classes=2, image_size=28, inputs="pixels")
    model.save_pretrained(tmp_path / "erm")
    assert predict(tmp_path / "erm", photographs, "--masks", tmp_path / "m") == 2
    assert "ERM has no transformation network" in capsys.readouterr().err
    assert predict(tmp_path / "erm", photographs) == 0
