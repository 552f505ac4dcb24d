"""Models in a folder and on the Hugging Face Hub, which here is a server on the loopback."""

from __future__ import annotations

import base64
import builtins
import http.server
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import safetensors.torch
import torch
from torch import nn

import cim_plugin
from cim_plugin.errors import InputError

COMMIT = "0" * 39 + "1"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    names = ["landbird", "waterbird"]
    return cim_plugin.build("CIM_VIB", encoder="small_cnn", class_names=names, image_size=(28, 32)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 28, 32, generator=torch.Generator().manual_seed(1))


def same(loaded, model, images) -> bool:
    return torch.equal(loaded(images), model(images)) and loaded.recipe == model.recipe and not loaded.training


def test_a_folder_gives_the_model_back(model, images, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert same(cim_plugin.load(tmp_path / "saved"), model, images)
    assert same(cim_plugin.load(tmp_path / "saved" / "model.safetensors"), model, images)
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["class_names"] == ["landbird", "waterbird"]


def test_the_weights_are_those_that_safetensors_itself_reads(model, tmp_path):
    model.save_pretrained(tmp_path)
    read = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert read.keys() == model.classifier.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in model.classifier.state_dict().items())


def test_an_encoder_of_one_s_own_is_given_again(images, tmp_path):
    def encoder() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    own = cim_plugin.build("CIM", encoder=encoder(), n_classes=2, image_size=(28, 32)).eval()
    own.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a module of yours; give one of the same kind"):
        cim_plugin.load(tmp_path)
    assert same(cim_plugin.load(tmp_path, encoder=encoder()), own, images)
    with pytest.raises(InputError, match="weights of another network"):
        cim_plugin.load(tmp_path, encoder=nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def test_damaged_files_and_files_of_others_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        cim_plugin.load(tmp_path)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(InputError, match="no recipe of cim_plugin"):
        cim_plugin.load(tmp_path)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, file, {"cim_plugin": "[" * 5000})
    with pytest.raises(InputError, match="JSON"):
        cim_plugin.load(tmp_path)


def test_without_safetensors_the_command_that_brings_it_is_said(model, tmp_path, monkeypatch):
    inner = builtins.__import__

    def without(name, *others):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return inner(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="pip install safetensors"):
        model.save_pretrained(tmp_path)


# --- the Hub ----------------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """What is asked of the Hub to make a repository, to write small files into it and to read them."""

    folder: Path

    def log_message(self, *_) -> None:
        pass

    def _say(self, value: bytes | dict, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(200)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        address = f"http://{self.headers['Host']}/somebody/birds"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._say({"files": [{**file, "shouldIgnore": False} for file in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    (self.folder / line["value"]["path"]).write_bytes(content)
            self._say({"commitUrl": f"{address}/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None})
        else:  # of a repository that is to be made, and of text that may be a card
            self._say({"url": address, "errors": [], "warnings": []})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        file = self.folder / path.rpartition("/")[2]
        if "/resolve/" in path and not file.is_file():
            self.send_error(404)
        elif "/resolve/" in path:
            self._say(file.read_bytes(), ETag=f'"{len(file.read_bytes())}"', X_Repo_Commit=COMMIT)
        else:
            self._say({"id": "somebody/birds", "sha": COMMIT, "siblings": []})

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder of a hub's only repository, which the package in this process talks to."""
    import huggingface_hub.constants as constants

    folder = tmp_path / "repository"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Hub,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield folder
    server.shutdown()
    server.server_close()


def test_what_is_pushed_is_pulled(model, images, hub):
    assert model.push_to_hub("somebody/birds", token="hf_x").endswith(f"/somebody/birds/commit/{COMMIT}")
    assert {"model.safetensors", "config.json", "README.md"} <= {file.name for file in hub.iterdir()}
    assert 'cim_plugin.load("hf://somebody/birds")' in (hub / "README.md").read_text()
    assert same(cim_plugin.load("hf://somebody/birds"), model, images)


def test_what_is_not_there_is_said_in_one_line(hub):
    with pytest.raises(InputError, match="of somebody/fish cannot be had from the Hugging Face Hub") as refused:
        cim_plugin.load("hf://somebody/fish")
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="cannot be had"):
        cim_plugin.load("hf://a name that is none")
