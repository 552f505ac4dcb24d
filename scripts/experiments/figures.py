"""Pictures of the study: curves, to see whether training has reached a plateau, masks, and differences between rows."""

from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from cim_plugin.errors import InputError

from .tables import Results, interval, values_of

if TYPE_CHECKING:
    from torch import Tensor


def draw_curves(results: Results, task: str, rows: Iterable[str], file: Path) -> None:
    """Worst-group accuracy on the test split and average accuracy on the validation split against the step, mean over
    seeds, a line per row.
    """
    pyplot = pyplot_without_screen()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), sharex=True)
    styles = [(colour, dash) for dash in ("-", "--", ":") for colour in pyplot.colormaps["tab10"].colors]
    shown = [row for row in rows if any((t, r) == (task, row) for t, r, _ in results)]
    for row, (colour, dash) in zip(shown, itertools.cycle(styles)):
        curves = [result["curve"] for (t, r, _), result in results.items() if (t, r) == (task, row)]
        steps = sorted({point["step"] for curve in curves for point in curve})
        for axis, key in zip(axes, ("test_worst_group", "val_accuracy")):
            means = [
                100 * statistics.mean(point[key] for curve in curves for point in curve if point["step"] == step)
                for step in steps
            ]
            axis.plot([step / steps[-1] for step in steps], means, dash, color=colour, label=f"{row} ({len(curves)})")
    for axis, title in zip(axes, ("test, worst group", "validation, average")):
        axis.set(title=title, xlabel="share of the steps", ylabel="accuracy, %")
        axis.grid(alpha=0.3)
    figure.suptitle(f"{task}: mean over seeds (their number)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0, 0.68, 1))
    save(figure, file)


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
