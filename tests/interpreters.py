"""Fresh interpreters for the tests: of this environment, or of a new one."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path
from typing import Any, Callable, NamedTuple

HERE = Path(__file__).parent
SMALL_HOST = HERE / "hosts" / "small_host"

#: the autoload file, for a test that puts the plugin into an environment itself
AUTOLOAD = (HERE.parent / "cim_plugin" / "cim_plugin_autoload.pth").read_text()


def run_python(
    *words: str, python=sys.executable, cwd=None, timeout=300, **environment: str | None
) -> subprocess.CompletedProcess:
    """A fresh interpreter, of this environment unless another is given; variables that are None are removed."""
    variables = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run([python, *words], cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout)


class Answer(NamedTuple):
    value: Any
    stderr: str


def ask(*functions: Callable, path: Path | str = "", **settings: Any) -> Answer:
    """What the last function returns in a fresh Python that knows all of them, with ``path`` as PYTHONPATH."""
    source = "".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    code = f"{source}\nimport json; print(json.dumps({functions[-1].__name__}()))"
    done = run_python(
        "-c", code, **{"DOMAINBED_HOME": None, "CIM_PLUGIN_AUTOLOAD": None, "PYTHONPATH": str(path), **settings}
    )
    assert done.returncode == 0, done.stderr
    return Answer(json.loads(done.stdout.splitlines()[-1]), done.stderr)


class Environment(NamedTuple):
    """A virtual environment of a test's own."""

    python: Path
    site_packages: Path


def make_environment(folder: Path, *, heavy_packages: bool) -> Environment:
    """A new environment without pip. With ``heavy_packages`` it sees what this one has, torch for instance, after its
    own.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    if heavy_packages:
        folders = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        (site_packages / "heavy_packages.pth").write_text("\n".join(folders))
    return Environment(folder / "bin" / "python", site_packages)
