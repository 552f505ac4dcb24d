"""Fresh interpreters for the tests: of this environment, or of a new one."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path
from typing import Any, Callable, NamedTuple

HERE = Path(__file__).parent
SMALL_HOST = HERE / "hosts" / "small_host"

#: what an installation puts beside the package: name -> text
AUTOLOAD = {
    str(path.relative_to(HERE.parent / "site_packages")): path.read_text()
    for path in sorted((HERE.parent / "site_packages").rglob("*"))
    if path.suffix in (".pth", ".start", ".py")
}


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

    def see_heavy_packages(self) -> None:
        """Find what this environment has, torch for instance, after its own packages."""
        folders = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        (self.site_packages / "heavy_packages.pth").write_text("\n".join(folders))

    def put_plugin(self) -> Path:
        """Copy the plugin to where a regular installation has it; its folder."""
        ignore = shutil.ignore_patterns("__pycache__")
        folder = shutil.copytree(HERE.parent / "cim_plugin", self.site_packages / "cim_plugin", ignore=ignore)
        shutil.copytree(HERE.parent / "algorithms", folder / "algorithms", ignore=ignore, dirs_exist_ok=True)
        for name, text in AUTOLOAD.items():
            (self.site_packages / name).parent.mkdir(exist_ok=True)
            (self.site_packages / name).write_text(text)
        return folder


def make_environment(folder: Path, *, heavy_packages: bool) -> Environment:
    """A new environment without pip, with ``heavy_packages`` one that sees those of this environment."""
    venv.create(folder, symlinks=True, with_pip=False)
    environment = environment_in(folder)
    if heavy_packages:
        environment.see_heavy_packages()
    return environment


def environment_in(folder: Path) -> Environment:
    (site_packages,) = folder.glob("lib/python*/site-packages")
    return Environment(folder / "bin" / "python", site_packages)
