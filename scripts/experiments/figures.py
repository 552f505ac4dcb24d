"""Curves of the study, to see whether training has reached a plateau."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Iterable

from tables import Results


def draw_curves(results: Results, task: str, rows: Iterable[str], file: Path) -> None:
    """Worst-group accuracy on the test split and average accuracy on the validation split against the step, mean over seeds, a line per row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), sharex=True)
    styles = [(colour, dash) for dash in ("-", "--", ":") for colour in pyplot.colormaps["tab10"].colors]
    shown = [row for row in rows if any((t, r) == (task, row) for t, r, _ in results)]
    for row, (colour, dash) in zip(shown, itertools.cycle(styles)):
        curves = [result["curve"] for (t, r, _), result in results.items() if (t, r) == (task, row)]
        share = [point["step"] / curves[0][-1]["step"] for point in curves[0]]
        for axis, key in zip(axes, ("test_worst_group", "val_accuracy")):
            axis.plot(share, [100 * statistics.mean(point[key] for point in points) for points in zip(*curves)], dash, color=colour, label=f"{row} ({len(curves)})")
    for axis, title in zip(axes, ("test, worst group", "validation, average")):
        axis.set(title=title, xlabel="share of the steps", ylabel="accuracy, %")
        axis.grid(alpha=0.3)
    figure.suptitle(f"{task}: mean over seeds (their number)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0, 0.68, 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
