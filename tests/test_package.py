"""The package in a checkout: the method is found beside it, under one name, or what to do is said in one line."""

from __future__ import annotations

import configparser
import importlib
import pickle
import pkgutil
import shutil
import sys
from pathlib import Path

import pytest
import torch
from interpreters import HERE, run_python

import cim_plugin.algorithms
from cim_plugin import errors
from cim_plugin.cli import main
from cim_plugin.doctor import packages
from cim_plugin.doctor.findings import Surroundings

METHOD = HERE.parent / "algorithms"
#: -S: without the packages and the autoload of this environment
ALONE = ["-S", "-c"]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """The package and the method, as a ZIP without links has them."""
    for name in ("cim_plugin", "algorithms"):
        shutil.copytree(HERE.parent / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_no_link_lies_in_the_tree():
    assert not [
        path
        for folder in ("cim_plugin", "algorithms")
        for path in (HERE.parent / folder).rglob("*.py")
        if path.is_symlink()
    ]
    assert not (HERE.parent / "cim_plugin" / "algorithms").is_symlink()


@pytest.mark.parametrize("way", ["PYTHONPATH", "the current folder", "a link to the package"])
def test_an_uninstalled_checkout_finds_the_method(checkout, tmp_path_factory, way):
    cwd, path = (checkout, None) if way == "the current folder" else (tmp_path_factory.mktemp("cwd"), str(checkout))
    if way == "a link to the package":
        (cwd / "cim_plugin").symlink_to(checkout / "cim_plugin")
        path = None
    code = "import importlib.util as u; print(u.find_spec('cim_plugin.algorithms.classifier').origin)"
    done = run_python(*ALONE, code, cwd=cwd, PYTHONPATH=path)
    assert done.stderr == ""
    assert done.stdout.strip() == str(checkout / "algorithms" / "classifier.py")


def test_every_module_of_the_method_has_one_name():
    for found in pkgutil.iter_modules(cim_plugin.algorithms.__path__):
        importlib.import_module(f"cim_plugin.algorithms.{found.name}")
    names = {
        name: Path(module.__file__).name
        for name, module in sys.modules.copy().items()
        if Path(getattr(module, "__file__", None) or "/").parent == METHOD
    }
    assert names == {f"cim_plugin.algorithms.{file[:-3]}": file for file in names.values()}
    assert set(names.values()) == {file.name for file in METHOD.glob("*.py")} - {"__init__.py"}
    assert cim_plugin.algorithms.__doc__.startswith((METHOD / "__init__.py").read_text().split('"""')[1])


def test_classes_travel_by_their_name(tmp_path):
    from cim_plugin.algorithms.morphing import TransformationNetwork

    assert TransformationNetwork.__module__ == "cim_plugin.algorithms.morphing"
    assert pickle.loads(pickle.dumps(TransformationNetwork)) is TransformationNetwork
    torch.save(TransformationNetwork, tmp_path / "class.pth")
    assert torch.load(tmp_path / "class.pth", weights_only=False) is TransformationNetwork


def test_every_dependency_has_a_lower_bound():
    settings = configparser.ConfigParser()
    settings.read(HERE.parent / "setup.cfg")
    lists = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    needed = [line for text in lists for line in text.split("\n") if line and not line.startswith("cim_plugin[")]
    assert len(needed) > 15 and [line for line in needed if ">=" not in line] == []


# --- the method is missing: an installation from an archive that lost its links ---------------------------------------


def lose_it(checkout: Path) -> None:
    shutil.rmtree(checkout / "algorithms")


def lose_both(checkout: Path) -> None:
    lose_it(checkout)
    shutil.rmtree(checkout / "cim_plugin" / "algorithms")


def a_file_where_the_link_was(checkout: Path) -> None:
    lose_both(checkout)
    (checkout / "cim_plugin" / "algorithms").write_text("../algorithms")


def an_empty_folder(checkout: Path) -> None:
    lose_both(checkout)
    (checkout / "cim_plugin" / "algorithms").mkdir()


LOSSES = [lose_it, lose_both, a_file_where_the_link_was, an_empty_folder]
SAID = """
import sys
from cim_plugin.errors import exit_status
def train():
    import cim_plugin.algorithms.classifier
sys.exit(exit_status("cim-plugin train", train))
"""


@pytest.mark.parametrize("loss", LOSSES)
def test_a_command_says_in_one_line_that_the_method_is_missing(checkout, loss):
    loss(checkout)
    done = run_python(*ALONE, SAID, cwd=checkout)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("cim-plugin train: error: the module cim_plugin.algorithms")
    assert done.stderr.endswith(f"is missing; {errors.WHOLE}\n")


def test_the_import_says_what_to_do(checkout):
    lose_it(checkout)
    done = run_python(*ALONE, "import cim_plugin.algorithms", cwd=checkout)
    last = done.stderr.splitlines()[-1]
    assert last == f"ModuleNotFoundError: there is no folder {checkout / 'algorithms'}; {errors.WHOLE}"


DOCTOR = """
from cim_plugin.doctor import packages
for finding in packages.plugin(None): print(finding.level, finding.what, finding.fix, sep="|")
"""


@pytest.mark.parametrize("loss", LOSSES)
def test_the_doctor_says_that_the_method_is_missing(checkout, loss):
    loss(checkout)
    done = run_python(*ALONE, DOCTOR, cwd=checkout)
    what = f"cim_plugin.algorithms, the method, is missing in {checkout / 'cim_plugin'}: nothing trains"
    assert (done.stdout, done.stderr) == (f"error|{what}|{errors.WHOLE}\n", "")


def test_the_doctor_is_content_with_a_whole_one():
    (finding,) = packages.plugin(Surroundings(None, None, []))
    assert finding.level == "ok" and finding.what.endswith(str(HERE.parent / "cim_plugin"))


def test_a_command_that_is_missing_is_one_line_and_another_module_is_not(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cim_plugin.wilds_runner.command", None)
    assert main(["train"]) == 2
    assert capsys.readouterr().err == (
        f"cim-plugin train: error: the module cim_plugin.wilds_runner.command is missing; {errors.WHOLE}\n"
    )
    with pytest.raises(ModuleNotFoundError):
        errors.exit_status("train", lambda: importlib.import_module("no_such_module"))
