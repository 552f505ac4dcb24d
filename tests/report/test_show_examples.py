"""Images, triplets, predictions and the numbers of m, on a run that is made by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from cim_plugin import catalog, retired
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.algorithms.similarity.colours import colour_embedding
from cim_plugin.algorithms.similarity.ms_ssim import ms_ssim
from cim_plugin.errors import InputError
from cim_plugin.models import from_catalog
from cim_plugin.show import examples, summary
from cim_plugin.show.opened_run import OpenedRun

SIDE = 28
GROUPS = (12, 3, 7)  #: images per group


def learnt(algorithm="CIM", space=None, labels=None, figure=None, **values) -> OpenedRun:
    """A run of 22 images of noise in three groups, with random weights."""
    torch.manual_seed(5)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 6))
    hyperparameters = {name: entry.default for name, entry in catalog.hyperparameters(algorithm).items()} | values
    with retired.allowed():  # as ``show`` does
        model = from_catalog.build(
            algorithm,
            hyperparameters,
            encoder=encoder,
            n_features=6,
            make_head=lambda n_inputs: nn.Linear(n_inputs, 2),
            image_size=(SIDE, SIDE),
            pixel_space=space or PixelSpace.raw(3),
            n_environments=3,
        ).eval()
    images = model.morphing.pixel_space.from_pixels(torch.rand(sum(GROUPS), 3, SIDE, SIDE))
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor(GROUPS))[torch.randperm(sum(GROUPS))]
    labels = torch.arange(sum(GROUPS)) % 2 if labels is None else labels
    names = ["a", "b", "c"]
    facts = dict(
        run="run",
        algorithm=algorithm,
        dataset="noise",
        split="val",
        chosen="rule best, epoch 0",
        synthetic=False,
        unit="group",
    )
    return OpenedRun(
        model=model,
        labels=labels,
        groups=groups,
        environments=groups,
        group_names=names,
        class_names=["no", "yes"],
        read=lambda rows: images[rows],
        figure=figure,
        **facts,
    )


def show(run: OpenedRun, rows, seed=0) -> list[examples.Example]:
    return list(examples.examples(run, rows, seed))


# --- which images ----------------------------------------------------------------------------------------------------


def test_every_group_gives_as_many_images_as_it_can():
    run = learnt()
    rows = examples.choose_rows(run, None, 5, seed=1)
    assert [int(run.groups[row]) for row in rows] == [0] * 5 + [1] * 3 + [2] * 5
    assert len(set(rows)) == len(rows)
    assert rows == examples.choose_rows(run, None, 5, seed=1) != examples.choose_rows(run, None, 5, seed=2)


def test_named_images_come_in_the_order_of_their_groups_and_once():
    run = learnt()
    rows = examples.choose_rows(run, [21, 0, 3, 21], 2, seed=0)
    assert sorted(rows) == [0, 3, 21]
    assert [int(run.groups[row]) for row in rows] == sorted(int(run.groups[row]) for row in rows)


def test_where_there_are_too_many_the_largest_groups_are_shown():
    run = learnt()
    assert {int(run.groups[row]) for row in examples.choose_rows(run, None, 4, seed=0, most=9)} == {0, 2}
    assert len(examples.choose_rows(run, None, 50, seed=0, most=9)) == 9


@pytest.mark.parametrize(
    "images, words", [([22], "images 0 to 21"), ([3, 99], "--images 99"), (list(range(101)), "images 0 to 21")]
)
def test_an_image_that_is_not_there_is_refused(images, words):
    with pytest.raises(InputError, match=words):
        examples.choose_rows(learnt(), images, 2, seed=0)


# --- what is shown of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [PixelSpace.raw(3), PixelSpace.imagenet()], ids=["pixels", "normalised"])
@pytest.mark.parametrize("targets", ["input", "morphed"])
@pytest.mark.parametrize("similarity, measure", [("ms_ssim", "MS-SSIM"), ("colours", "cosine of colours")])
def test_similarities_are_those_of_the_images_shown(space, targets, similarity, measure):
    run = learnt(space=space, cim_targets=targets, cim_similarity=similarity)
    for example in show(run, [4, 9, 17]):
        torch.testing.assert_close(example.psi, (example.mask * example.x).detach(), atol=1e-5, rtol=0)
        for side, same in ((example.positive, True), (example.negative, False)):
            assert (run.labels[side.row] == example.label) == same and side.row != example.row
            raw = run.model.morphing.pixel_space.to_pixels(run.read([side.row]))
            expected = raw if targets == "input" else run.model.morphing(run.read([side.row])).psi
            torch.testing.assert_close(side.image, expected[0].detach(), atol=1e-5, rtol=0)
            if similarity == "colours":
                of_side = run.model.morphing(run.read([side.row]))
                mask = of_side.mask if targets == "morphed" else torch.ones_like(of_side.mask)
                found = (
                    colour_embedding(example.x[None], example.mask[None])[0] @ colour_embedding(of_side.pixels, mask)[0]
                )
            else:
                found = ms_ssim(example.psi[None].double(), side.image[None].double(), scales=2, floor="smooth")
            assert side.similarity == pytest.approx(found.item(), abs=1e-3)
    said = summary.lines(summary.summarize(run, 0, False), "group", show(run, [4, 9, 17]))
    assert any(line.startswith(f"{measure} of psi(x) over the 3 images shown: ") for line in said)
    (note,) = [text for text in summary.notes(run, show(run, [4])) if "as in L_con" in text]
    assert f"Compared by {measure}" in note


@pytest.mark.parametrize("algorithm", ["CIM", "CIM_VIB"])
def test_before_is_the_raw_image_past_the_morphing_and_after_is_psi(algorithm):
    run = learnt(algorithm, space=PixelSpace.imagenet())
    model = run.model

    def _reference_probabilities(images):
        features = model.encoder(images)
        return model.head(model.bottleneck.mean(features) if model.bottleneck else features).softmax(1)

    (example,) = show(run, [6])
    images = run.read([6])
    for prediction, given in ((example.before, images), (example.after, model.morphing(images).images)):
        expected = _reference_probabilities(given)[0]
        assert prediction.label == int(expected.argmax())
        assert prediction.probability == pytest.approx(expected.max().item(), abs=1e-6)
    assert model.morphing is not None  # the run itself is left as it was


def test_pairs_follow_the_runs_own_rule():
    run = learnt(cim_pairs="cross_environment")
    for example in show(run, list(range(12))):
        if example.positive is not None:
            assert run.environments[example.positive.row] != example.group
            assert run.environments[example.negative.row] == example.group


def test_without_a_positive_there_is_no_number():
    labels = torch.ones(sum(GROUPS), dtype=torch.int64)
    labels[8] = 0
    alone, other = show(learnt(labels=labels), [8, 2])
    assert alone.positive is None and alone.negative is None
    assert other.negative.row == 8


def test_the_same_seed_gives_the_same_pairs_and_leaves_the_global_generator_alone():
    run = learnt()
    torch.manual_seed(7)
    expected = torch.rand(())
    torch.manual_seed(7)
    first = [(example.positive.row, example.negative.row) for example in show(run, list(range(10)), seed=3)]
    assert torch.rand(()) == expected
    assert first == [(example.positive.row, example.negative.row) for example in show(run, list(range(10)), seed=3)]


# --- m in numbers -----------------------------------------------------------------------------------------------------


def _reference_masks(run: OpenedRun) -> np.ndarray:
    return run.model.morphing(run.read(list(range(sum(GROUPS))))).mask.detach().double().numpy()


def test_what_l_con_goes_by_against_every_pair_by_hand():
    """Two images of each of two classes in two environments: cross-environment pairs leave no choice."""
    run = learnt(cim_pairs="cross_environment")
    rows = [int(torch.nonzero((run.labels == y) & (run.environments == e))[0]) for y in (0, 1) for e in (0, 1)]
    images = run.read(rows)
    run = run._replace(
        labels=run.labels[rows],
        environments=run.environments[rows],
        groups=run.groups[rows],
        read=lambda of: images[of],
    )
    x = run.model.morphing.pixel_space.to_pixels(images).double()
    psi = run.model.morphing(images).psi.detach().double()
    s_pos, s_neg = ms_ssim(psi, x[[1, 0, 3, 2]], 2, "smooth"), ms_ssim(psi, x[[2, 3, 0, 1]], 2, "smooth")
    found = summary.summarize(run, 0, False)["s_pos_minus_s_neg"]
    assert found["pairs"] == 4
    assert found["mean"] == pytest.approx((s_pos - s_neg).mean().item(), abs=1e-5)
    assert found["std"] == pytest.approx((s_pos - s_neg).std(unbiased=False).item(), abs=1e-5)


def test_the_numbers_of_m_against_those_of_numpy():
    run = learnt()
    masks, groups = _reference_masks(run), run.groups.numpy()
    means = masks.mean((1, 2, 3))
    found = summary.summarize(run, 0, False)
    assert found["images"] == sum(GROUPS)
    assert found["mean"] == pytest.approx(masks.mean())
    assert (found["min"], found["max"]) == pytest.approx((masks.min(), masks.max()))
    assert found["std_between_images"] == pytest.approx(means.std())
    assert found["std_inside_image"] == pytest.approx(masks.std((1, 2, 3)).mean())
    for group, name in enumerate(run.group_names):
        assert found["groups"][name]["mean"] == pytest.approx(means[groups == group].mean())
        assert found["groups"][name]["images"] == GROUPS[group]
    of_groups = [means[groups == group].mean() for group in range(3)]
    between = sum(count * (mean - means.mean()) ** 2 for count, mean in zip(GROUPS, of_groups))
    assert found["between_groups"]["share_of_variance"] == pytest.approx(between / ((means - means.mean()) ** 2).sum())
    assert found["between_groups"]["largest_difference"] == pytest.approx(max(of_groups) - min(of_groups))
    assert found["figure_to_ground"] is None


def test_groups_weigh_as_in_the_split_where_not_all_are_looked_at():
    found = summary.summarize(learnt(), 0, False, per_group=3)
    assert found["images"] == 9
    expected = sum(count * entry["mean"] for count, entry in zip(GROUPS, found["groups"].values())) / sum(GROUPS)
    assert found["mean"] == pytest.approx(expected)


@pytest.mark.parametrize("mask", ["shared", "per_channel"])
def test_m_on_figure_and_ground_against_a_loop_over_pixels(mask):
    strengths = torch.rand(sum(GROUPS), 1, SIDE, SIDE)
    run = learnt(cim_mask=mask, figure=lambda rows: strengths[rows])
    masks, on, beside = _reference_masks(run), [], []
    for plane, ink in zip(masks.mean(1), strengths[:, 0].double().numpy()):
        totals = np.zeros(4)
        for y, x in itertools.product(range(SIDE), range(SIDE)):
            totals += plane[y, x] * ink[y, x], ink[y, x], plane[y, x] * (1 - ink[y, x]), 1 - ink[y, x]
        on.append(totals[0] / totals[1])
        beside.append(totals[2] / totals[3])
    found = summary.summarize(run, 0, False)
    assert (found["on_figure"], found["on_ground"]) == pytest.approx((np.mean(on), np.mean(beside)))
    assert found["figure_to_ground"] == pytest.approx(np.mean(on) / np.mean(beside))


def test_a_constant_m_has_no_share_of_variance():
    run = learnt()
    for weight in run.model.morphing.parameters():
        nn.init.zeros_(weight)
    found = summary.summarize(run, 0, False)
    assert found["mean"] == 0.5 and found["std_between_images"] == 0
    assert found["between_groups"]["share_of_variance"] is None
    assert "0.500" in summary.lines(found, "group", [])[0]


@pytest.mark.parametrize(
    "values, said",
    [
        ({}, "Compared by MS-SSIM with 2 scales, as in L_con: psi(x) with x+ and x-."),
        ({"cim_similarity": "colours"}, "Compared by cosine of colours, as in L_con: psi(x) with x+ and x-."),
        ({"cim_floor": "exact"}, "Compared by MS-SSIM with 2 scales and the exact floor, as in L_con"),
        (
            {"cim_targets": "morphed"},
            "Compared by MS-SSIM with 2 scales, as in L_con: psi(x) with psi(x+) and psi(x-), as in",
        ),
    ],
)
def test_the_notes_say_how_images_are_compared_and_that_an_old_run_has_several_masks(values, said):
    several = "m has one value per channel; its mean over the channels is shown."
    for mask in ("shared", "per_channel"):
        run = learnt(cim_mask=mask, **values)
        notes = summary.notes(run, show(run, [0, 1]))
        assert any(said in note for note in notes), notes
        assert (several in notes) == (mask == "per_channel")
