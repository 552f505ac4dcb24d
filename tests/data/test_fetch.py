"""Downloads that go wrong: one line, and nothing that passes for whole."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
from pathlib import Path

import pytest
import small_archives as archives

pytest.importorskip("wilds")
pytest.importorskip("pyarrow", reason="data sets of the Hub are parquet files")
pytest.importorskip("pooch", reason="data sets at plain addresses come by it")

import small_mirrors as mirrors_of  # noqa: E402

from cim_plugin.data import fetch, sources  # noqa: E402
from cim_plugin.data.check import examine  # noqa: E402
from cim_plugin.data.releases import RELEASES  # noqa: E402

SHARD = "data/train-00000-of-00001.parquet"
IMAGES = "eccv_18_all_images_sm.tar.gz"


@pytest.fixture
def refused(data, tmp_path):
    """A function of the words after 'cim-plugin data get' which must fail: its one line."""

    def run(*words):
        status, _, err = data("get", *words, "--root", "root")
        lines = [line for line in err.replace("\r", "\n").splitlines() if "error:" in line]
        assert status == 2 and "Traceback" not in err and len(lines) == 1 and err.endswith(f"{lines[0]}\n"), err
        for release in RELEASES.values():
            assert not release.path(tmp_path / "root").exists()
        return lines[0]

    return run


def pin(monkeypatch, name: str, **known) -> None:
    """Let the table say more of the last file of the first mirror of a data set."""
    entry = sources.SOURCES[name]
    first, *others = entry.mirrors
    files = (*first.files[:-1], dataclasses.replace(first.files[-1], **known))
    first = dataclasses.replace(first, files=files)
    monkeypatch.setitem(sources.SOURCES, name, dataclasses.replace(entry, mirrors=(first, *others)))


def says(content: bytes, status: int = 200, **headers):
    """A fault: this answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.say(status, content, {"X-Repo-Commit": "1" * 40, **named}) or True


# --- the Hub ----------------------------------------------------------------------------------------------------------


def test_a_pinned_checksum_that_is_right_and_one_that_is_wrong(data, refused, place, monkeypatch, mirrors):
    content = (mirrors / "hf/flwrlabs/pacs" / SHARD).read_bytes()
    pin(monkeypatch, "PACS", sha256="0" * 64)
    assert "has another SHA-256 than 000000000000" in refused("PACS")
    assert not list(Path("root").rglob("*.parquet"))
    pin(monkeypatch, "PACS", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    assert data("get", "PACS", "--root", "root")[0] == 0


def test_another_size_than_the_pinned_one_is_said_before_the_download(refused, place, monkeypatch):
    pin(monkeypatch, "PACS", size=7)
    assert "not the 7 that were pinned" in refused("PACS")
    assert not any(method == "GET" and path.endswith(SHARD) for method, path, _ in place.asked)


def test_the_hubs_own_checksum_is_checked(refused, place, mirrors):
    content = (mirrors / "hf/flwrlabs/pacs" / SHARD).read_bytes()
    place.faults[SHARD] = says(content[:-1] + b"?", ETag='"%s"' % hashlib.sha256(content).hexdigest())
    assert "has another SHA-256" in refused("PACS")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"<html>Sign in</html>", "is no parquet file, or is truncated or damaged"),
        (b"", "is no parquet file, or is truncated or damaged"),
    ],
    ids=["a web page", "nothing"],
)
def test_what_is_no_parquet_file(refused, place, content, said):
    place.faults[SHARD] = says(content, ETag='"%s"' % hashlib.sha256(content).hexdigest())
    assert said in refused("PACS")


def test_a_truncated_parquet_file(refused, place, mirrors):
    content = (mirrors / "hf/flwrlabs/pacs" / SHARD).read_bytes()[:-500]
    place.faults[SHARD] = says(content, ETag='"%s"' % hashlib.sha256(content).hexdigest())
    assert "is no parquet file, or is truncated or damaged" in refused("PACS")


@pytest.mark.parametrize(
    "status, headers, said",
    [
        (401, {"X_Error_Code": "GatedRepo"}, "it wants a login or gives no access (HTTP 401)"),
        (403, {}, "it wants a login or gives no access (HTTP 403)"),
        (404, {"X_Error_Code": "EntryNotFound"}, "is not there any more (HTTP 404)"),
        (500, {}, "answers with HTTP 500"),
    ],
)
def test_what_the_hub_refuses(refused, place, status, headers, said):
    place.faults[SHARD] = says(b"", status, **headers)
    line = refused("PACS")
    assert said in line and "flwrlabs/pacs" in line


def test_the_hub_may_pass_on_to_a_store_where_the_checksum_is_known(data, refused, place, mirrors):
    """As it does for all large files; without a checksum of its own anybody could deliver anything."""
    content = (mirrors / "hf/flwrlabs/pacs" / SHARD).read_bytes()
    elsewhere = place.address.replace("127.0.0.1", "localhost") + "/store"
    linked = {"Location": elsewhere, "X_Linked_Size": str(len(content))}
    place.faults["/store"] = says(content)
    place.faults[SHARD] = says(b"", 302, **linked, X_Linked_Etag='"abc"')
    assert "passes the request on to localhost, and no checksum" in refused("PACS")
    place.faults[SHARD] = says(b"", 302, **linked, X_Linked_Etag='"%s"' % hashlib.sha256(content).hexdigest())
    assert data("get", "PACS", "--root", "root")[0] == 0


def test_nobody_answers(refused, place, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{filename}")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert "flwrlabs/pacs (hf): cannot be downloaded" in refused("PACS")


# --- plain addresses --------------------------------------------------------------------------------------------------


def test_a_download_that_breaks_off_goes_on_where_it_was(data, refused, place, mirrors):
    content = (mirrors / "files" / IMAGES).read_bytes()
    half = len(content) // 2
    tag = '"%s"' % hashlib.sha256(content).hexdigest()

    def broken(handler):
        if handler.command == "GET":
            handler.say(200, content[:half], {"ETag": tag}, length=len(content))
        return handler.command == "GET"

    place.faults[IMAGES] = broken
    assert "storage.googleapis.com (LILA) (url)" in refused("TerraIncognita")
    place.faults.clear()
    place.asked.clear()
    assert data("get", "TerraIncognita", "--root", "root")[0] == 0
    (asked,) = [part for method, path, part in place.asked if method == "GET" and path.endswith(IMAGES)]
    assert 0 < half - fetch.CHUNK < int(asked.removeprefix("bytes=").removesuffix("-")) <= half
    assert examine(RELEASES["TerraIncognita"], "root", decode=True).state == "present"


def test_a_part_of_a_file_that_has_changed_since_is_thrown_away(data, refused, place, mirrors):
    content = (mirrors / "files" / IMAGES).read_bytes()

    def broken(handler):
        if handler.command == "GET":
            handler.say(200, b"?" * (fetch.CHUNK + 1000), {"ETag": '"before"'}, length=len(content))
        return handler.command == "GET"

    place.faults[IMAGES] = broken
    refused("TerraIncognita")
    place.faults.clear()
    assert data("get", "TerraIncognita", "--root", "root")[0] == 0
    assert examine(RELEASES["TerraIncognita"], "root", decode=True).state == "present"


def test_a_web_page_instead_of_an_archive(refused, place):
    place.faults[IMAGES] = says(b"<html>quota exceeded</html>", Content_Type="text/html; charset=utf-8")
    assert "answers with a web page instead of data" in refused("TerraIncognita")


def test_what_is_no_archive(refused, place):
    place.faults[IMAGES] = says(b"x" * 1000)
    assert "is no tar archive, or is truncated or damaged" in refused("TerraIncognita")


def test_a_checksum_that_is_wrong(refused, place, monkeypatch):
    pin(monkeypatch, "TerraIncognita", sha256="0" * 64)
    assert "storage.googleapis.com (LILA) (url): cannot be downloaded (SHA256 hash of downloaded file" in refused(
        "TerraIncognita"
    )


def test_another_host_only_where_the_table_names_it(data, refused, place, monkeypatch, mirrors):
    elsewhere = place.address.replace("127.0.0.1", "localhost")
    place.faults[f"files/{IMAGES}"] = says(b"", 302, Location=f"{elsewhere}/store/{IMAGES}")
    place.faults[f"store/{IMAGES}"] = says((mirrors / "files" / IMAGES).read_bytes())
    assert "passes the request on to localhost, and no checksum" in refused("TerraIncognita")
    entry = sources.SOURCES["TerraIncognita"]
    mirror = dataclasses.replace(entry.mirrors[0], redirects=("localhost",))
    monkeypatch.setitem(sources.SOURCES, "TerraIncognita", dataclasses.replace(entry, mirrors=(mirror,)))
    assert data("get", "TerraIncognita", "--root", "root")[0] == 0


@pytest.mark.parametrize(
    "asked, answers, known",
    [
        ("https://a.org/x", "https://a.org/y", True),
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "file:///etc/passwd", False),
        ("https://a.org/x", "https://objects.store.org/x", True),
        ("https://a.org/x", "https://evilstore.org/x", False),
        ("https://a.org/x", "https://store.org.evil.com/x", False),
    ],
)
def test_which_hosts_are_known(asked, answers, known):
    mirror = dataclasses.replace(sources.SOURCES["imagenet9"].mirrors[0], redirects=("store.org",))
    assert fetch._known_host(mirror, asked, answers) is known


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_full_disk(refused, place, monkeypatch):
    replace = os.replace

    def full(part, path):
        if ".PACS.partial" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(part, path)

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in refused("PACS")


def test_an_image_that_does_not_decode(refused, place, mirrors, monkeypatch, tmp_path):
    mirrors_of.parquet(
        tmp_path / "a.parquet",
        {"domain": ["photo"] * 2, "label": [0, 1]},
        [None, None],
        {"label": ("dog", "house")},
        pictures=[mirrors_of.digits()[0], mirrors_of.digits()[1][:-400]],
    )
    content = (tmp_path / "a.parquet").read_bytes()
    place.faults[SHARD] = says(content, ETag='"%s"' % hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(RELEASES, "PACS", dataclasses.replace(RELEASES["PACS"], needs=("photo",), counts={"photo": 2}))
    line = refused("PACS")
    assert "row 1, image 'train/000001', cannot be decoded (image file is truncated" in line
    assert [*archives.files(tmp_path / "root/.PACS.partial")] == ["ORIGIN.txt", "photo/dog/train_000000.jpg"]
