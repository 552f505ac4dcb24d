"""Where the tests find real hosts and real data, and how they run a fresh Python."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

from cim_plugin.autoload import domainbed_cache

HERE = Path(__file__).parent
SMALL_HOST = HERE / "hosts" / "small_host"
SHARED = HERE.parent.parent / "shared"

#: the autoload file, for a test that puts the plugin into an environment itself
AUTOLOAD = (HERE.parent / "cim_plugin" / "cim_plugin_autoload.pth").read_text()


def find_domainbed() -> Path | None:
    """A real checkout: DOMAINBED_HOME, or the one that ``cim-plugin get-domainbed`` made."""
    for folder in filter(None, (os.environ.get("DOMAINBED_HOME"), domainbed_cache())):
        if os.path.isfile(os.path.join(folder, "domainbed", "__init__.py")):
            return Path(folder)
    return None


def run_python(*words: str, python=sys.executable, cwd=None, timeout=300, **environment: str | None) -> subprocess.CompletedProcess:
    """A fresh interpreter, of this environment unless another is given; variables that are None are removed."""
    variables = {key: value for key, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run([python, *words], cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout)


class Environment(NamedTuple):
    """A virtual environment of a test's own."""

    python: Path
    site_packages: Path


def make_environment(folder: Path, *, heavy_packages: bool) -> Environment:
    """A new environment without pip. With ``heavy_packages`` it sees what this one has, torch for instance, after its own."""
    venv.create(folder, symlinks=True, with_pip=False)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    if heavy_packages:
        folders = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
        (site_packages / "heavy_packages.pth").write_text("\n".join(folders))
    return Environment(folder / "bin" / "python", site_packages)


@pytest.fixture(scope="session")
def domainbed() -> Path:
    """A real DomainBed checkout; skips with the reason where there is none."""
    folder = find_domainbed()
    if folder is None:
        pytest.skip("no DomainBed: run 'cim-plugin get-domainbed' or set DOMAINBED_HOME")
    pytest.importorskip("timm", reason="DomainBed needs timm")
    return folder


@pytest.fixture(scope="session", params=["small host", pytest.param("real DomainBed", marks=pytest.mark.host)])
def host(request) -> Path:
    """A folder with a package ``domainbed``: our small one everywhere, the real one where it is found."""
    return SMALL_HOST if request.param == "small host" else request.getfixturevalue("domainbed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the repository; skips with the reason where there are none."""
    if not (SHARED / "data" / "prepare").exists():
        pytest.skip(f"no {SHARED / 'data'}: real MNIST and PACS are not here")
    return SHARED / "data"
