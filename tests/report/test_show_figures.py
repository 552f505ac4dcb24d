"""Where the digit is: the same as what an image shows once the photograph behind it is taken away, and unknown wherever
that is not certain.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from cim_plugin.data import demo
from cim_plugin.data.digits_on_photos import DIM, digits_on_photos
from cim_plugin.show.figures import environment_digits, release_figures

PHOTOS = torch.tensor(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).double() / 255
SEED = 3


def _reference_digit(image: torch.Tensor, row, look: demo.Look) -> torch.Tensor:
    """From image = ink + (1 - ink)·DIM·photograph, with the photograph cut out anew: (H, W)."""
    height, width = look.height * look.shrink, look.width * look.shrink
    behind = PHOTOS[row.photo, :, row.top : row.top + height, row.left : row.left + width]
    behind = behind.reshape(3, look.height, look.shrink, look.width, look.shrink).mean((2, 4))
    return ((image - DIM * behind) / (1 - DIM * behind)).mean(0)


def stand_in(name: str, folder, seed: int = SEED):
    """A data set as release_figures looks at it, with the labels and splits of a release, and its RELEASE file."""
    table = demo.draw(demo.LOOKS[name], seed)
    (folder / "RELEASE_v1.0.txt").write_bytes(demo._release_text(demo.RELEASES[name], seed))
    labels, splits = torch.tensor(table["label"].to_numpy()), table["split"].to_numpy()
    return SimpleNamespace(
        synthetic=True,
        wilds=SimpleNamespace(dataset_name=name, data_dir=str(folder), y_array=labels, split_array=splits),
    ), table


UNCHANGED = SimpleNamespace(resize=lambda image: image)


@pytest.mark.parametrize("name", ["waterbirds", "celebA"])
def test_the_digit_of_a_release_is_what_remains_without_the_photograph(tmp_path, name):
    data, table = stand_in(name, tmp_path)
    look, part = demo.LOOKS[name], SimpleNamespace(indices=np.array([170, 4, 90]))
    found = release_figures(data, part, UNCHANGED)([2, 0])
    assert found.shape == (2, 1, look.height, look.width)
    for figure, row in zip(found, (90, 170)):
        image = next(itertools.islice(demo.render(table, look), row, None))
        torch.testing.assert_close(
            figure[0].double(), _reference_digit(image.double(), table.iloc[row], look), atol=1e-5, rtol=0
        )


def test_the_digit_is_cropped_and_resized_as_the_image_is(tmp_path):
    data, _ = stand_in("celebA", tmp_path)
    resize = SimpleNamespace(resize=lambda image: image.crop((0, 20, 178, 198)).resize((44, 22)))
    part = SimpleNamespace(indices=np.arange(5))
    whole, small = release_figures(data, part, UNCHANGED)([3]), release_figures(data, part, resize)([3])
    assert small.shape == (1, 1, 22, 44)
    assert 0 <= small.min() and small.max() <= 1
    assert float(small.mean()) == pytest.approx(float(whole[..., 20:198, :].mean()), abs=0.01)


@pytest.mark.parametrize("change", ["not synthetic", "no seed", "another seed", "a label", "another data set"])
def test_nothing_is_claimed_of_anything_else(tmp_path, change):
    data, _ = stand_in("waterbirds", tmp_path)
    part = SimpleNamespace(indices=np.arange(5))
    assert release_figures(data, part, UNCHANGED) is not None
    if change == "not synthetic":
        data.synthetic = False
    elif change == "no seed":
        (tmp_path / "RELEASE_v1.0.txt").write_text("SYNTHETIC: something else")
    elif change == "another seed":
        (tmp_path / "RELEASE_v1.0.txt").write_bytes(demo._release_text(demo.RELEASES["waterbirds"], SEED + 1))
    elif change == "a label":
        data.wilds.y_array[5] = 1 - data.wilds.y_array[5]
    else:
        data.wilds.dataset_name = "camelyon17"
    assert release_figures(data, part, UNCHANGED) is None


def test_the_digits_of_the_domainbed_set_leave_a_photograph_behind():
    """What lies behind a wrong digit would not stay within [0, 1]."""
    environments = digits_on_photos((0.9, 0.8, 0.1), seed=11)
    digits = environment_digits(11, [labels for _, labels, _ in environments])
    for (images, _, _), ink in zip(environments, digits):
        rest = (images - ink) / DIM
        assert (rest >= -1e-5).all()
        assert (rest <= (1 - ink) + 1e-5).all()
        wrong = (images - ink.roll(1, 0)) / DIM
        assert (wrong < -1e-3).any(-1).any(-1).any(-1).float().mean() > 0.9


def test_another_seed_or_label_makes_the_digits_unknown():
    labels = [labels.clone() for _, labels, _ in digits_on_photos((0.9, 0.8, 0.1), seed=11)]
    assert environment_digits(12, labels) is None
    labels[2][7] = 1 - labels[2][7]
    assert environment_digits(11, labels) is None
