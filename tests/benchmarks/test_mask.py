"""What L_con alone makes of m, on a few images."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from PIL import Image

from cim_plugin.errors import InputError
from scripts.benchmarks import mask


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    mask.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def root(tmp_path):
    """Forty training images of two classes, and one of validation."""
    folder, random = tmp_path / "waterbirds_v1.0", np.random.default_rng(0)
    folder.mkdir()
    rows = [(f"{number}.png", number % 2, int(number == 40)) for number in range(41)]
    for name, _, _ in rows:
        Image.fromarray(random.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(folder / name)
    lines = ["img_filename,y,split", *(",".join(map(str, row)) for row in rows)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_row_for_every_rate_start_and_seed(root, capsys):
    assert mask.run(parsed("--root_dir", str(root), "--side", "28", "--steps", "2", "--rates", "0.001")) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:3] for row in rows] == [["0.001", s, n] for s in ("0.5", "0.9") for n in ("0", "1")]
    assert [abs(float(row.split()[3]) - float(row.split()[1])) < 0.1 for row in rows] == [True] * 4


def test_by_torchs_draw_m_is_a_constant_and_by_ours_it_is_not(root):
    images, labels = mask._read(root / "waterbirds_v1.0", 28)
    assert images.shape == (40, 3, 28, 28) and labels.sum() == 20
    inside = []
    for torchs in (True, False):
        torch.manual_seed(0)
        before, _ = mask.train(images, labels, mask.network(0.5, torchs), 1e-3, 1)
        inside.append(before[2])
    assert inside[0] < 1 / 255 < inside[1]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no waterbirds_v1.0/metadata.csv"):
        mask.run(parsed("--root_dir", str(tmp_path)))
