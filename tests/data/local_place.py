"""A web server on the loopback that serves a folder as the Hub serves its repositories, as plain files with ranges, and
as Kaggle's programming interface; every path can be given a fault.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from pathlib import Path
from typing import Callable, Iterator
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 39 + "1"


class Place:
    """The server, its files and its faults.

    Args:
        folder: holds hf/<owner>/<name>/<file>, files/<file> and kaggle/<owner>/<name>.zip.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.faults: dict[str, Callable[["Handler"], bool]] = {}  #: end of a path -> called; whether it has answered
        self.asked: list[tuple[str, str, str | None]] = []  #: method, path, range
        place = self
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"place": place}))
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Place]:
    place = Place(folder)
    try:
        yield place
    finally:
        place.server.shutdown()
        place.server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    place: Place
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.place.asked.append((self.command, path, self.headers.get("Range")))
        for end, fault in self.place.faults.items():
            if path.endswith(end) and fault(self):
                return
        if "/v1/" in path:
            return self._kaggle(path)
        file = self._file(path)
        if file is None or not file.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        tag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start and self.headers.get("If-Range", f'"{tag}"') == f'"{tag}"':
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.say(206, content[start:], headers)
        return self.say(200, content, headers)

    def say(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        """An answer, of which a HEAD leaves out the content; ``length`` other than the content's breaks off."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if length is not None:
            self.close_connection = True

    def _file(self, path: str) -> Path | None:
        if path.startswith("/datasets/"):
            owner, name, _, rest = path.removeprefix("/datasets/").split("/", 3)
            revision = next((r for r in ("refs/convert/parquet",) if rest.startswith(r)), rest.split("/")[0])
            return self.place.folder / "hf" / owner / name / rest.removeprefix(f"{revision}/")
        return self.place.folder / path.lstrip("/")

    def _kaggle(self, path: str) -> None:
        if path.endswith("GetDataset"):
            return self.say(200, json.dumps({"currentVersionNumber": 1}).encode(), {"Content-Type": "application/json"})
        return self.say(
            200, next((self.place.folder / "kaggle").glob("*.zip")).read_bytes(), {"Accept-Ranges": "bytes"}
        )
