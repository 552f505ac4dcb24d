"""The offline data set: deterministic, disjoint environments and the promised correlation, read off images that carry
their origin.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cim_plugin.data.digits_on_photos import compose, digits_on_photos, load_digits, load_photos

AGREEMENTS = [0.9, 0.8, 0.1]
N_DIGITS, HEIGHT, WIDTH = 1797, 427, 640


@pytest.fixture(scope="module")
def environments():
    return digits_on_photos(AGREEMENTS, seed=0)


def test_the_sources_are_real_and_in_range():
    (digits, classes), photos = load_digits(), load_photos()
    assert (digits.shape, photos.shape) == ((N_DIGITS, 1, 8, 8), (2, 3, HEIGHT, WIDTH))
    assert (digits.dtype, classes.dtype, photos.dtype) == (torch.float32, torch.int64, torch.float32)
    assert sorted(set(classes.tolist())) == list(range(10))
    for images in (digits, photos):
        assert images.amin() == 0 and images.amax() == 1


def test_shapes_types_and_ranges(environments):
    assert sum(len(images) for images, _, _ in environments) == N_DIGITS
    for images, labels, photo in environments:
        assert images.shape == (599, 3, 28, 28) and images.dtype == torch.float32
        assert images.amin() >= 0 and images.amax() <= 1
        for values in (labels, photo):
            assert values.shape == (599,) and values.dtype == torch.int64 and set(values.tolist()) == {0, 1}


def test_the_photograph_agrees_with_the_label_as_often_as_asked(environments):
    for (_, labels, photo), agreement in zip(environments, AGREEMENTS):
        assert (labels == photo).float().mean().item() == pytest.approx(
            agreement, abs=0.05
        )  # three standard errors of 599 images
        assert labels.float().mean().item() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("agreement", [0.0, 1.0])
def test_the_photograph_agrees_always_or_never(agreement):
    ((_, labels, photo),) = digits_on_photos([agreement], seed=0)
    assert ((labels == photo) == bool(agreement)).all()


def test_a_seed_gives_the_same_images_and_another_seed_gives_others(environments):
    again, other = digits_on_photos(AGREEMENTS, seed=0), digits_on_photos(AGREEMENTS, seed=1)
    for first, second, third in zip(environments, again, other):
        assert all(torch.equal(a, b) for a, b in zip(first, second))
        assert not any(torch.equal(a, b) for a, b in zip(first, third))


def test_torchs_own_random_state_is_left_alone():
    state = torch.get_rng_state()
    digits_on_photos(AGREEMENTS, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def _photos_of_coordinates() -> Tensor:
    """Two pictures whose channels are the column, the row and the picture's number, scaled to [0, 1]."""
    column, row = (
        torch.arange(WIDTH).expand(HEIGHT, WIDTH) / WIDTH,
        (torch.arange(HEIGHT) / HEIGHT)[:, None].expand(HEIGHT, WIDTH),
    )
    return torch.stack([torch.stack([column, row, torch.full((HEIGHT, WIDTH), number)]) for number in (0.0, 1.0)])


@pytest.mark.parametrize("seed", range(5))
def test_environments_share_no_digit_and_the_label_is_that_of_the_digit(seed):
    """Digit number i is a plain square of strength i / 1797, on black."""
    classes = torch.arange(N_DIGITS) * 7 % 10
    squares = (torch.arange(N_DIGITS) / N_DIGITS).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    black = torch.zeros(2, 3, HEIGHT, WIDTH)
    seen = []
    for images, labels, _ in digits_on_photos(AGREEMENTS, seed, (squares, classes), black):
        numbers = (images.mean((1, 2, 3)) * N_DIGITS).round().long()
        assert labels.tolist() == [int(classes[number] in (0, 1, 2, 3, 4)) for number in numbers]
        seen += numbers.tolist()
    assert sorted(seen) == list(range(N_DIGITS))


@pytest.mark.parametrize("seed", range(5))
def test_environments_share_no_column_of_a_photograph(seed):
    """The digits are blank and the photographs carry their coordinates."""
    blank = torch.zeros(N_DIGITS, 1, 8, 8), torch.arange(N_DIGITS) % 10
    strips = []
    for images, _, photo in digits_on_photos(AGREEMENTS, seed, blank, _photos_of_coordinates()):
        column, row, number = (images / 0.6).unbind(1)
        assert torch.equal(number.mean((1, 2)).round().long(), photo)
        left, top = (column[:, 0, 0] * WIDTH - 0.5).round(), (row[:, 0, 0] * HEIGHT - 0.5).round()
        torch.testing.assert_close(
            column, ((left[:, None] + 2 * torch.arange(28) + 0.5) / WIDTH)[:, None].expand_as(column), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(
            row, ((top[:, None] + 2 * torch.arange(28) + 0.5) / HEIGHT)[:, :, None].expand_as(row), rtol=0, atol=1e-5
        )
        assert len(left.unique()) > 100 and len(top.unique()) > 200
        strips.append(set(range(int(left.min()), int(left.max()) + 56)))
    assert all(not a & b for i, a in enumerate(strips) for b in strips[:i])
    assert set.union(*strips) <= set(range(WIDTH))


def test_ink_is_white_and_the_photograph_is_dimmed_behind_it():
    digits, behind = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8), torch.full((3, 3, 28, 28), 0.5)
    assert compose(digits, behind).mean((1, 2, 3)).tolist() == pytest.approx([0.3, 0.65, 1.0])
