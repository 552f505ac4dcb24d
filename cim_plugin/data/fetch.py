"""Downloads by the client of each place: sizes first, then files whose checksum is right, then nothing half of them.

A file is trusted by its SHA-256 (the table's, or the Hub's word for it), not by who delivers it: without one it may
only come from the host that was asked, or from domains that the table names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, Iterator, NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from ..errors import InputError
from .sources import File, Mirror

_SHA256 = re.compile("[0-9a-f]{64}")
CHUNK = 1 << 20  #: bytes


class Wanted(NamedTuple):
    """A file to download."""

    name: str  #: as in the table
    path: Path  #: where it goes
    size: int | None  #: bytes; None: nobody says
    sha256: str | None


def look(mirror: Mirror, folder: Path) -> list[Wanted]:
    """Ask for the size and the checksum of every file of a mirror; nothing is downloaded.

    Raises:
        InputError: the place does not answer, wants a login, or has another file than the table says.
    """
    with _in_words(mirror):
        return [{"hf": _look_hf, "url": _look_url}[mirror.place](mirror, file, folder) for file in mirror.files]


def download(mirror: Mirror, wanted: list[Wanted], folder: Path) -> None:
    """Download what is not there yet; every file has its checksum and size afterwards.

    Raises:
        InputError: the place fails, or delivers something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _in_words(mirror):
        if mirror.place == "kaggle":
            _download_kaggle(mirror, folder)
            return
        for file in wanted:
            if not _is_there(file):
                {"hf": _download_hf, "url": _download_url}[mirror.place](mirror, file, folder)
                _check(mirror, file)


def missing(wanted: list[Wanted]) -> int:
    """Bytes that are still to be downloaded."""
    return sum(file.size or 0 for file in wanted if not file.path.is_file())


def _is_there(file: Wanted) -> bool:
    """Whether a file of an earlier attempt is whole."""
    if not file.path.is_file() or file.size not in (None, file.path.stat().st_size):
        return False
    return file.sha256 is None or _sha256(file.path) == file.sha256


def _check(mirror: Mirror, file: Wanted) -> None:
    size = file.path.stat().st_size
    wrong = file.size is not None and size != file.size and f"has {size:,} bytes instead of {file.size:,}"
    if not wrong and file.sha256 is not None and _sha256(file.path) != file.sha256:
        wrong = f"has another SHA-256 than {file.sha256[:12]}..."
    if wrong:
        file.path.unlink()
        raise InputError(
            f"{file.name} from {mirror.repository} {wrong}; it was thrown away: the mirror has changed, or the "
            f"connection is not to be trusted"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    with (
        open(path, "rb") as file,
        tqdm(total=size, desc=f"verifying {path.name}", unit="B", unit_scale=True, leave=False) as bar,
    ):
        while block := file.read(CHUNK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _known_host(mirror: Mirror, asked: str, answers: str) -> bool:
    host, other = urlsplit(asked), urlsplit(answers)
    if other.scheme not in (host.scheme, "https"):
        return False
    name = other.hostname or ""
    return name == host.hostname or any(name == domain or name.endswith(f".{domain}") for domain in mirror.redirects)


def _refuse_host(mirror: Mirror, name: str, asked: str, answers: str, sha256: str | None) -> None:
    if sha256 is None and not _known_host(mirror, asked, answers):
        raise InputError(
            f"{name}: {urlsplit(asked).hostname} passes the request on to {urlsplit(answers).hostname}, and no "
            f"checksum says what should come from there; it is refused"
        )


# --- the Hub ----------------------------------------------------------------------------------------------------------


def _look_hf(mirror: Mirror, file: File, folder: Path) -> Wanted:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    address = hf_hub_url(mirror.repository, file.name, repo_type="dataset", revision=mirror.revision)
    answer = get_hf_file_metadata(address)
    if file.size not in (None, answer.size):
        raise InputError(
            f"{file.name} of {mirror.repository} has {answer.size or 0:,} bytes, not the {file.size:,} that were "
            f"pinned; the mirror has changed"
        )
    sha256 = file.sha256 or (answer.etag if _SHA256.fullmatch(answer.etag or "") else None)
    _refuse_host(mirror, file.name, address, answer.location, sha256)
    return Wanted(file.name, folder / file.name, answer.size, sha256)


def _download_hf(mirror: Mirror, file: Wanted, folder: Path) -> None:
    from huggingface_hub import hf_hub_download

    for left in folder.glob(".cache/huggingface/download/**/*.incomplete"):  # its client does not go on with them
        left.unlink()
    file.path.unlink(missing_ok=True)
    hf_hub_download(mirror.repository, file.name, repo_type="dataset", revision=mirror.revision, local_dir=folder)


# --- plain addresses --------------------------------------------------------------------------------------------------


def _look_url(mirror: Mirror, file: File, folder: Path) -> Wanted:
    import requests

    with requests.head(file.name, allow_redirects=True, timeout=30) as answer:
        answer.raise_for_status()
        _refuse_page(mirror, file.name, answer)
        _refuse_host(mirror, file.name, file.name, answer.url, file.sha256)
        size = int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
    if file.size is not None and size not in (None, file.size):
        raise InputError(f"{file.name} has {size:,} bytes, not the {file.size:,} of the known one; it has changed")
    return Wanted(file.name, folder / Path(urlsplit(file.name).path).name, file.size or size, file.sha256)


def _download_url(mirror: Mirror, file: Wanted, folder: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")  # else it prints the checksum as one to rely on
    file.path.unlink(missing_ok=True)

    def fetch(address: str, output: str, _: Any) -> None:
        part = folder / f"{file.path.name}.part"
        _go_on(mirror, file, part)
        shutil.move(part, output)

    known = f"sha256:{file.sha256}" if file.sha256 else None
    pooch.retrieve(file.name, known, file.path.name, folder, downloader=fetch)


def _go_on(mirror: Mirror, file: Wanted, part: Path) -> None:
    """Download what is missing of a file; the server says by its tag whether what is there is of the same one."""
    import requests

    tag = part.with_name(f"{part.name}.tag")
    there = part.stat().st_size if part.is_file() and tag.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": tag.read_text()}
    with requests.get(file.name, headers=headers, stream=True, timeout=30) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            return _go_on(mirror, file, part)
        answer.raise_for_status()
        _refuse_page(mirror, file.name, answer)
        _refuse_host(mirror, file.name, file.name, answer.url, file.sha256)
        goes_on = answer.status_code == requests.codes.partial_content
        if answer.headers.get("ETag"):
            tag.write_text(answer.headers["ETag"])
        _write(answer, part, there if goes_on else 0, file)
    tag.unlink(missing_ok=True)
    return None


def _write(answer: Any, part: Path, there: int, file: Wanted) -> None:
    bar = tqdm(total=file.size, initial=there, desc=file.path.name, unit="B", unit_scale=True)
    with open(part, "ab" if there else "wb") as output, bar:
        for block in answer.iter_content(CHUNK):
            output.write(block)
            bar.update(len(block))
            there += len(block)
    if file.size is not None and there != file.size:
        raise InputError(
            f"{file.name}: {there:,} of {file.size:,} bytes came; repeat the command, which goes on from there"
        )


def _refuse_page(mirror: Mirror, name: str, answer: Any) -> None:
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise InputError(
            f"{name} answers with a web page instead of data; look at it in a browser, or use another --source"
        )


# --- Kaggle -----------------------------------------------------------------------------------------------------------


def _download_kaggle(mirror: Mirror, folder: Path) -> None:
    """kagglehub unpacks the archive itself, below its cache, which is ``folder`` in here."""
    import kagglehub

    before = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(folder)
    try:
        kagglehub.dataset_download(mirror.repository)
    finally:
        if before is None:
            del os.environ["KAGGLEHUB_CACHE"]
        else:
            os.environ["KAGGLEHUB_CACHE"] = before


# --- what goes wrong --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _in_words(mirror: Mirror) -> Iterator[None]:
    """What the clients raise becomes one line; a fault of the disk stays one of the disk."""
    try:
        yield
    except InputError:
        raise
    except ModuleNotFoundError:
        raise
    except Exception as error:  # three clients, each with errors of its own and of the libraries below it
        if isinstance(error, OSError) and error.errno and not _is_of_network(error):
            raise
        raise InputError(f"{mirror.repository} ({mirror.place}): {_reason(error)}") from error


def _is_of_network(error: BaseException) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith(
        ("requests", "httpx")
    )


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"it wants a login or gives no access (HTTP {status}); log in to the place, or use another --source"
    if status == 404:
        return "the file is not there any more (HTTP 404); use another --source"
    if status is not None:
        return f"the server answers with HTTP {status}; try again later, or use another --source"
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"cannot be downloaded ({line.rstrip('.')}); repeat the command to go on"
