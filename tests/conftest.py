"""The machine that the tests see: a fresh one, with an empty home; and where real hosts and real data are."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from interpreters import HERE, SMALL_HOST

from cim_plugin.autoload import domainbed_cache, subpopbench_cache
from cim_plugin.runs.configuration import Configuration

SHARED = HERE.parent.parent / "shared"

#: torch reads it when it is imported: runs here and in processes that tests start are compared to the last bit
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else torch.compile starts a pool of processes


class Host(NamedTuple):
    """A host whose checkout the tests can use."""

    variable: str  #: that names the checkout
    file: str  #: by which a checkout is known
    fixture: str  #: which every test of it asks for
    cache: str | None  #: where else it may be


HOSTS = {
    "DomainBed": Host("DOMAINBED_HOME", "domainbed/__init__.py", "domainbed", domainbed_cache()),
    "WILDS": Host("WILDS_HOME", "examples/run_expt.py", "wilds_checkout", None),
    "SubpopBench": Host("SUBPOPBENCH_HOME", "subpopbench/train.py", "subpopbench", subpopbench_cache()),
}
FOUND = "CIM_TESTS_FOUND"  #: this session's home, and the checkouts: for the processes that pytest-xdist starts
#: that lead to what a user keeps, or change how Python writes
USERS = (
    "PYTHONUNBUFFERED",
    "XDG_CACHE_HOME",
    "TORCH_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    *(host.variable for host in HOSTS.values()),
)


def start_afresh() -> dict[str, str]:
    """Hide the user's home and variables from every test; what there is of hosts by name, looked for before."""
    found = {}
    for name, host in HOSTS.items():
        folders = [folder for folder in (os.environ.get(host.variable), host.cache) if folder]
        checkouts = [folder for folder in folders if os.path.isfile(os.path.join(folder, host.file))]
        found |= {name: os.path.abspath(folder) for folder in checkouts[:1]}
    for name in [name for name in os.environ if name in USERS or name.startswith("CIM_PLUGIN_")]:
        del os.environ[name]
    os.environ["HOME"] = tempfile.mkdtemp(prefix="cim_tests_home-")
    os.environ[FOUND] = json.dumps(found)
    return found


#: host -> folder of its checkout
CHECKOUTS: dict[str, str] = json.loads(os.environ[FOUND]) if FOUND in os.environ else start_afresh()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)


#: modules whose fixtures train for a minute; at the start of a process's tests, whence another one steals none
FIRST = ("test_domainbed_scripts.py", "test_study.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST)
    for item in items:
        uses = {name for name, host in HOSTS.items() if host.fixture in getattr(item, "fixturenames", ())}
        if item.get_closest_marker("host"):
            uses.add("DomainBed")
        item.user_properties += [("host", name) for name in sorted(uses)]


def pytest_terminal_summary(terminalreporter) -> None:
    """How many tests of real hosts ran."""
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    ran = Counter(name for report in reports if report.when == "call" for _, name in report.user_properties)
    parts = [
        f"{ran[name]} ran against {name} " + (f"in {CHECKOUTS[name]}" if name in CHECKOUTS else f"({missing(name)})")
        for name in HOSTS
    ]
    terminalreporter.write_line(f"host tests: {', '.join(parts)}")


def missing(host: str) -> str:
    """Why there is no checkout, in words."""
    ways = [f"{HOSTS[host].variable} names none", *(["nor is one in the user's cache"] if HOSTS[host].cache else [])]
    return ", ".join(ways)


def checkout(host: str) -> Path:
    """The folder of a real host; skips with the reason where there is none."""
    if host not in CHECKOUTS:
        pytest.skip(f"no {host}: {missing(host)}")
    return Path(CHECKOUTS[host])


@pytest.fixture(scope="session")
def domainbed_files() -> Path:
    """A real DomainBed checkout, of which only what needs no torch is used."""
    return checkout("DomainBed")


@pytest.fixture(scope="session")
def domainbed(domainbed_files) -> Path:
    """A real DomainBed checkout; skips with the reason where there is none."""
    pytest.importorskip("timm", reason="DomainBed needs timm")
    return domainbed_files


@pytest.fixture(scope="session")
def wilds_checkout() -> Path:
    """A real WILDS checkout, with the examples that the pip package lacks; skips with the reason where there is
    none.
    """
    return checkout("WILDS")


@pytest.fixture(scope="session")
def subpopbench() -> Path:
    """A real SubpopBench checkout; skips with the reason where there is none."""
    return checkout("SubpopBench")


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


@pytest.fixture
def configure():
    """A function (flag words) -> the configuration that 'cim-plugin train' makes of them; dataset, algorithm and root
    are set unless given.
    """

    from cim_plugin.wilds_runner.config import add_arguments, make_config

    def configuration(*words: str) -> Configuration:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return make_config(
            parser.parse_args(["--dataset", "waterbirds", "--algorithm", "ERM", "--root_dir", "data", *words])
        )

    return configuration
