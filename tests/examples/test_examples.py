"""Every example, two steps each, on the demo's data; and the notebook with its outputs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from interpreters import HERE, run_python

from cim_plugin.data import demo
from cim_plugin.data.releases import RELEASES
from cim_plugin.files import write_whole

pytestmark = pytest.mark.slow

EXAMPLES = HERE.parent / "examples"
NOTEBOOK = EXAMPLES / "look_at_m.ipynb"
NEEDS = {"timm_encoder": "timm", "lightning_module": "lightning"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with the demo release of Waterbirds."""
    root = tmp_path_factory.mktemp("data")
    for path, content in demo.make_files("waterbirds", 0).items():
        write_whole(RELEASES["waterbirds"].path(root) / path, content)
    return root


def test_all_examples_are_tried():
    scripts = {file.stem for file in EXAMPLES.glob("*.py") if "argparse" in file.read_text()}
    assert scripts == {"plain_pytorch", "timm_encoder", "lightning_module"}


@pytest.mark.parametrize(
    "name, says",
    [
        ("plain_pytorch", r"step 1: loss [-\d.]+\naccuracy on validation data: 0\.\d\d\n"),
        ("timm_encoder", r"step 1: loss [-\d.]+, mean of m 0\.\d+\n"),
        ("lightning_module", r"\{'loss': [-\d.]+"),
    ],
)
def test_two_steps(root, tmp_path, name, says):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    words = (str(EXAMPLES / f"{name}.py"), "--root", str(root), "--steps", "2")
    done = run_python("-W", "ignore", *words, cwd=tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    assert re.search(says, done.stdout), done.stdout


def notebook():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES}:{HERE.parent}")
    book = notebook()
    (settings,) = [cell for cell in book.cells if "STEPS = 250" in cell.source]
    settings.source = settings.source.replace("STEPS = 250", "STEPS = 2")
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "m goes from 0." in book.cells[-1].outputs[0]["text"]


def test_the_notebook_has_its_outputs():
    book = notebook()
    ran = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    kinds = [output.output_type for cell in ran for output in cell.outputs]
    assert "error" not in kinds and "display_data" in kinds
    assert str(HERE.parent) not in NOTEBOOK.read_text() and "site-packages" not in NOTEBOOK.read_text()
