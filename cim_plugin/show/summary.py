"""m in numbers: its mean and spread, how much it differs between groups, and on figure and ground where they are
known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..algorithms.contrastive import gap
from ..progress import progress
from .examples import BATCH, POOL, Example, sample_of_groups
from .opened_run import OpenedRun

PER_GROUP = 250  #: images of every group that the numbers are taken from, at most
PAIRS = 512  #: images of the split that s+ - s- is taken from, at most


@torch.no_grad()
def summarize(learnt: OpenedRun, seed: int, show_progress: bool, per_group: int = PER_GROUP) -> dict[str, Any]:
    """What is said of m, as plain values with the keys that ``--json`` prints.

    Groups weigh as they do in the split, also where not all of their images were looked at. Standard deviations are
    those of the population.

    Args:
        per_group: images of every group that the numbers are taken from, at most.
    """
    rows = sample_of_groups(learnt.groups, per_group, seed)
    columns: list[np.ndarray] = []
    for start in progress(
        range(0, len(rows), BATCH), desc="looking at m", unit="batch", leave=False, show=show_progress
    ):
        part = rows[start : start + BATCH]
        masks = learnt.model.morphing(learnt.read(part)).mask.double()
        planes = masks.flatten(1)
        figures = (
            torch.full((len(part), 2), torch.nan)
            if learnt.figure is None
            else _on_figure_and_ground(masks, learnt.figure(part).double())
        )
        columns.append(
            torch.cat(
                [
                    torch.stack([planes.mean(1), planes.std(1, unbiased=False), planes.amin(1), planes.amax(1)], 1),
                    figures,
                ],
                1,
            ).numpy()
        )
    return _describe(learnt, rows, np.concatenate(columns)) | {"s_pos_minus_s_neg": _gap(learnt, seed)}


def _gap(learnt: OpenedRun, seed: int) -> dict[str, float]:
    """What L_con has to go by: s+ - s- over random batches of the split, with triplets drawn inside them as in
    training.
    """
    contrast, losses, valid = learnt.model.contrast, [], []
    rows = np.random.default_rng(seed).permutation(len(learnt.labels))[:PAIRS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH].tolist()
            of_batch = contrast(
                learnt.model.morphing(learnt.read(part)), learnt.labels[part], learnt.environments[part]
            )
            losses.append(of_batch[0])
            valid.append(of_batch[1])
    mean, std = gap(torch.cat(losses).double(), torch.cat(valid), contrast.reading).tolist()
    return {"pairs": int(torch.cat(valid).sum()), "mean": mean, "std": std}


def _on_figure_and_ground(masks: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
    """The mean of m where the digit is and where it is not, pixels weighted by how much of them is either: (n, 2)."""
    plane = masks.mean(1, keepdim=True)
    return torch.stack(
        [(plane * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)) for weight in (figures, 1 - figures)], 1
    )


def _describe(learnt: OpenedRun, rows: list[int], values: np.ndarray) -> dict[str, Any]:
    mean, inside, low, high, figure, ground = values.T
    group = learnt.groups.numpy()[rows]
    sizes = np.bincount(learnt.groups.numpy())
    weight = sizes[group] / np.bincount(group)[group]
    overall = float(np.average(mean, weights=weight))
    between = float(np.average((mean - overall) ** 2, weights=weight))
    groups = {}
    for number in np.unique(group):
        of_group = group == number
        entry = {
            "images": int(of_group.sum()),
            "images_in_split": int(sizes[number]),
            "mean": float(mean[of_group].mean()),
        }
        entry |= {"std_between_images": float(mean[of_group].std()), "std_inside_image": float(inside[of_group].mean())}
        groups[learnt.group_names[number]] = entry | _ratio(figure[of_group], ground[of_group], np.ones(of_group.sum()))
    return {
        "images": len(rows),
        "mean": overall,
        "std_between_images": between**0.5,
        "std_inside_image": float(np.average(inside, weights=weight)),
        "min": float(low.min()),
        "max": float(high.max()),
        **_ratio(figure, ground, weight),
        "similarity": learnt.model.contrast.similarity.measure,  # that the examples' numbers are
        "groups": groups,
        "between_groups": _between(groups, overall, between, weight, group, learnt.group_names),
    }


def _ratio(figure: np.ndarray, ground: np.ndarray, weight: np.ndarray) -> dict[str, float | None]:
    if np.isnan(figure).any():
        return {"on_figure": None, "on_ground": None, "figure_to_ground": None}
    on_figure, on_ground = (float(np.average(values, weights=weight)) for values in (figure, ground))
    return {
        "on_figure": on_figure,
        "on_ground": on_ground,
        "figure_to_ground": on_figure / on_ground if on_ground else None,
    }


def _between(
    groups: dict[str, dict], overall: float, variance: float, weight: np.ndarray, group: np.ndarray, names: list[str]
) -> dict[str, Any]:
    """The two groups whose means differ most, and the share of the variance of images' means that lies between
    groups.
    """
    means = {name: entry["mean"] for name, entry in groups.items()}
    highest, lowest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    explained = (
        sum(weight[group == names.index(name)].sum() * (value - overall) ** 2 for name, value in means.items())
        / weight.sum()
    )
    share = min(1.0, float(explained / variance)) if variance > 0 else None
    return {
        "highest": highest,
        "lowest": lowest,
        "largest_difference": means[highest] - means[lowest],
        "share_of_variance": share,
    }


def lines(summary: dict[str, Any], unit: str, shown: list[Example]) -> list[str]:
    """The summary as text."""
    said = [
        f"m over {summary['images']:,} images: mean {summary['mean']:.3f}, from {summary['min']:.3f} to "
        f"{summary['max']:.3f}; "
        f"standard deviation {summary['std_between_images']:.3f} between images' means, "
        f"{summary['std_inside_image']:.3f} inside an image"
    ]
    between = summary["between_groups"]
    if len(summary["groups"]) > 1:
        share = (
            ""
            if between["share_of_variance"] is None
            else f"; {100 * between['share_of_variance']:.0f}% of the variance of images' means lies between {unit}s"
        )
        said.append(
            f"between {unit}s: means differ by up to {between['largest_difference']:.3f} ({between['highest']} above "
            f"{between['lowest']}){share}"
        )
    if summary["figure_to_ground"] is not None:
        said.append(
            f"on the digit m is {summary['on_figure']:.3f}, beside it {summary['on_ground']:.3f}: ratio "
            f"{summary['figure_to_ground']:.3f}"
        )
    found = summary["s_pos_minus_s_neg"]
    if found["pairs"]:
        said.append(
            f"s+ - s-, all that L_con goes by, over {found['pairs']} images: mean {found['mean']:.4f} with a standard "
            f"deviation of {found['std']:.4f}"
        )
    pairs = [
        (example.positive.similarity, example.negative.similarity) for example in shown if example.positive is not None
    ]
    if pairs:
        positive, negative = (sum(side) / len(pairs) for side in zip(*pairs))
        said.append(
            f"{summary['similarity']} of psi(x) over the {len(pairs)} images shown: {positive:.3f} with the positive, "
            f"{negative:.3f} with the negative"
        )
    return said


def table(summary: dict[str, Any], unit: str) -> list[list[str]]:
    """The numbers per group, a header first."""
    with_figures = summary["figure_to_ground"] is not None
    rows = [
        [
            unit,
            "images",
            "mean of m",
            "std between",
            "std inside",
            *(("on digit", "beside", "ratio") if with_figures else ()),
        ]
    ]
    for name, entry in summary["groups"].items():
        cells = [
            name,
            f"{entry['images']:,}",
            *(f"{entry[key]:.3f}" for key in ("mean", "std_between_images", "std_inside_image")),
        ]
        rows.append(
            cells
            + ([f"{entry[key]:.3f}" for key in ("on_figure", "on_ground", "figure_to_ground")] if with_figures else [])
        )
    return rows


def notes(learnt: OpenedRun, shown: list[Example]) -> list[str]:
    """What a reader of the picture must know, a sentence or two each."""
    contrast = learnt.model.contrast
    sides = (
        "psi(x+) and psi(x-), as in training (cim_targets=morphed)" if contrast.targets == "morphed" else "x+ and x-"
    )
    said = [
        "before: the class for x itself, fed to the encoder past the morphing, although it was trained on psi(x) only. "
        "after: the class for psi(x).",
        f"Positives and negatives are drawn by the run's own rule (cim_pairs={contrast.pairs}), here from up to "
        f"{POOL:,} images of the split instead of a minibatch. "
        f"Compared by {contrast.similarity.how}, as in L_con: psi(x) with {sides}.",
    ]
    if shown and shown[0].mask.shape[0] > 1:
        said.append("m has one value per channel; its mean over the channels is shown.")
    missing = sorted(set(learnt.groups.tolist()) - {example.group for example in shown})
    if missing:
        said.append(f"Not shown: {len(missing)} of {len(set(learnt.groups.tolist()))} {learnt.unit}s.")
    return said
