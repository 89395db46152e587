"""What is printed for people to read."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from iml.console import print_table

NAME = "promptsource.a_task_whose_name_is_longer_than_a_third_of_a_line"


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_of_a_table_is_cut_off(terminal):
    table = Table("task", "category", "share")
    table.add_row(NAME, "Question Answering", "40.0 (-12.3)")
    console = Console(file=io.StringIO(), width=60, force_terminal=terminal, color_system=None)
    print_table(console, table)
    lines = console.file.getvalue().splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert "".join(cell[0] for cell in cells) == NAME
    assert (len(cells) > 1 and max(map(len, lines)) <= 60) if terminal else len(cells) == 1
