"""A packed row as HTML: its pictures, and its documents one by one."""

from __future__ import annotations

from collections.abc import Callable

from iml.browser import prompt_view
from iml.browser.packed import COLOURS, PackedRow, Segment, bar_picture, mask_picture
from iml.browser.parts import counted
from iml.markup import Markup, tag


def packed_section(row: PackedRow, link: Callable[[str], Markup], most: int) -> Markup:
    """One row.

    Args:
      link: makes a link of a task's name.
      most: characters of a document that are shown.
    """
    title = f"Step {row.step}, lane {row.lane}"
    told = (
        f"{counted(len(row.segments), 'document')} in {row.used:,} of {row.length:,} positions "
        f"({row.used / row.length:.1%}); {row.learnt:,} learnt ({row.learnt / max(1, row.used):.1%})."
    )
    pictures = tag(
        "div",
        tag(
            "figure",
            bar_picture(row),
            tag(
                "figcaption",
                "Documents of the row, with a strip along the bottom where the loss is taken; below, the "
                "positions, which start from 0 in each.",
            ),
        ),
        tag(
            "figure",
            mask_picture(row),
            tag("figcaption", "Mask: a position (down) sees those before it (across) in its own document."),
        ),
        class_="pictures",
    )
    documents = [_document(number, segment, link, most) for number, segment in enumerate(row.segments, 1)]
    return tag("section", tag("h2", title), tag("p", told), pictures, *documents, class_="packed")


def _document(number: int, segment: Segment, link: Callable[[str], Markup], most: int) -> Markup:
    colour = tag("i", class_=f"swatch c{(number - 1) % COLOURS}")
    summary = tag(
        "summary",
        colour,
        f"{number}. {segment.task}: positions {segment.start:,} to {segment.end - 1:,}, "
        f"{segment.learnt:,} learnt",
    )
    facts = dict(segment.prompt.provenance) | {"draw": segment.draw}
    facts.pop("task", None)
    label = f"Document {number}: prompt and target"
    parts = [
        tag("p", "Task: ", link(segment.task)),
        prompt_view.counts(segment.read, segment.learnt, segment.truncated),
        prompt_view.prompt(segment.pieces, most, label),
        prompt_view.fact_list(facts),
    ]
    return tag("details", summary, *parts)
