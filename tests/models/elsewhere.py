"""A process that has neither data nor a host: what a model gives there, after those packages cannot be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from interpreters import run_python

CODE = '''
import sys

HOSTS = "domainbed subpopbench transformers wilds lightning_fabric lightning pandas".split()


class Without:
    """A finder of modules that does not find some."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HOSTS:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
import cim_plugin, torch
from PIL import Image

folder, asked = sys.argv[1], torch.load(sys.argv[1] + "/asked.pt", weights_only=True)
answers = []
for path, rule, images, files in asked:
    model = cim_plugin.load(path, rule=rule)
    with torch.no_grad():
        answers.append({
            "logits": model(images),
            "m": model.morph(images).m if model.recipe.has_psi else None,
            "class_names": model.class_names,
            "prepared": [model.transform(Image.open(file)) for file in files],
        })
torch.save(answers, folder + "/answers.pt")
'''


class Asked(NamedTuple):
    """One model, and what it is given there."""

    path: str
    rule: str
    images: torch.Tensor  #: (N, C, H, W), as the model takes them
    files: list[str] = []  #: photographs, to be prepared


def ask(folder: Path, *asked: Asked) -> list[dict[str, Any]]:
    """For each: "logits", "m", "class_names" and "prepared"."""
    torch.save([tuple(one) for one in asked], folder / "asked.pt")
    done = run_python(
        "-c", CODE, str(folder), CIM_PLUGIN_AUTOLOAD="0", DOMAINBED_HOME=None, SUBPOPBENCH_HOME=None, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "answers.pt", weights_only=True)
