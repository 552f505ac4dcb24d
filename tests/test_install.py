"""The package built and installed, by pip and uv, in environments of its own and from sources that hold no links.
Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from interpreters import AUTOLOAD, HERE, SMALL_HOST, Environment, environment_in, make_environment, run_python

import cim_plugin

pytestmark = pytest.mark.install

ROOT = HERE.parent
NAME = f"cim_plugin-{cim_plugin.__version__}"
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

#: what a checkout consists of, as far as a build could look
SOURCE = (
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "algorithms",
    "cim_plugin",
    "docs",
    "pyproject.toml",
    "scripts",
    "setup.cfg",
    "setup.py",
    "site_packages",
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


#: (tool, editable, what it is given): every way to get the files, and for both tools a regular and an editable install
WAYS = [
    pytest.param((pip, False, "archive"), id="pip install the ZIP"),
    pytest.param((uv, False, "archive"), id="uv pip install the ZIP"),
    pytest.param((pip, True, "clone"), id="pip install -e a clone without links"),
    pytest.param((uv, True, "unzipped"), id="uv pip install -e the unpacked ZIP"),
    pytest.param((pip, True, "unpacked_sdist"), id="pip install -e an unpacked sdist"),
    pytest.param((uv, False, "sdist"), id="uv pip install an sdist"),
]


class Installation(NamedTuple):
    """The package in an environment, and where it came from."""

    tool: Callable[[str, Environment], list[str]]
    environment: Environment
    source: Path
    is_editable: bool
    names_before: set[str]  #: in site-packages

    def copy_environment(self, folder: Path) -> Environment:
        """For a test that changes it."""
        copy = shutil.copytree(self.environment.python.parents[1], folder / "environment", symlinks=True)
        return environment_in(Path(copy))


def of_ways(chosen: Callable[..., bool]):
    """Installations by some of the ways only."""
    ways = [way for way in WAYS if chosen(*way.values[0])]
    return pytest.mark.parametrize("installation", ways, indirect=True, scope="module")


regular = of_ways(lambda tool, is_editable, form: not is_editable)
editable = of_ways(lambda tool, is_editable, form: is_editable)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}


def modules_in(package: Path) -> dict[str, str]:
    """The text of every module of a package, by its path in the package."""
    return {str(file.relative_to(package)): file.read_text() for file in package.rglob("*.py")}


@pytest.fixture(scope="session")
def modules() -> dict[str, str]:
    """What an installation must hold, from this checkout: the package, and the method inside it."""
    method = {f"algorithms/{name}": text for name, text in modules_in(ROOT / "algorithms").items()}
    return {**modules_in(ROOT / "cim_plugin"), **method}


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


class Sources(NamedTuple):
    """This checkout in the forms in which people get it, none of which has links."""

    archive: Path  #: what ``git archive`` makes
    unzipped: Path  #: by Python's zipfile
    clone: Path  #: with core.symlinks=false
    sdist: Path
    unpacked_sdist: Path


@pytest.fixture(scope="session")
def sources(tmp_path_factory, build_tools) -> Sources:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path_factory.mktemp("the sources")
    repository, archive, unzipped, clone = (folder / name for name in ("repository", "cim.zip", "unzipped", "clone"))
    shutil.copytree(ROOT, repository, symlinks=True, ignore=_not_source)
    for words in (
        ("init", "--quiet"),
        ("add", "--all"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "all"),
        ("archive", "--format=zip", "--prefix=cim_plugin-main/", f"--output={archive}", "HEAD"),
        ("clone", "--quiet", "-c", "core.symlinks=false", ".", clone),
    ):
        run("git", *words, cwd=repository)
    zipfile.ZipFile(archive).extractall(unzipped)
    sdist = build("sdist", clone, folder / "sdist")
    run(sys.executable, "-m", "tarfile", "-e", sdist, folder / "unpacked")
    return Sources(archive, unzipped / "cim_plugin-main", clone, sdist, folder / "unpacked" / NAME)


def _not_source(path: str, names: list[str]) -> set[str]:
    return set(names) - set(SOURCE) if path == str(ROOT) else {"__pycache__"}


def build(kind: str, source: Path, out: Path) -> Path:
    """By setuptools' standard build interface, as every installer does."""
    run(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})", cwd=source)
    (file,) = out.iterdir()
    return file


@pytest.fixture(scope="module", params=WAYS)
def installation(request, tmp_path_factory, sources, build_tools) -> Installation:
    """Installed once for all tests."""
    (tool, is_editable, form), folder = request.param, tmp_path_factory.mktemp("install")
    environment = make_environment(folder / "environment", heavy_packages=False)
    (environment.site_packages / "build_tools.pth").write_text(str(build_tools))
    names_before, source = names_in(environment.site_packages), getattr(sources, form)
    words = [*tool("install", environment), "--no-deps", "--no-build-isolation", *["-e"] * is_editable]
    run(*words, "." if source.is_dir() else source, cwd=source if source.is_dir() else folder)
    return Installation(tool, environment, source, is_editable, names_before)


# --- installed -------------------------------------------------------------------------------------------------------

FINDERS = """
import sys
count = [type(finder).__module__ for finder in sys.meta_path].count("cim_plugin.autoload")
print(count, sorted({"torch", "numpy"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("setting, count", [(None, 1), ("1", 1), ("0", 0)])
@pytest.mark.slow
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
    for name, text in AUTOLOAD.items():
        assert (installation.environment.site_packages / name).read_text() == text


@pytest.mark.parametrize("name", ["algorithms", "tests", "scripts", "docs", "hosts", "site_packages"])
def test_no_folder_but_the_package_becomes_importable(installation, tmp_path, name):
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert (
        run_python("-c", code, python=installation.environment.python, cwd=tmp_path, PYTHONPATH=None).stdout == "None\n"
    )


def test_site_packages_gets_the_package_its_metadata_and_the_autoload_files(installation):
    added = names_in(installation.environment.site_packages) - installation.names_before
    version = cim_plugin.__version__
    finder = {
        f"__editable__.cim_plugin-{version}.pth",
        f"__editable___cim_plugin_{version.replace('.', '_')}_finder.py",
    }
    expected = finder if installation.is_editable else {"cim_plugin"}
    autoload = {"cim_plugin_autoload", "cim_plugin_autoload.pth", "cim_plugin_autoload.start"}
    assert added == expected | {f"{NAME}.dist-info"} | autoload


METHOD = """
import importlib.util, json, sys
finders = [finder for finder in sys.meta_path if "__editable__" in getattr(finder, "__module__", "")]
if {first}:
    sys.meta_path[:] = [*finders, *(finder for finder in sys.meta_path if finder not in finders)]
import cim_plugin.algorithms
origin = importlib.util.find_spec("cim_plugin.algorithms.classifier").origin
print(json.dumps([len(finders), cim_plugin.algorithms.__doc__, origin]))
"""


@regular
def test_a_regular_installation_holds_the_method_in_real_files(installation, modules, tmp_path):
    package = installation.environment.site_packages / "cim_plugin"
    assert not any(path.is_symlink() for path in package.rglob("*"))
    assert modules_in(package) == modules
    n_finders, doc, origin = method_found_by(installation, tmp_path, False)
    assert (n_finders, Path(origin)) == (0, package / "algorithms" / "classifier.py")
    assert doc.startswith("The method")


@editable
@pytest.mark.parametrize("first", [False, True], ids=["by its parent's path", "by the editable finder"])
@pytest.mark.parametrize("path", [None, "source"], ids=["installed", "also on PYTHONPATH"])
def test_an_editable_installation_finds_the_method_in_the_checkout(installation, tmp_path, first, path):
    n_finders, doc, origin = method_found_by(installation, tmp_path, first, path and str(installation.source))
    assert n_finders == 1
    assert Path(origin).samefile(installation.source / "algorithms" / "classifier.py")
    assert doc.startswith("The method")


def method_found_by(installation: Installation, cwd: Path, first: bool, path: str | None = None) -> list:
    code = METHOD.format(first=first)
    done = run_python("-c", code, python=installation.environment.python, cwd=cwd, PYTHONPATH=path)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_the_command_is_installed(installation):
    command = installation.environment.python.parent / "cim-plugin"
    assert run(command, "--version") == f"cim-plugin {cim_plugin.__version__}\n"


@of_ways(lambda tool, is_editable, form: tool is pip and form != "unpacked_sdist")
@pytest.mark.slow
def test_it_trains_in_a_host(installation, tmp_path):
    environment = installation.copy_environment(tmp_path)
    environment.see_heavy_packages()
    words = ["-m", "domainbed.scripts.train", "--algorithm", "CIM_VIB", "--steps", "1"]
    done = run_python(*words, python=environment.python, cwd=tmp_path, PYTHONPATH=str(SMALL_HOST), DOMAINBED_HOME=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"L_con"' in done.stdout and '"KL"' in done.stdout


# --- removed again ---------------------------------------------------------------------------------------------------

GONE = "import importlib.util; print(importlib.util.find_spec('cim_plugin'))"


@pytest.mark.slow
def test_uninstall_leaves_nothing_and_python_starts_in_silence(installation, tmp_path):
    environment = installation.copy_environment(tmp_path)
    run_python("-c", "pass", python=environment.python, PYTHONPATH=None, PYTHONDONTWRITEBYTECODE=None)
    run(*installation.tool("uninstall", environment), "cim_plugin", cwd=tmp_path)
    assert names_in(environment.site_packages) == installation.names_before
    byte_code = [path.name for path in environment.site_packages.glob("__pycache__/*")]
    assert not [name for name in byte_code if not name.startswith("__editable__")]  # uv leaves that of setuptools' file
    done = run_python("-c", GONE, python=environment.python, cwd=tmp_path, PYTHONPATH=None)
    assert (done.stdout, done.stderr) == ("None\n", "")


@editable
def test_a_checkout_that_is_gone_under_an_editable_install_leaves_python_silent(installation, tmp_path):
    away = installation.source.rename(tmp_path / "away")
    try:
        done = run_python("-c", GONE, python=installation.environment.python, cwd=tmp_path, PYTHONPATH=None)
    finally:
        away.rename(installation.source)
    assert (done.stdout, done.stderr) == ("None\n", "")


# --- built -----------------------------------------------------------------------------------------------------------


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, sources) -> dict[str, bytes]:
    """From the clone."""
    return contents(build("wheel", sources.clone, tmp_path_factory.mktemp("wheel")))


def test_the_wheel_holds_the_package_and_the_autoload_files_at_the_top(wheel, modules):
    beside = f"{NAME}.data/purelib/"
    assert {path.removeprefix(beside): wheel[path].decode() for path in wheel if path.startswith(beside)} == AUTOLOAD
    assert {path.split("/")[0] for path in wheel} == {"cim_plugin", f"{NAME}.data", f"{NAME}.dist-info"}
    assert f"{NAME}.dist-info/licenses/LICENSE" in wheel or f"{NAME}.dist-info/LICENSE" in wheel
    package = {path: text.decode() for path, text in wheel.items() if path.startswith("cim_plugin/")}
    assert {path.removeprefix("cim_plugin/"): package[path] for path in package if path.endswith(".py")} == modules


@pytest.mark.parametrize("form", ["unzipped", "unpacked_sdist"])
def test_the_archive_and_the_sdist_build_the_same_wheel(form, wheel, sources, tmp_path):
    assert contents(build("wheel", getattr(sources, form), tmp_path)) == wheel


def test_the_archive_builds_the_same_sdist(sources, tmp_path):
    members = []
    for file in (sources.sdist, build("sdist", sources.unzipped, tmp_path)):
        with tarfile.open(file) as archive:
            assert all(member.isfile() or member.isdir() for member in archive)  # a link may not survive unpacking
            members.append(sorted(archive.getnames()))
    assert members[0] == members[1]


@pytest.mark.parametrize("missing", ["algorithms", "cim_plugin/algorithms"])
@pytest.mark.parametrize("kind", ["sdist", "wheel", "editable"])
def test_nothing_is_built_without_the_method(missing, kind, sources, tmp_path):
    source = shutil.copytree(sources.clone, tmp_path / "source")
    shutil.rmtree(source / missing)
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(tmp_path)!r})"
    done = run_python("-c", code, cwd=source)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"cim_plugin: error: {missing}/__init__.py is missing") and "whole checkout" in last
