"""A report as one HTML file that needs no other: tables, bars with intervals, sample predictions.

Everything that comes from data is text: `tag` escapes each child that is not markup made here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from iml.evaluation.samples import Sample
from iml.evaluation.tables import Row, Score, Table

#: Colours of results; further ones begin anew.
_COLOURS = 6
#: Tables longer than this start folded.
_LONG = 60

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --soft: #5a6472; --line: #d9dee5;
  --panel: #f5f7f9; --up: #1a7f45; --down: #b3332b; --warn: #fff3d6;
  --r0: #2f6fb3; --r1: #c9652a; --r2: #3c8a5a; --r3: #8256b0; --r4: #a83f5b; --r5: #77752b; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e4e8ed; --soft: #9aa5b3;
  --line: #343b45; --panel: #1d2228; --up: #6cce95; --down: #f08a80; --warn: #3b3217;
  --r0: #6ea8e6; --r1: #ee9a63; --r2: #74c494; --r3: #b893e2; --r4: #e5849d; --r5: #c2bf6a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; } .soft { color: var(--soft); }
.warning { background: var(--warn); padding: .5rem .75rem; border-radius: .375rem; }
.legend span { display: inline-block; margin-right: 1rem; }
.legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px; margin-right: .375rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .75rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; }
thead th { font-weight: 600; vertical-align: bottom; } .title { max-width: 9rem; overflow-wrap: anywhere; }
tbody th { font-weight: 500; min-width: 9rem; max-width: 24rem; overflow-wrap: anywhere; }
.score { white-space: nowrap; font-variant-numeric: tabular-nums; }
.score small { display: block; color: var(--soft); font-size: .78rem; }
.up, .down, .same { font-size: .8rem; margin-left: .375rem; }
.up { color: var(--up); } .down { color: var(--down); }
.bars { display: grid; grid-template-columns: minmax(6rem, 16rem) minmax(6rem, 1fr) 3rem; column-gap: .75rem;
  align-items: center; max-width: 52rem; font-size: .85rem; margin: .5rem 0 1rem; }
@media (max-width: 36rem) { .bars { grid-template-columns: minmax(4rem, 7.5rem) minmax(5rem, 1fr) 2.5rem; } }
.bars b { grid-column: 1 / -1; font-weight: 600; margin-top: .5rem; }
.bars svg { display: block; width: 100%; height: 18px; overflow: visible; }
.bars .value { text-align: right; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); } .whisker { stroke: var(--ink); stroke-width: 1.5; }
.tick { fill: var(--soft); font-size: 11px; }
details { border: 1px solid var(--line); border-radius: .375rem; margin: .375rem 0; padding: .375rem .75rem; }
summary { cursor: pointer; }
pre { background: var(--panel); border-radius: .375rem; padding: .5rem .75rem; margin: .25rem 0 .75rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .82rem/1.45 ui-monospace, monospace; max-height: 30rem;
  overflow-y: auto; }
""" + "".join(f".r{i} {{ fill: var(--r{i}); background: var(--r{i}); }}\n" for i in range(_COLOURS))


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, *children: str, **attributes: str) -> Markup:
    """An element; children that are not `Markup` are escaped, as are attributes (`class_` for class)."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{told}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Elements and texts one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(child) for child in children))


def document(title: str, *children: str) -> str:
    """A whole page."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing in the page runs or loads anything, whatever the data say.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    return f"{head}{tag('title', title)}<style>{_STYLE}</style></head>{tag('body', *children)}</html>\n"


def legend(titles: Sequence[str]) -> Markup:
    """Which colour is which result."""
    entries = (join([tag("i", class_=_colour(i)), title]) for i, title in enumerate(titles))
    return tag("p", *(tag("span", entry) for entry in entries), class_="legend")


def table(content: Table, titles: Sequence[str]) -> Markup:
    """A table of scores; its columns have one column for each result."""
    several = len(titles) > 1
    span = {"rowspan": "2"} if several else {}
    top = [tag("th", label, scope="col", **span) for label in content.labels]
    across = {"colspan": str(len(titles))} if several else {}
    top += [tag("th", column, scope="colgroup" if several else "col", **across) for column in content.columns]
    head = [tag("tr", *top)]
    if several:
        below = (tag("th", title, scope="col", class_="title") for _ in content.columns for title in titles)
        head.append(tag("tr", *below))
    body = (
        tag(
            "tr",
            tag("th", row.name, scope="row"),
            *(tag("td", detail) for detail in row.details),
            *(tag("td", _score(score), class_="score") for scores in row.scores for score in scores),
        )
        for row in content.rows
    )
    made = tag("div", tag("table", tag("thead", *head), tag("tbody", *body)), class_="scroll")
    if len(content.rows) > _LONG:
        return tag("details", tag("summary", f"{len(content.rows):,} rows"), made)
    return made


def plain_table(rows: Mapping[str, Sequence[str]], head: Sequence[str] = ()) -> Markup:
    """A table of texts: by name, one text for each result."""
    heads = [tag("thead", tag("tr", tag("th"), *(tag("th", title, scope="col") for title in head)))]
    body = (
        tag("tr", tag("th", name, scope="row"), *(tag("td", text) for text in texts))
        for name, texts in rows.items()
    )
    return tag("div", tag("table", *(heads if head else ()), tag("tbody", *body)), class_="scroll")


def bars(rows: Sequence[Row], columns: Sequence[str], titles: Sequence[str]) -> Markup:
    """Horizontal bars with intervals, for each row one for each column and result.

    The bars' lengths are per cents of a width that the page gives them, so text keeps its size.
    """
    scores = [score for row in rows for group in row.scores for score in group]
    top = _axis(max((score.high or score.mean or 0.0 for score in scores), default=0.0))
    parts: list[Markup] = []
    for row in rows:
        only = len(row.scores) * len(titles) == 1
        if not only:
            parts.append(tag("b", row.name))
        for column, group in zip(columns, row.scores, strict=True):
            for i, (title, score) in enumerate(zip(titles, group, strict=True)):
                label = " · ".join([column] * (len(columns) > 1) + [title] * (len(titles) > 1))
                parts.append(tag("span", row.name if only else label))
                parts.append(_bar(score, top, i, f"{row.name}, {column}, {title}: {score}"))
                parts.append(tag("span", "–" if score.mean is None else f"{score.mean:.1f}", class_="value"))
    parts.append(tag("span"))
    parts.append(_ticks(top))
    return tag("div", *parts, class_="bars")


def sample(content: Sample) -> Markup:
    """A prompt, its references, and what each result answered."""
    parts = [tag("p", content.told, class_="soft"), tag("span", "prompt"), _pre(content.prompt)]
    for title, answer, told in content.answers:
        parts += [tag("span", f"{title}: {told}" if told else title), _pre(answer)]
    parts += [tag("span", "references"), _pre("\n".join(content.references))]
    if content.candidates:
        parts += [tag("span", "candidates"), _pre("\n".join(content.candidates))]
    return join(parts)


def _pre(text: str) -> Markup:
    # The line break at the very start is dropped, so that one of the text's own is not.
    return tag("pre", Markup("\n"), text, dir="auto")


def _score(score: Score) -> Markup:
    if score.mean is None:
        return join(["–"])
    parts: list[str] = [f"{score.mean:.1f}"]
    if score.difference is not None:
        kind = {"+": "up", "-": "down"}[score.change[0]] if score.change != "+0.0" else "same"
        parts.append(tag("span", score.change, class_=kind))
    if score.low is not None:
        parts.append(tag("small", f"{score.low:.1f}–{score.high:.1f}"))
    return join(parts)


def _axis(value: float) -> int:
    """The end of an axis that begins at 0."""
    return next(end for end in (4, 8, 20, 40, 60, 80, 100) if value <= end or end == 100)


def _bar(score: Score, top: int, number: int, label: str) -> Markup:
    parts = [_line(share, share, 0, 18, "grid") for share in (0, 25, 50, 75, 100)]
    if score.mean is not None:
        width = f"{100 * score.mean / top:.3f}%"
        parts.append(tag("rect", y="3", width=width, height="12", rx="2", class_=_colour(number)))
    if score.low is not None and not math.isclose(score.low, score.high):
        low, high = 100 * score.low / top, 100 * score.high / top
        parts += [_line(low, high, 9, 9), _line(low, low, 6, 12), _line(high, high, 6, 12)]
    return tag("svg", *parts, role="img", aria_label=label)


def _line(x1: float, x2: float, y1: int, y2: int, kind: str = "whisker") -> Markup:
    return tag("line", x1=f"{x1:.3f}%", x2=f"{x2:.3f}%", y1=str(y1), y2=str(y2), class_=kind)


def _ticks(top: int) -> Markup:
    anchors = {0: "start", 100: "end"}
    texts = (
        tag("text", f"{top * share // 100}", x=f"{share}%", y="12", text_anchor=anchors.get(share, "middle"),
            class_="tick")
        for share in (0, 25, 50, 75, 100)
    )  # fmt: skip
    return tag("svg", *texts, aria_hidden="true")


def _colour(number: int) -> str:
    return f"r{number % _COLOURS}"
