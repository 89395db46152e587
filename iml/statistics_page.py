"""The bench's Table 1 as text and as one HTML file, each figure beside the paper's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from etils import epath

from iml.bench.statistics import WORDS, Row, Statistics, paper
from iml.markup import Markup, join, tag

if TYPE_CHECKING:
    from rich.console import Console

#: What a store's folder holds beside its index.
JSON_FILE, HTML_FILE = "statistics.json", "statistics.html"

_FAMILIES = {
    "super_natural_instructions": "Super-NaturalInst.",
    "promptsource": "PromptSource",
    "crossfit": "CrossFit",
    "flan": "FLAN",
    "exmix": "ExMix",
    "t5": "T5",
    "unified_skg": "UnifiedSKG",
    "reasoning": "Reasoning",
    "mmlu": "MMLU",
    "bbh": "BIG-Bench Hard",
    "raft": "RAFT",
    "opt_tasks": "OPT's tasks",
    "zero_shot_cot": "Zero-shot CoT",
    "pretraining": "Pre-training",
    "dialogue": "Dialogue",
}
_COLUMNS = ("clusters", "tasks", "examples", "prompts/task", "length mean", "std")

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --soft: #5a6472; --line: #d9dee5; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e4e8ed; --soft: #9aa5b3; --line: #343b45; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } p { margin: .25rem 0 1rem; max-width: 46rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; } thead th { font-weight: 600; }
tbody th { font-weight: 500; } small { display: block; color: var(--soft); font-size: .8rem; }
.first th, .first td { border-top: 2px solid var(--soft); }
"""


def print_statistics(console: Console, found: Statistics) -> None:
    """Prints the table; below each of the store's rows, the paper's."""
    from rich.table import Table

    table = Table(title=f"the bench; below each row OPT-IML's, lengths in {_unit(found)}", min_width=78)
    table.add_column("benchmark", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column.replace(" ", "\n").replace("/", "\n/"), justify="right", no_wrap=True)
    for name, row, theirs, first in _lines(found):
        if first:
            table.add_section()
        table.add_row(name, *_figures(row))
        if theirs:
            table.add_row("  OPT-IML", *_figures(theirs), style="dim")
    console.print(table)


def write_statistics(store_dir: str | os.PathLike[str], found: Statistics) -> None:
    """Writes the table into a store's folder as JSON and as HTML.

    Raises:
      OSError: the disk is full or not writable.
    """
    folder = epath.Path(store_dir)
    (folder / JSON_FILE).write_text(json.dumps(found.to_json(), indent=1) + "\n")
    (folder / HTML_FILE).write_text(page(found))


def page(found: Statistics) -> str:
    """The table as one HTML file that needs no other."""
    rows = []
    for name, row, theirs, first in _lines(found):
        other = _figures(theirs) if theirs else ("",) * len(_COLUMNS)
        cells = [
            tag("td", figure, tag("small", paper_figure)) if theirs else tag("td", figure)
            for figure, paper_figure in zip(_figures(row), other, strict=True)
        ]
        head = tag("th", name, scope="row")
        rows.append(tag("tr", head, *cells, class_="first") if first else tag("tr", head, *cells))
    head = tag("tr", *(tag("th", column, scope="col") for column in ("benchmark", *_COLUMNS)))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    explained = (
        "Figures of this store; below each, in small print, those of OPT-IML's Table 1 (arXiv 2212.12017). "
        "A family's row is over all splits of its tasks. The sets are those of the split scheme "
        f"{found.scheme}. Lengths are of instantiated prompts, in {_unit(found)}; the paper does not say in what."
    )
    body = [tag("h1", "The bench in figures"), tag("p", explained), tag("div", table, class_="scroll")]
    head = [
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", "The bench in figures"),
        Markup(f"<style>{_STYLE}</style>"),
    ]
    html = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return "<!doctype html>\n" + join([html]) + "\n"


def _lines(found: Statistics) -> Iterator[tuple[str, Row, Row | None, bool]]:
    """Name, row, the paper's row if it has one, and whether a new part of the table begins."""
    families, sets = paper()
    for name, row in found.families.items():
        yield _FAMILIES.get(name, name), row, families.get(name), False
    told: Mapping[str, Row] = sets if found.scheme == "opt_iml" else {}
    for number, (name, row) in enumerate(found.sets.items()):
        yield f"bench: {name}", row, told.get(name), number == 0


def _figures(row: Row) -> tuple[str, ...]:
    return (
        str(row.clusters),
        f"{row.tasks:,}",
        _short(row.examples),
        f"{row.prompts:.1f}",
        "-" if row.mean is None else f"{row.mean:.0f}",
        "-" if row.deviation is None else f"{row.deviation:.0f}",
    )


def _short(count: int) -> str:
    """12400000 as 12.4M, 145000 as 145K, and as it stands what is small."""
    if count >= 1_000_000:
        return f"{count / 1_000_000:.1f}M"
    return f"{count / 1000:.0f}K" if count >= 100_000 else f"{count:,}"


def _unit(found: Statistics) -> str:
    return found.unit if found.unit == WORDS else found.unit.split()[0]
