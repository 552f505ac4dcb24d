"""The lines of docs/python_api.md run as they stand."""

from __future__ import annotations

import re

import pytest
import torch
from interpreters import HERE
from PIL import Image

import cim_plugin

PAGE = (HERE.parent / "docs" / "python_api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_first_lines_train():
    names: dict = {}
    exec(compile(BLOCKS[0], "docs/python_api.md", "exec"), names)
    assert len([line for line in BLOCKS[0].splitlines() if line and "import" not in line]) <= 10
    assert names["m"].shape == (8, 1, 64, 64) and torch.equal(names["psi"], names["m"] * names["x"])


def test_the_others_load(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = cim_plugin.build("CIM", encoder="small_cnn", class_names=["land", "water"], image_size=32)
    model.save_pretrained("logs/waterbirds")
    Image.new("RGB", (50, 40), "green").save("bird.jpg")
    names: dict = {}
    exec(compile(BLOCKS[1], "docs/python_api.md", "exec"), names)
    assert capsys.readouterr().out.strip() in ("land", "water") and names["m"].shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", re.findall(r"^::: (\S+)$", PAGE, re.MULTILINE))
def test_what_the_reference_is_made_from_has_docstrings(name):
    module, _, thing = name.rpartition(".")
    found = getattr(__import__(module, fromlist=[thing]), thing)
    assert found.__doc__
    public = [value for key, value in vars(found).items() if not key.startswith("_") and callable(value)]
    assert all(value.__doc__ for value in public if isinstance(found, type) and issubclass(found, torch.nn.Module))
