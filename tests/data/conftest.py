"""``cim-plugin data`` in the process of a test, and what the wilds package makes of its results."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_archives as archives

from cim_plugin import cli


@pytest.fixture
def data(monkeypatch, capsys, tmp_path):
    """A function of the words after 'cim-plugin data' that returns exit status, output and errors; the current folder
    is the test's own.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words):
        status = cli.main(["data", *map(str, words)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def open_release():
    """A function (name, root) -> wilds' dataset."""
    wilds = pytest.importorskip("wilds")
    return lambda name, root: wilds.get_dataset(dataset=name, root_dir=str(root), download=False)


@pytest.fixture
def refuse(data, tmp_path):
    """Runs a conversion that must fail: the one line that it prints. What is in ``tmp_path`` must not change, but for
    the unfinished folder.
    """

    def run(*words):
        before = _snapshot(tmp_path)
        status, out, err = data(*words, "--root", "root")
        assert status == 2 and "Traceback" not in err
        assert _snapshot(tmp_path) == before
        lines = [line for line in err.splitlines() if "error:" in line]
        assert len(lines) == 1 and lines[0] == err.splitlines()[-1] and lines[0].startswith("cim-plugin data: error: ")
        return lines[0]

    return run


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in archives.files(folder).items() if ".partial/" not in name}


@pytest.fixture(scope="session")
def mirrors(tmp_path_factory) -> Path:
    """A folder with a small mirror of every data set, as `local_place.Place` serves it."""
    pytest.importorskip("pyarrow", reason="data sets of the Hub are parquet files")
    import small_mirrors

    return small_mirrors.write(tmp_path_factory.mktemp("mirrors"))


@pytest.fixture
def place(mirrors, monkeypatch):
    """A server of the mirrors, to which all clients go, and tables of sources and releases that say what it has."""
    import local_place
    import small_mirrors

    with local_place.serving(mirrors) as server:
        small_mirrors.point_to(server.address, monkeypatch)
        yield server
