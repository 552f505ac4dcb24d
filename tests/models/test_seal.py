"""A sealed file is read by torch as any other, and not one of its bytes can change without being noticed."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch

from cim_plugin.errors import InputError
from cim_plugin.models import seal
from cim_plugin.models.encoders import read_checkpoint

STATE = {"weights": torch.arange(40.0).reshape(5, 8), "epoch": 3, "names": ["a", ("b", None)]}


def sealed() -> bytes:
    file = io.BytesIO()
    seal.save(STATE, file)
    return file.getvalue()


def plain() -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


def fault(content: bytes, **options) -> str | None:
    return seal.fault(io.BytesIO(content), **options)


def test_torch_and_zip_programs_read_a_sealed_file():
    loaded = torch.load(io.BytesIO(sealed()), weights_only=True)
    assert torch.equal(loaded["weights"], STATE["weights"]) and loaded["names"] == STATE["names"]
    with zipfile.ZipFile(io.BytesIO(sealed())) as archive:
        assert archive.testzip() is None and archive.comment.startswith(b"cim_plugin sha256 ")
    assert fault(sealed()) is None


def test_every_changed_bit_of_a_sealed_file_is_noticed():
    content = sealed()
    unnoticed = []
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        if fault(bytes(damaged)) is None:
            unnoticed.append(place)
    end = content.rfind(seal.END)  # without it nothing is known of the file, and torch does not read it
    assert set(unnoticed) <= set(range(end, end + 4))
    for place in unnoticed:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(RuntimeError):
            torch.load(io.BytesIO(damaged), weights_only=True)


@pytest.mark.parametrize("left", [0, 10, 500, -1, -30, -100])
def test_a_file_that_is_cut_is_not_read(tmp_path, left):
    path = tmp_path / "state.pth"
    path.write_bytes(sealed()[:left])
    with pytest.raises(InputError, match=f"--resume: {path} is "):
        read_checkpoint(str(path), "--resume")


def test_a_file_without_a_digest_is_held_to_its_zip_checksums():
    content = plain()
    assert fault(content) is None
    place = content.index(STATE["weights"].numpy().tobytes()) + 5
    damaged = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    assert "does not fit its checksum" in fault(damaged)
    assert fault(damaged, ours=False) is None


def test_other_formats_are_left_to_torch():
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=False)
    assert fault(file.getvalue()) is None and fault(b"") is None
