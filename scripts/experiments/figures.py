"""The picture of differences between rows, and pictures of masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from cim_plugin.errors import InputError

from .tables import Results, interval, values_of

if TYPE_CHECKING:
    from torch import Tensor


def draw_differences(
    results: Results, tasks: Iterable[str], rows: Iterable[str], against: Iterable[str], rule: str, file: Path
) -> None:
    """The tables' differences in worst-group accuracy with their 95% intervals: a panel per task, a line per row, to
    the first row of ``against`` that the task has.
    """
    panels = []
    for task in tasks:
        other = next((other for other in against if values_of(results, task, other, rule)), None)
        if other is not None:
            of_rows = {
                row: interval(values_of(results, task, row, rule), values_of(results, task, other, rule))
                for row in rows
                if row != other
            }
            panels.append((task, other, {row: found for row, found in of_rows.items() if found is not None}))
    if not panels:
        raise InputError(f"{file} would be empty: no task has results of a row of --against")
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(
        math.ceil(len(panels) / 2),
        2,
        figsize=(13, 0.3 * sum(len(found) + 4 for *_, found in panels[::2]) + 1),
        squeeze=False,
        sharex=True,
    )
    for axis, (task, other, found) in zip(axes.flat, panels):
        means, halves = zip(*found.values())
        axis.errorbar(means, list(found), xerr=halves, fmt="o", capsize=3)
        axis.axvline(0, color="black", linewidth=1)
        axis.set_title(f"{task}: worst group - {other}", fontsize=8, loc="right")
        axis.invert_yaxis()
        axis.tick_params(labelsize=8, labelbottom=True)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    figure.supxlabel("points, paired over seeds, with 95% intervals", fontsize=9)
    figure.tight_layout()
    save(figure, file)


def draw_masks(images: Tensor, masks: Mapping[str, Tensor], title: str, file: Path) -> None:
    """Images in a line, and below it a line of m per row, from black at 0 to white at 1 and above; several channels are
    shown as their mean.

    Args:
        images: (N, C, H, W) in [0, 1]; of two channels, the first two of red, green and blue.
        masks: row -> (N, 1 or C, H, W).
    """
    from torch.nn.functional import pad

    pyplot = pyplot_without_screen()
    lines = {
        "x": pad(images, (0, 0, 0, 0, 0, 3 - images.shape[1])).permute(0, 2, 3, 1),
        **{row: of_row.mean(1) for row, of_row in masks.items()},
    }
    figure, axes = pyplot.subplots(
        len(lines), len(images), figsize=(0.85 * len(images) + 3, 0.9 * len(lines) + 0.4), squeeze=False
    )
    for axes_of_line, (name, pictures) in zip(axes, lines.items()):
        for axis, picture in zip(axes_of_line, pictures):
            axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        axes_of_line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    figure.tight_layout()
    save(figure, file)


def pyplot_without_screen() -> Any:
    """matplotlib's, which needs no screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    pyplot_without_screen().close(figure)
