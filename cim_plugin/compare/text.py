"""A table as text that a terminal of :data:`WIDEST` columns shows: where it would be wider, long names are broken and
what a run costs, which no selection rule changes, has a table of its own.
"""

from __future__ import annotations

from .sheets import Sheet

WIDEST = 100  #: characters of a line
NARROWEST = 28  #: of a column of names that are broken
INDENT = "  "  #: before the second line of a name
GAP = "  "  #: between columns


def table(sheet: Sheet, cells: list[list[str]]) -> str:
    """Header and lines of a sheet, escaped, as lines of text; groups of lines have a line of their own above."""
    skip = int(sheet.grouped)  # the first column is the same within a group
    first = {0, *sheet.breaks} if sheet.grouped else set()
    titles = {number: f"{cells[0][0]} {cells[1 + number][0]}" for number in first if number < len(cells) - 1}
    header, *lines = [line[skip:] for line in cells]
    n_words = sheet.n_words - skip
    if not sheet.n_costs or _width(_columns(header, lines)) <= WIDEST:
        return _drawn(header, lines, n_words, titles)
    kept = len(header) - sheet.n_costs
    costs = {line[0]: [line[0], *line[kept:]] for line in lines}  # the same under every rule
    return "\n\n".join(
        [
            _drawn(header[:kept], [line[:kept] for line in lines], n_words, titles),
            _drawn([header[0], *header[kept:]], list(costs.values()), n_words, {}),
        ]
    )


def _drawn(header: list[str], lines: list[list[str]], n_words: int, titles: dict[int, str]) -> str:
    columns = _columns(header, lines)
    room = max(NARROWEST, WIDEST - _width(columns[1:]) - len(GAP))
    stacks = [[_broken(line[0], room), *([cell] for cell in line[1:])] for line in lines]
    heads = [header[:1], *(_stacked(name, width) for name, width in zip(header[1:], columns[1:]))]
    columns[0] = max(len(part) for name in (heads[0], *(stack[0] for stack in stacks)) for part in name)
    drawn = [*_rows(heads, columns, n_words, bottom=True)]
    drawn.append("-" * max(map(len, drawn)))
    for number, stack in enumerate(stacks):
        if number in titles:
            drawn += [*([""] if number else []), titles[number]]
        drawn += _rows(stack, columns, n_words)
    return "\n".join(drawn)


def _columns(header: list[str], lines: list[list[str]]) -> list[int]:
    """Widths, with names whole and headings broken between their words."""
    found = []
    for number, name in enumerate(header):
        longest = max((len(line[number]) for line in lines), default=0)
        found.append(max(longest, *map(len, name.split() if number else [name])))
    return found


def _width(columns: list[int]) -> int:
    return sum(columns) + len(GAP) * (len(columns) - 1)


def _stacked(heading: str, width: int) -> list[str]:
    """Words of a heading in lines of at most this width, which none of them is longer than."""
    stack: list[str] = []
    for word in heading.split():
        if stack and len(stack[-1]) + 1 + len(word) <= width:
            stack[-1] += f" {word}"
        else:
            stack.append(word)
    return stack


def _broken(name: str, width: int) -> list[str]:
    """A name in lines of about this width, broken after commas only."""
    stack: list[str] = []
    for part in name.split(", "):
        if stack and len(stack[-1]) + 2 + len(part) < width:
            stack[-1] += f", {part}"
        else:
            stack = [*stack[:-1], f"{stack[-1]},", f"{INDENT}{part}"] if stack else [part]
    return stack


def _rows(stacks: list[list[str]], columns: list[int], n_words: int, bottom: bool = False) -> list[str]:
    """Cells of one or more lines beside each other; of unequal ones the first lines, or the last, are level."""
    height = max(map(len, stacks))
    padded = [
        [""] * (height - len(stack)) + stack if bottom else stack + [""] * (height - len(stack)) for stack in stacks
    ]
    return [
        GAP.join(
            cell.ljust(width) if number < n_words else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, columns))
        ).rstrip()
        for line in zip(*padded)
    ]
