"""What is printed for people to read, on a terminal or into a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Characters of a line in a log, at most.
_WIDEST = 1000


def print_table(console: Console, table: Table) -> None:
    """Prints a table with nothing cut off: folded to a terminal's width, in a log as wide as its cells are."""
    from rich.measure import Measurement

    for column in table.columns:
        column.overflow = "fold"
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
        if needed > console.width:
            console.width = needed
    console.print(table)
