"""The rows of ``scripts/bench gpu`` as tables."""

from __future__ import annotations

from typing import Any, Iterable

Row = dict[str, Any]


def page(rows: list[Row]) -> str:
    """Markdown."""
    parts = [f"## On a GPU: `scripts/bench gpu`\n\n{rows[0]['machine']}" if rows else "nothing was measured"]
    for section, (title, heads, cells) in TABLES.items():
        of_section = [row for row in rows if row["section"] == section]
        whole = [row for row in of_section if row.keys() - {"section", "name", "machine", "note"}]
        notes = [f"- {row['name']}: {row['note']}" for row in of_section if row not in whole and row.get("note")]
        lines = [line for row in whole for line in cells(row)]
        body = [_line(heads), _line(["---"] * len(heads)), *map(_line, lines)] if lines else []
        parts.append("\n\n".join(filter(None, [f"### {title}", "\n".join(body), "\n".join(notes)])))
    return "\n\n".join(parts) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kernels(row: Row) -> Iterable[list[str]]:
    errors = [
        f"{row[name]:.1e}" for name in ("value_error", "plain_value_error", "gradient_error", "plain_gradient_error")
    ]
    yield [row["name"], *errors, "yes" if row["repeats"] else "**no**"]


def _paired(row: Row) -> Iterable[list[str]]:
    low, high = row["spread"]
    ratio = f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}]"
    target = "" if row["target"] is None else f"{row['target']:g}"
    yield [row["name"], ratio, target, f"{row['milliseconds']:.2f}", f"{row['memory_ratio']:.2f}", row["note"]]


def _profile(row: Row) -> Iterable[list[str]]:
    for operation in row["operations"]:
        yield [f"`{operation['name'][:60]}`", f"{operation['share']:.1%}", str(operation["calls"])]


def _loader(row: Row) -> Iterable[list[str]]:
    for name, rate in row["rates"].items():
        yield [name, f"{rate:.0f}"]


PAIRED = ["target", "ms", "memory", ""]
#: section -> title, heads, what makes lines of a row
TABLES = {
    "kernels": (
        "Largest errors against plain autograd in float64",
        ["case", "values", "plain float32", "gradient, of its largest", "plain float32", "same bits again"],
        _kernels,
    ),
    "triplet": (
        "The triplet, forward and backward: times faster than two calls of pytorch_msssim",
        ["", "times faster", *PAIRED],
        _paired,
    ),
    "step": ("A step of CIM, as a ratio to ERM's", ["", "ratio", *PAIRED], _paired),
    "profile": ("Profile of a step of CIM", ["operation", "share", "calls"], _profile),
    "loader": ("Images per second at 224", ["loader", "images per second"], _loader),
}
