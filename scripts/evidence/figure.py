"""The evidence on subgroups in one picture: every run, and the differences that were fixed beforehand."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

import cim_plugin
from cim_plugin.errors import InputError

from ..experiments.figures import draw_masks, pyplot_without_screen, save
from .differences import family
from .figures_only import RELEASE, read_table
from .overlap import VALIDATION, open_image
from .plan import Plan, Run
from .rows import ROWS
from .settings import RULE
from .tables import Found, says, worst

DARK, MARKED = "#1f4e79", "#c55a11"


def draw(results: Found, file: Path) -> None:
    """Worst group of the test, chosen without labels of groups: a point per run and a line at the mean of a row; beside
    it the paired differences with their corrected intervals.

    Raises:
        InputError: there is no run to draw.
    """
    found = {name: list(of_row.values()) for name, of_row in worst(results).items() if of_row}
    if not found:
        raise InputError(f"{file} would be empty: no run of these rows is finished")
    compared = family(worst(results))
    pyplot = pyplot_without_screen()
    height = 0.28 * (len(found) + len(compared)) + 1.6
    figure, (rows, pairs) = pyplot.subplots(
        2, 1, figsize=(9, height), layout="constrained", height_ratios=(len(found), len(compared))
    )
    for place, (name, of_row) in enumerate(found.items()):
        colour = MARKED if ROWS[name].uses_groups or ROWS[name].figures_only else DARK
        rows.plot(of_row, [place] * len(of_row), "o", color=colour, alpha=0.6, markersize=4)
        rows.plot([mean(of_row)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    rows.set_yticks(range(len(found)), [says(name) for name in found], fontsize=8)
    rows.set_xlabel("worst group of the test, %; a point per seed", fontsize=8)
    for place, one in enumerate(compared):
        pairs.errorbar(
            [one.mean], [place], xerr=None if one.half is None else [one.half], fmt="o", color=DARK, capsize=3
        )
    pairs.axvline(0, color="black", linewidth=1)
    labels = [f"{ROWS[one.row].says} − {ROWS[one.other].says}" for one in compared]
    pairs.set_yticks(range(len(compared)), labels, fontsize=8)
    pairs.set_xlabel("difference in points, paired over seeds; Holm's intervals", fontsize=8)
    for axis in (rows, pairs):
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(axis="x", labelsize=8)
    save(figure, file)


PER_GROUP = 2  #: images of a group in the picture of masks


@torch.no_grad()
def draw_masks_of(plan: Plan, file: Path) -> None:
    """Validation images, the first of every group, and below them m of every row that has one, of the first seed.

    Raises:
        InputError: no run with a mask has kept its model.
    """
    runs = {name: Run(name, plan.all_seeds[0], rate) for name in plan.rows if (rate := plan.rate(name)) is not None}
    folders = {name: plan.place(run) for name, run in runs.items() if ROWS[name].morphs and plan.is_there(run)}
    if not folders:
        raise InputError(f"{file} would be empty: no run of these rows has a mask and is in {plan.folder}")
    names = _of_every_group(os.path.join(plan.settings.root_dir, RELEASE))
    masks: dict[str, Tensor] = {}
    for name, folder in folders.items():
        model = cim_plugin.load(folder, rule=RULE)
        photographs = [open_image(plan.settings.root_dir, RELEASE, image) for image in names]
        morphed = model.morph(torch.stack([model.transform(photograph) for photograph in photographs]))
        images, masks[says(name)] = morphed.x, morphed.m
    draw_masks(images, masks, f"validation images, seed {plan.all_seeds[0]}: x, and m of every row", file)


def _of_every_group(release: str) -> list[str]:
    """Names of images."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in read_table(release):
        if row["split"] == VALIDATION:
            found.setdefault((row["y"], row["place"]), []).append(row["img_filename"])
    return [name for group in sorted(found) for name in found[group][:PER_GROUP]]
