"""The package built and installed, by pip and uv, in environments of its own. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from interpreters import AUTOLOAD, HERE, SMALL_HOST, Environment, make_environment, run_python

import cim_plugin

pytestmark = pytest.mark.install

ROOT = HERE.parent
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

#: what a checkout consists of, as far as a build could look
SOURCE = (
    "LICENSE",
    "README.md",
    "algorithms",
    "cim_plugin",
    "docs",
    "pyproject.toml",
    "scripts",
    "setup.cfg",
    "setup.py",
    "tests",
)


def pip(action: str, environment: Environment) -> list[str]:
    pytest.importorskip("pip", minversion="22.3", reason="'pip --python' needs pip 22.3")
    return [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "--python",
        str(environment.python),
        action,
        *{"uninstall": ["--yes"]}.get(action, ["--no-index"]),
    ]


def uv(action: str, environment: Environment) -> list[str]:
    if UV is None:
        pytest.skip("uv is not installed")
    return [UV, "--no-config", "--no-cache", "--offline", "pip", action, "--python", str(environment.python)]


#: how people install from a checkout: (tool, editable)
WAYS = [
    pytest.param((tool, editable), id=f"{tool.__name__} install {'-e ' * editable}.")
    for tool in (pip, uv)
    for editable in (False, True)
]


class Installation(NamedTuple):
    """The package in an environment, and where it came from."""

    environment: Environment
    source: Path
    is_editable: bool
    names_before: set[str]  #: in site-packages


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


def copy_source(folder: Path) -> Path:
    def ignore(path: str, names: list[str]) -> set[str]:
        return set(names) - set(SOURCE) if path == str(ROOT) else {"__pycache__"}

    return Path(shutil.copytree(ROOT, folder / "the plugin", symlinks=True, ignore=ignore))


def modules_in(package: Path) -> dict[str, str]:
    """Every module of the package, through links, and its text."""
    files = (
        Path(folder) / name
        for folder, _, names in os.walk(package, followlinks=True)
        for name in names
        if name.endswith(".py")
    )
    return {str(file.relative_to(package.parent)): file.read_text() for file in files}


def run(*words: str | Path, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def build_tools(tmp_path_factory) -> Path:
    """A folder with this environment's setuptools and little else: a build that is not isolated needs it on the
    path.
    """
    setuptools = pytest.importorskip("setuptools", minversion="64", reason="building needs setuptools 64")
    if all(importlib.util.find_spec(name) is None for name in ("setuptools.command.bdist_wheel", "wheel")):
        pytest.skip("setuptools before 70.1 builds wheels only with the package wheel")
    packages, folder = Path(setuptools.__file__).parents[1], tmp_path_factory.mktemp("build_tools")
    for name in ("setuptools", "pkg_resources", "_distutils_hack", "wheel"):
        for path in filter(Path.exists, (packages / name, *packages.glob(f"{name}-*.dist-info"))):
            (folder / path.name).symlink_to(path)
    return folder


def install(tool, editable: bool, folder: Path, build_tools: Path, *, heavy_packages: bool = False) -> Installation:
    environment = make_environment(folder / "environment", heavy_packages=heavy_packages)
    (environment.site_packages / "build_tools.pth").write_text(str(build_tools))
    names_before, source = names_in(environment.site_packages), copy_source(folder)
    run(*tool("install", environment), "--no-deps", "--no-build-isolation", *["-e"] * editable, ".", cwd=source)
    return Installation(environment, source, editable, names_before)


@pytest.fixture(scope="module", params=WAYS)
def installation(request, tmp_path_factory, build_tools) -> Installation:
    """Installed once for the tests that only look."""
    return install(*request.param, tmp_path_factory.mktemp("install"), build_tools)


# --- installed -------------------------------------------------------------------------------------------------------

FINDERS = """
import sys
print([type(finder).__module__ for finder in sys.meta_path].count("cim_plugin.autoload"), sorted({"torch", "numpy"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("setting, count", [(None, 1), ("1", 1), ("0", 0)])
def test_every_start_of_python_installs_one_finder_unless_switched_off(installation, tmp_path, setting, count):
    done = run_python(
        "-c",
        FINDERS,
        python=installation.environment.python,
        cwd=tmp_path,
        PYTHONPATH=None,
        CIM_PLUGIN_AUTOLOAD=setting,
    )
    assert (done.stdout, done.stderr) == (f"{count} []\n", "")
    assert (installation.environment.site_packages / "cim_plugin_autoload.pth").read_text() == AUTOLOAD


@pytest.mark.parametrize("name", ["algorithms", "tests", "scripts", "docs", "hosts", "conftest"])
def test_no_folder_but_the_package_becomes_importable(installation, tmp_path, name):
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert (
        run_python("-c", code, python=installation.environment.python, cwd=tmp_path, PYTHONPATH=None).stdout == "None\n"
    )


def test_site_packages_gets_the_package_its_metadata_and_the_autoload_file(installation):
    added = names_in(installation.environment.site_packages) - installation.names_before
    version = cim_plugin.__version__
    editable = {
        f"__editable__.cim_plugin-{version}.pth",
        f"__editable___cim_plugin_{version.replace('.', '_')}_finder.py",
    }
    expected = editable if installation.is_editable else {"cim_plugin"}
    assert added == expected | {f"cim_plugin-{version}.dist-info", "cim_plugin_autoload.pth"}


def test_the_method_is_importable_from_real_files_or_through_the_link(installation, tmp_path):
    code = "import cim_plugin.algorithms; print(cim_plugin.algorithms.__file__)"
    done = run_python("-c", code, python=installation.environment.python, cwd=tmp_path, PYTHONPATH=None)
    assert done.stderr == ""
    file = Path(done.stdout.strip())
    if installation.is_editable:
        assert file.samefile(installation.source / "algorithms" / "__init__.py")
    else:
        package = installation.environment.site_packages / "cim_plugin"
        assert file == package / "algorithms" / "__init__.py"
        assert not file.parent.is_symlink()
        assert modules_in(package) == modules_in(installation.source / "cim_plugin")


def test_the_command_is_installed(installation):
    command = installation.environment.python.parent / "cim-plugin"
    assert run(command, "--version") == f"cim-plugin {cim_plugin.__version__}\n"


def test_a_regular_installation_trains_in_a_host_without_the_checkout(tmp_path, build_tools):
    environment, source, *_ = install(pip, False, tmp_path, build_tools, heavy_packages=True)
    shutil.rmtree(source)
    words = ["-m", "domainbed.scripts.train", "--algorithm", "CIM_VIB", "--steps", "1"]
    done = run_python(*words, python=environment.python, cwd=tmp_path, PYTHONPATH=str(SMALL_HOST), DOMAINBED_HOME=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"L_con"' in done.stdout and '"KL"' in done.stdout


# --- removed again ---------------------------------------------------------------------------------------------------

GONE = "import importlib.util; print(importlib.util.find_spec('cim_plugin'))"


@pytest.mark.parametrize("way", WAYS)
def test_uninstall_leaves_nothing_and_python_starts_in_silence(tmp_path, build_tools, way):
    tool, _ = way
    environment, source, _, names_before = install(*way, tmp_path, build_tools)
    run_python("-c", "pass", python=environment.python, PYTHONPATH=None)  # leaves its byte code
    run(*tool("uninstall", environment), "cim_plugin", cwd=tmp_path)
    assert names_in(environment.site_packages) == names_before
    done = run_python("-c", GONE, python=environment.python, cwd=tmp_path, PYTHONPATH=None)
    assert (done.stdout, done.stderr) == ("None\n", "")
    assert (source / "cim_plugin" / "autoload.py").exists()


def test_a_checkout_that_is_deleted_under_an_editable_install_leaves_python_silent(tmp_path, build_tools):
    environment, source, *_ = install(pip, True, tmp_path, build_tools)
    shutil.rmtree(source)
    done = run_python("-c", GONE, python=environment.python, cwd=tmp_path, PYTHONPATH=None)
    assert (done.stdout, done.stderr) == ("None\n", "")


# --- built -----------------------------------------------------------------------------------------------------------


def build(kind: str, source: Path, out: Path) -> Path:
    """By setuptools' standard build interface, as every installer does."""
    run(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})", cwd=source)
    (file,) = out.iterdir()
    return file


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


def test_the_wheel_holds_the_package_and_the_autoload_file_at_the_top(tmp_path, build_tools):
    source = copy_source(tmp_path)
    files = contents(build("wheel", source, tmp_path / "out"))
    name = f"cim_plugin-{cim_plugin.__version__}"
    assert files.pop(f"{name}.data/purelib/cim_plugin_autoload.pth").decode() == AUTOLOAD
    assert {path.split("/")[0] for path in files} == {"cim_plugin", f"{name}.dist-info"}
    assert f"{name}.dist-info/licenses/LICENSE" in files or f"{name}.dist-info/LICENSE" in files
    assert {path: text.decode() for path, text in files.items() if path.endswith(".py")} == modules_in(
        source / "cim_plugin"
    )


def test_the_sdist_builds_the_same_wheel(tmp_path, build_tools):
    source = copy_source(tmp_path)
    expected = contents(build("wheel", source, tmp_path / "wheel"))
    sdist = build("sdist", source, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)  # a link may not survive unpacking
    run(sys.executable, "-m", "tarfile", "-e", sdist, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(build("wheel", unpacked, tmp_path / "again")) == expected
