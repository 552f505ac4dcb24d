"""The autoload in fresh processes: with real hosts, with a broken plugin, and its mechanism on a tiny host without torch."""

from __future__ import annotations

import inspect
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from interpreters import AUTOLOAD, SMALL_HOST, Environment, make_environment, run_python

import cim_plugin
from cim_plugin import catalog

OURS = list(catalog.ALGORITHMS)


class Answer(NamedTuple):
    value: Any
    stderr: str


def ask(*functions: Callable, path: Path | str = "", **settings: Any) -> Answer:
    """What the last function returns in a fresh Python that knows all of them, with ``path`` as PYTHONPATH."""
    source = "".join(textwrap.dedent(inspect.getsource(function)) for function in functions)
    code = f"{source}\nimport json; print(json.dumps({functions[-1].__name__}()))"
    done = run_python("-c", code, **{"DOMAINBED_HOME": None, "CIM_PLUGIN_AUTOLOAD": None, "PYTHONPATH": str(path), **settings})
    assert done.returncode == 0, done.stderr
    return Answer(json.loads(done.stdout.splitlines()[-1]), done.stderr)


# --- real hosts: what is registered, whenever the plugin comes ------------------------------------------------------


def host_modules():
    import importlib

    names = ("algorithms", "command_launchers", "datasets", "hparams_registry", "lib.fast_data_loader")
    return {name: importlib.import_module(f"domainbed.{name}") for name in names}


def registered():
    """All that the plugin adds to a host's modules, and how often it wraps."""
    import inspect

    modules = host_modules()
    hparams, loader = modules["hparams_registry"], modules["lib.fast_data_loader"].InfiniteDataLoader
    wrapped = {}
    for function in (hparams._hparams, loader.__init__):
        chain = []
        inspect.unwrap(function, stop=lambda step: chain.append(step) is not None)
        wrapped[function.__name__] = len(chain)
    return {
        "algorithms": modules["algorithms"].ALGORITHMS,
        "found": modules["algorithms"].get_algorithm_class("CIM").__name__,
        "datasets": [name for name in modules["datasets"].DATASETS if name == "DebugDigitsOnPhotos"],
        "launchers": sorted(name for name in modules["command_launchers"].REGISTRY if name.startswith("cim")),
        "hparams": sorted(name for name in hparams.default_hparams("CIM_VIB", "Debug28") if name.startswith(("cim_", "vib_"))),
        "wrapped": wrapped,
    }


def with_the_autoload():
    import importlib
    import importlib.resources
    import inspect
    import multiprocessing
    import pickle

    modules = host_modules()
    algorithms = modules["algorithms"]
    answer = {
        "registered": registered(),
        "loaders": {name: [type(module.__loader__).__name__, module.__loader__ is module.__spec__.loader] for name, module in modules.items()},
        "source": inspect.getsource(algorithms.ERM),
        "resource": importlib.resources.files("domainbed").joinpath("algorithms.py").read_text(),
        "pickled": [pickle.loads(pickle.dumps(getattr(algorithms, name))) is getattr(algorithms, name) for name in ("ERM", "CIM")],
        "file": algorithms.__file__,
    }
    for method in ("fork", "spawn"):  # the class travels to the parent by its name
        with multiprocessing.get_context(method).Pool(1) as pool:
            answer[method] = pool.apply(algorithms.get_algorithm_class, ("CIM",)) is algorithms.CIM
    for module in modules.values():
        importlib.reload(module)
    answer["reloaded"] = registered()
    return answer


def without_the_autoload():
    import sys

    algorithms = host_modules()["algorithms"]
    answer = {"finders": [str(finder) for finder in sys.meta_path if "cim_plugin.autoload" in str(finder)], "plugin": "cim_plugin.autoload" in sys.modules}
    try:
        algorithms.get_algorithm_class("CIM")
    except NotImplementedError as error:
        answer["error"] = str(error)
    from cim_plugin import autoload

    autoload.install()
    answer["installed later"] = registered()
    autoload.install()
    answer["installed twice"] = registered()
    return answer


@pytest.fixture(scope="module")
def on(host) -> dict[str, Any]:
    return ask(host_modules, registered, with_the_autoload, path=host).value


@pytest.fixture(scope="module")
def off(host) -> dict[str, Any]:
    return ask(host_modules, registered, without_the_autoload, path=host, CIM_PLUGIN_AUTOLOAD="0").value


def test_registers_when_the_host_is_imported(on):
    assert on["registered"]["algorithms"][-len(OURS) :] == OURS
    assert on["registered"]["found"] == "CIM"
    assert on["registered"]["datasets"] == ["DebugDigitsOnPhotos"]
    assert on["registered"]["launchers"] == ["cim_local"]
    assert on["registered"]["hparams"] == sorted(catalog.hyperparameters("CIM_VIB"))
    assert on["registered"]["wrapped"] == {"_hparams": 1, "__init__": 1}


def test_registers_with_a_host_that_was_imported_earlier(on, off):
    assert off["installed later"] == on["registered"]
    assert off["installed twice"] == on["registered"]


def test_a_reload_registers_again_and_wraps_nothing_twice(on):
    assert on["reloaded"] == on["registered"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_see_our_algorithms(on, method):
    assert on[method]


def test_host_modules_keep_their_own_loader_source_resources_and_pickles(on, host):
    assert set(map(tuple, on["loaders"].values())) == {("SourceFileLoader", True)}
    assert on["source"].startswith("class ERM(")
    assert Path(on["file"]).samefile(host / "domainbed" / "algorithms.py")
    assert on["resource"] == Path(on["file"]).read_text()
    assert on["pickled"] == [True, True]


def test_switched_off_the_host_is_as_it_came(off):
    assert (off["finders"], off["plugin"]) == ([], False)
    assert off["error"] == "Algorithm not found: CIM"


def in_threads():
    import importlib
    import threading

    names = ["algorithms", "command_launchers", "datasets", "hparams_registry", "lib.fast_data_loader"] * 3
    barrier = threading.Barrier(len(names))

    def load(name):
        barrier.wait()
        importlib.import_module(f"domainbed.{name}")

    threads = [threading.Thread(target=load, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return registered()


def test_threads_that_import_the_host_at_once_register_everything_once():
    answer = ask(host_modules, registered, in_threads, path=SMALL_HOST)
    assert answer.value["algorithms"] == ["ERM", *OURS]
    assert answer.value["wrapped"] == {"_hparams": 1, "__init__": 1}
    assert answer.stderr == ""


# --- a broken plugin: one warning, and the host goes on -------------------------------------------------------------


def catalog_raises(plugin: Path) -> str:
    (plugin / "catalog.py").write_text("raise RuntimeError('half an upgrade')")
    return "domainbed.algorithms goes on without it: RuntimeError: half an upgrade"


def catalog_is_no_python(plugin: Path) -> str:
    (plugin / "catalog.py").write_text("def (")
    return "SyntaxError"


def hook_is_missing(plugin: Path) -> str:
    adapter = plugin / "hosts" / "domainbed.py"
    adapter.write_text(adapter.read_text().replace("def on_datasets(", "def on_something("))
    return "domainbed.datasets goes on without it: AttributeError"


def adapter_is_removed(plugin: Path) -> str:
    shutil.rmtree(plugin / "hosts")
    return "ModuleNotFoundError: No module named 'cim_plugin.hosts'"


def method_is_removed(plugin: Path) -> str:
    shutil.rmtree(plugin / "algorithms")
    return "ModuleNotFoundError: No module named 'cim_plugin.algorithms'"


def the_host_goes_on():
    import sys

    modules = host_modules()
    found = modules["algorithms"].get_algorithm_class("ERM").__name__
    hparams = modules["hparams_registry"].default_hparams("ERM", "Debug28")
    return found, hparams["batch_size"], [str(finder) for finder in sys.meta_path if "cim_plugin.autoload" in str(finder)]


@pytest.fixture
def installation(tmp_path) -> Environment:
    """An environment of its own with a copy of the plugin and its autoload file, to be damaged."""
    environment = make_environment(tmp_path / "environment", heavy_packages=True)
    shutil.copytree(Path(cim_plugin.__file__).parent, environment.site_packages / "cim_plugin", ignore=shutil.ignore_patterns("__pycache__"))
    (environment.site_packages / "cim_plugin_autoload.pth").write_text(AUTOLOAD)
    return environment


@pytest.mark.parametrize("damage", [catalog_raises, catalog_is_no_python, hook_is_missing, adapter_is_removed, method_is_removed])
def test_a_broken_plugin_is_one_warning_and_the_host_goes_on(installation, damage):
    reason = damage(installation.site_packages / "cim_plugin")
    answer = ask(host_modules, the_host_goes_on, path=SMALL_HOST, python=installation.python)
    assert answer.value == ["ERM", 8, []]
    assert answer.stderr.count("RuntimeWarning") == 1
    assert "RuntimeWarning: cim_plugin: switched off" in answer.stderr and reason in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("left", [["__init__.py", "catalog.py"], ["notes.txt"], []], ids=["old files", "a folder with the name", "nothing"])
def test_an_autoload_file_whose_plugin_is_gone_is_silent(installation, left):
    for path in (installation.site_packages / "cim_plugin").iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in left:
        (installation.site_packages / "cim_plugin" / name).touch()
    done = run_python("-c", "import sys; print(len(sys.meta_path))", python=installation.python)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == int(run_python("-c", "import sys; print(len(sys.meta_path))", python=installation.python, CIM_PLUGIN_AUTOLOAD="0").stdout)


# --- the mechanism, on a tiny host whose registrations are only counted ----------------------------------------------


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A host of two hooked modules, one imported by the other, and the module ``hooks`` that stands for the plugin's."""
    files = {
        "domainbed/__init__.py": "",
        "domainbed/algorithms.py": "from domainbed import datasets\nREADY = True\n",
        "domainbed/datasets.py": "READY = True\n",
        "hooks.py": """
            import time
            calls = []

            def count(module):
                assert module.READY
                calls.append(module.__name__)

            def slowly(module):
                time.sleep(0.05)
                count(module)

            def fail(module):
                raise ValueError("of ours")
        """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path


def hook(function):
    """Let the installed finder call ``hooks:function``; the list of its calls."""
    import hooks

    from cim_plugin import autoload

    autoload.HOOKS.clear()
    autoload.HOOKS.update({f"domainbed.{name}": f"hooks:{function}" for name in ("algorithms", "datasets")})
    return hooks.calls


def nested_fault():
    hook("fail")
    import domainbed.algorithms

    return domainbed.algorithms.READY


def test_faults_in_a_module_and_in_one_that_it_imports_are_one_warning(tiny):
    answer = ask(hook, nested_fault, path=tiny)
    assert answer.value
    assert answer.stderr.count("RuntimeWarning") == 1
    assert "domainbed.datasets goes on without it: ValueError: of ours" in answer.stderr


def fault_of_the_host():
    calls = hook("count")
    from pathlib import Path

    import domainbed

    file = Path(domainbed.__file__).parent / "algorithms.py"
    file.write_text("raise KeyError('of the host')")
    try:
        import domainbed.algorithms
    except KeyError as error:
        message = str(error)
    file.write_text("READY = 'at last'")
    import domainbed.algorithms

    return message, domainbed.algorithms.READY, calls


def test_a_fault_of_the_host_is_its_own_and_a_second_import_registers(tiny):
    answer = ask(hook, fault_of_the_host, path=tiny, PYTHONDONTWRITEBYTECODE="1")
    assert answer == Answer(["'of the host'", "at last", ["domainbed.algorithms"]], "")


def installed_by_the_host_itself():
    calls = hook("count")
    from cim_plugin import autoload

    autoload.uninstall()
    import domainbed.algorithms

    return calls, domainbed.algorithms.READY


def test_a_module_that_is_still_running_is_left_alone(tiny):
    (tiny / "domainbed" / "algorithms.py").write_text("from domainbed import datasets\nfrom cim_plugin import autoload\nautoload.install()\nREADY = True\n")
    assert ask(hook, installed_by_the_host_itself, path=tiny) == Answer([["domainbed.datasets"], True], "")


def between_other_finders():
    """Others that ask all finders in their turn, as tracing and typing tools do, before and behind ours."""
    import importlib.util
    import sys

    class Asking:
        busy = False

        def find_spec(self, name, path=None, target=None):
            if self.busy or not name.startswith("domainbed"):
                return None
            self.busy = True
            try:
                return importlib.util.find_spec(name)
            finally:
                self.busy = False

    class Old:
        """As before Python 3.4."""

        def find_module(self, name, path=None):
            return None

    calls = hook("count")
    sys.meta_path[:] = [Asking(), *sys.meta_path[:1], Old(), Asking(), *sys.meta_path[1:]]
    import domainbed.algorithms

    return calls, type(domainbed.algorithms.__loader__).__name__, domainbed.__file__


def test_other_finders_that_ask_ours_neither_loop_nor_register_twice(tiny, tmp_path):
    in_the_cache = tmp_path / "cim_plugin" / "DomainBed" / "domainbed" / "__init__.py"
    in_the_cache.parent.mkdir(parents=True)
    in_the_cache.write_text("")
    path = tmp_path / "path"
    path.mkdir()
    for name in ("domainbed", "hooks.py"):
        shutil.move(tiny / name, path)
    answer = ask(hook, between_other_finders, path=path, XDG_CACHE_HOME=str(tmp_path))
    calls, loader, file = answer.value
    assert sorted(calls) == ["domainbed.algorithms", "domainbed.datasets"]
    assert loader == "SourceFileLoader"
    assert file == str(path / "domainbed" / "__init__.py")


def threads_on_the_mechanism():
    import importlib
    import importlib.util
    import threading

    calls = hook("slowly")
    barrier = threading.Barrier(24)
    ready = []

    def load(number):
        name = ("domainbed.algorithms", "domainbed.datasets")[number % 2]
        barrier.wait()
        if number % 3:
            ready.append((name in calls or importlib.import_module(name) is not None) and name in calls)
        else:
            importlib.util.find_spec(name)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return calls, ready


def test_no_thread_goes_on_before_the_module_is_registered(tiny):
    calls, ready = ask(hook, threads_on_the_mechanism, path=tiny).value
    assert sorted(calls) == ["domainbed.algorithms", "domainbed.datasets"]
    assert ready == [True] * 16


def spec_without_import():
    hook("count")
    from importlib.util import find_spec

    loader = find_spec("domainbed.datasets").loader
    return loader.get_filename("domainbed.datasets"), loader.get_source("domainbed.datasets"), loader.is_package("domainbed.datasets")


def test_a_loader_that_was_only_looked_up_answers_as_the_hosts(tiny):
    file = tiny / "domainbed" / "datasets.py"
    assert ask(hook, spec_without_import, path=tiny).value == [str(file), file.read_text(), False]


# --- which domainbed is found ----------------------------------------------------------------------------------------


def which():
    import importlib

    try:
        module = importlib.import_module("domainbed")
    except ModuleNotFoundError as error:
        return str(error)
    return getattr(module, "WHERE", "a folder that only has the name")


MISSING = "No module named 'domainbed'"
WRONG = "wrong"  #: a folder that holds no DomainBed

#: (where there is one, DOMAINBED_HOME, what is found)
PLACES = [
    ("", None, MISSING),
    ("cache", None, "cache"),
    ("path cache", None, "path"),
    ("path cache home", "home", "home"),
    ("home", "home", "home"),
    ("path cache", WRONG, "path"),
    ("cache", WRONG, "cache"),
    ("", WRONG, MISSING),
    ("cache", "", "cache"),
    ("name", None, "a folder that only has the name"),
    ("name cache", None, "cache"),
    ("name path cache", None, "path"),
    ("name home", "home", "home"),
]


@pytest.fixture
def places(tmp_path) -> Callable[[str], dict[str, Any]]:
    """Make a ``domainbed`` in each of the places named: the settings of a process that may find it."""
    folders = {"cache": tmp_path / "cache" / "cim_plugin" / "DomainBed", "path": tmp_path / "path", "home": tmp_path / "home"}
    work = tmp_path / "work"

    def make(names: str) -> dict[str, Any]:
        work.mkdir()
        for name in names.split():
            package = folders.get(name, work) / "domainbed"
            package.mkdir(parents=True)
            (package / ("__init__.py" if name in folders else "photo.txt")).write_text(f"WHERE = '{name}'")
        return {"path": folders["path"], "cwd": work, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    return make


@pytest.mark.parametrize("names, home, found", PLACES)
def test_domainbed_is_looked_for_in_home_then_on_the_path_then_in_the_cache(tmp_path, places, names, home, found):
    settings = places(names)
    answer = ask(which, DOMAINBED_HOME=home and str(tmp_path / home), **settings)
    assert answer.value == found
    warnings = [line for line in answer.stderr.splitlines() if "RuntimeWarning" in line]
    assert len(warnings) == (home == WRONG)
    assert all(str(tmp_path / WRONG) in line and "checkout's folder" in line for line in warnings)


def ask_often():
    import importlib.util

    return [importlib.util.find_spec("domainbed") is None for _ in range(3)]


def test_a_wrong_home_warns_once_however_often_it_is_asked(tmp_path, places):
    answer = ask(ask_often, DOMAINBED_HOME=str(tmp_path / WRONG), **places(""))
    assert answer.value == [True] * 3
    assert answer.stderr.count("RuntimeWarning") == 1


def test_switched_off_the_cache_is_not_looked_into(places):
    assert ask(which, CIM_PLUGIN_AUTOLOAD="0", **places("cache")).value == MISSING


def test_without_xdg_cache_home_the_cache_is_in_the_users_home(tmp_path, places):
    settings = places("cache") | {"XDG_CACHE_HOME": None, "HOME": str(tmp_path)}
    (tmp_path / "cache").rename(tmp_path / ".cache")
    assert ask(which, **settings).value == "cache"
