"""Figures → tables, which stand in a Markdown report as on the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assistant import report
from assistant.evaluate import Comparison

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its title, the headings, the rows, and what headings mean, as (name, meaning)."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    meanings: Sequence[tuple[str, str]] = ()


def markdown(table: Table) -> str:
    """Return the table as Markdown, under a heading, its meanings below."""
    parts = [f"## {report.cell(table.title)}", report.table(table.head, table.rows)]
    return "\n\n".join([*parts, report.legend(*table.meanings)] if table.meanings else parts)


def shown(table: Table) -> "RenderableType":
    """Return the table for the terminal; the first column holds names, the others figures."""
    from rich.console import Group
    from rich.table import Table as Rich

    from assistant.render import plain

    made = Rich(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(table.head):
        made.add_column(plain(heading), justify="right" if place else "left", overflow="fold", min_width=0 if place else 8)
    for row in table.rows:
        made.add_row(*(plain(str(value)) for value in row))
    legend = [plain(f"{name}: {meaning}", "dim") for name, meaning in table.meanings]
    return Group(plain(table.title, "bold"), made, *legend)


def gain(against: Comparison | None, n: int) -> str:
    """Return a gain in points with its 95 % interval, as in "+3.1 (-0.4 to +6.5)"."""
    if against is None:
        return "–"
    low, high = (100 * end for end in against.interval)
    return f"{100 * (against.gained - against.lost) / n:+.1f} ({low:+.1f} to {high:+.1f})"


def p_value(against: Comparison | None) -> str:
    """Return McNemar's p."""
    if against is None:
        return "–"
    return "< 0.0001" if against.p < 1e-4 else f"{against.p:.4f}"
