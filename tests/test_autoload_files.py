"""The files that call the autoload at the start of Python, read as ``site`` does: the .start by PEP 829, from Python
3.15 on, the import line of the .pth before.
"""

from __future__ import annotations

import ast
import re

import pytest
from interpreters import AUTOLOAD, Environment, make_environment, run_python

#: an entry point of PEP 829: pkg.mod:callable, both parts mandatory
ENTRY_POINT = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def entry_points(text: str) -> list[str]:
    """Lines of a .start file that are neither blank nor comments."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    environment = make_environment(tmp_path_factory.mktemp("autoload") / "environment", heavy_packages=False)
    environment.put_plugin()
    return environment


def test_the_start_file_holds_one_entry_point():
    (line,) = entry_points(AUTOLOAD["cim_plugin_autoload.start"])
    assert ENTRY_POINT.fullmatch(line)


def test_the_pth_file_is_a_plain_import_and_call_of_the_same():
    (line,) = AUTOLOAD["cim_plugin_autoload.pth"].splitlines()
    assert line.startswith("import ")  # what site looks for
    imported, call = ast.parse(line).body
    module, _, function = entry_points(AUTOLOAD["cim_plugin_autoload.start"])[0].partition(":")
    assert ast.unparse(imported) == f"import {module}" and ast.unparse(call) == f"{module}.{function}()"


CALLED = """
import json, pkgutil, sys
pkgutil.resolve_name({entry_point!r})()
pkgutil.resolve_name({entry_point!r})()
print([type(finder).__module__ for finder in sys.meta_path].count("cim_plugin.autoload"))
"""


@pytest.mark.parametrize("setting, count", [(None, "1"), ("1", "1"), ("0", "0")])
def test_the_entry_point_installs_one_finder_unless_switched_off(environment, setting, count):
    code = CALLED.format(entry_point=entry_points(AUTOLOAD["cim_plugin_autoload.start"])[0])
    words = ["-S", "-c", f"import sys; sys.path.append({str(environment.site_packages)!r}){code}"]  # no .pth: as 3.15
    done = run_python(*words, python=environment.python, PYTHONPATH=None, CIM_PLUGIN_AUTOLOAD=setting)
    assert (done.stdout.strip(), done.stderr) == (count, "")


@pytest.mark.parametrize("setting, count", [(None, "1"), ("0", "0")])
def test_the_files_together_install_one_finder_in_this_python(environment, setting, count):
    code = "import sys; print([type(finder).__module__ for finder in sys.meta_path].count('cim_plugin.autoload'))"
    done = run_python("-c", code, python=environment.python, PYTHONPATH=None, CIM_PLUGIN_AUTOLOAD=setting)
    assert (done.stdout.strip(), done.stderr) == (count, "")


def test_no_file_executes_text():
    for text in AUTOLOAD.values():
        assert "exec" not in text and "eval" not in text


def test_both_files_are_utf8_without_a_mark():
    for name in ("cim_plugin_autoload.start", "cim_plugin_autoload.pth"):
        assert AUTOLOAD[name].isascii() and AUTOLOAD[name].endswith("\n")
