"""A table as it is written: for the terminal, for Markdown and for pages alike."""

from typing import NamedTuple

from kscout.report.table import Cell


class Heading(NamedTuple):
    """Of a column: its title, whether it holds words, and whether it is a setting."""

    title: str
    is_text: bool = False
    is_setting: bool = False


class Grid(NamedTuple):
    """Headings, and as many cells in every row."""

    headings: list[Heading]
    rows: list[list[Cell]]


def to_markdown(grid: Grid) -> str:
    """Of every cell the value, then its interval."""
    lines = [[heading.title for heading in grid.headings]]
    lines.append(["---" if heading.is_text else "---:" for heading in grid.headings])
    lines += [[_marked(cell) for cell in row] for row in grid.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _marked(cell: Cell) -> str:
    text = " ".join(filter(None, (cell.text, cell.interval))).replace("|", "\\|")
    return f"**{text}**" if cell.best else text
