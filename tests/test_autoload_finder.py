"""The finder of the autoload in fresh processes, on a tiny host without torch, and which domainbed it finds."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest
from interpreters import Answer, ask

# --- the mechanism, on a tiny host whose registrations are only counted ----------------------------------------------


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A host of two hooked modules, one imported by the other, and the module ``hooks`` that stands for the
    plugin's.
    """
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
    (tiny / "domainbed" / "algorithms.py").write_text(
        "from domainbed import datasets\nfrom cim_plugin import autoload\nautoload.install()\nREADY = True\n"
    )
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
    return (
        loader.get_filename("domainbed.datasets"),
        loader.get_source("domainbed.datasets"),
        loader.is_package("domainbed.datasets"),
    )


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
    folders = {
        "cache": tmp_path / "cache" / "cim_plugin" / "DomainBed",
        "path": tmp_path / "path",
        "home": tmp_path / "home",
    }
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
