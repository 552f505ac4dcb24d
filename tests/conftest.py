"""Where the tests find real hosts and real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from interpreters import HERE, SMALL_HOST

from cim_plugin.autoload import domainbed_cache

SHARED = HERE.parent.parent / "shared"

#: torch reads it when it is imported: runs here and in processes that tests start are compared to the last bit
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else torch.compile starts a pool of processes


#: modules whose fixtures train for a minute; at the start of a process's tests, whence another one steals none
FIRST = ("test_domainbed_scripts.py", "test_study.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST)


def find_domainbed() -> Path | None:
    """A real checkout: DOMAINBED_HOME, or the one that ``cim-plugin get-domainbed`` made."""
    for folder in filter(None, (os.environ.get("DOMAINBED_HOME"), domainbed_cache())):
        if os.path.isfile(os.path.join(folder, "domainbed", "__init__.py")):
            return Path(folder)
    return None


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
