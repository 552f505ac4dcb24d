"""The autoload in fresh processes: with hosts, and with a broken plugin."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from interpreters import SMALL_HOST, Environment, ask, make_environment, run_python

from cim_plugin import catalog

OURS = list(catalog.ALGORITHMS)


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
        "hparams": sorted(
            name for name in hparams.default_hparams("CIM_VIB", "Debug28") if name.startswith(("cim_", "vib_"))
        ),
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
        "loaders": {
            name: [type(module.__loader__).__name__, module.__loader__ is module.__spec__.loader]
            for name, module in modules.items()
        },
        "source": inspect.getsource(algorithms.ERM),
        "resource": importlib.resources.files("domainbed").joinpath("algorithms.py").read_text(),
        "pickled": [
            pickle.loads(pickle.dumps(getattr(algorithms, name))) is getattr(algorithms, name)
            for name in ("ERM", "CIM")
        ],
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
    answer = {
        "finders": [str(finder) for finder in sys.meta_path if "cim_plugin.autoload" in str(finder)],
        "plugin": "cim_plugin.autoload" in sys.modules,
    }
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
    assert on["registered"]["launchers"] == ["cim_local", "cim_submitit"]
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


@pytest.mark.slow
def test_threads_that_import_the_host_at_once_register_everything_once():
    answer = ask(host_modules, registered, in_threads, path=SMALL_HOST)
    assert answer.value["algorithms"] == ["ERM", *OURS]
    assert answer.value["wrapped"] == {"_hparams": 1, "__init__": 1}
    assert answer.stderr == ""


# --- a broken plugin: one warning, and the host goes on -------------------------------------------------------------


def catalog_raises(plugin: Path) -> str:
    (plugin / "catalog.py").write_text("raise RuntimeError('half an upgrade')")
    return "domainbed.networks goes on without it: RuntimeError: half an upgrade"


def catalog_is_no_python(plugin: Path) -> str:
    (plugin / "catalog.py").write_text("def (")
    return "SyntaxError"


def hook_is_missing(plugin: Path) -> str:
    adapter = plugin / "hosts" / "domainbed" / "adapter.py"
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
    return (
        found,
        hparams["batch_size"],
        [str(finder) for finder in sys.meta_path if "cim_plugin.autoload" in str(finder)],
    )


@pytest.fixture
def installation(tmp_path) -> Environment:
    """An environment of its own with a copy of the plugin and its autoload files, to be damaged."""
    environment = make_environment(tmp_path / "environment", heavy_packages=True)
    environment.put_plugin()
    return environment


@pytest.mark.parametrize(
    "damage", [catalog_raises, catalog_is_no_python, hook_is_missing, adapter_is_removed, method_is_removed]
)
def test_a_broken_plugin_is_one_warning_and_the_host_goes_on(installation, damage):
    reason = damage(installation.site_packages / "cim_plugin")
    answer = ask(host_modules, the_host_goes_on, path=SMALL_HOST, python=installation.python)
    assert answer.value == ["ERM", 8, []]
    assert answer.stderr.count("RuntimeWarning") == 1
    assert "RuntimeWarning: cim_plugin: switched off" in answer.stderr and reason in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "left", [["__init__.py", "catalog.py"], ["notes.txt"], []], ids=["old files", "a folder with the name", "nothing"]
)
def test_an_autoload_file_whose_plugin_is_gone_is_silent(installation, left):
    for path in (installation.site_packages / "cim_plugin").iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in left:
        (installation.site_packages / "cim_plugin" / name).touch()
    done = run_python("-c", "import sys; print(len(sys.meta_path))", python=installation.python)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == int(
        run_python(
            "-c", "import sys; print(len(sys.meta_path))", python=installation.python, CIM_PLUGIN_AUTOLOAD="0"
        ).stdout
    )
