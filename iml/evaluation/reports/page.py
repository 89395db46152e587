"""What reports are made of: one HTML file that needs no other, its tables, and what samples look like.

Everything that comes from data is text: `markup.tag` escapes each child that is not markup made here.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from iml.evaluation.reports.tables import Score, Table
from iml.evaluation.results.samples import Sample
from iml.markup import Markup, join, tag, void

#: Colours of results; further ones begin anew.
COLOURS = 6
#: Tables longer than this start folded.
_LONG = 24
_STATIC = pathlib.Path(__file__).parent / "static"


def document(title: str, *children: str, script: bool = False) -> str:
    """A whole page.

    Args:
      script: with the project's own script; whatever else the data say, nothing runs and nothing is loaded.
    """
    code = _static("report.js") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'" if script else ""
    head = tag(
        "head",
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("title", title),
        tag("style", Markup(style())),
    )
    scripts = [tag("script", Markup(code))] if script else []
    body = tag("body", tag("main", *children, id="main"), *scripts)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def style() -> str:
    """The style sheet of pages and of figures."""
    return _static("report.css")


def contents(headings: Sequence[str]) -> Markup:
    """Links to the headings that `heading` makes."""
    links = (tag("li", tag("a", title, href=f"#{_anchor(title)}")) for title in headings)
    return tag("nav", tag("ul", *links), aria_label="Contents")


def heading(title: str) -> Markup:
    """A heading that `contents` can point to."""
    return tag("h2", title, id=_anchor(title))


def note(text: str) -> Markup:
    """What a table or a figure means."""
    return tag("p", text, class_="soft")


def legend(titles: Sequence[str]) -> Markup:
    """Which colour is which result."""
    entries = (join([tag("i", class_=colour(i)), title]) for i, title in enumerate(titles))
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
            *(tag("td", score_cell(score), class_="score") for scores in row.scores for score in scores),
        )
        for row in content.rows
    )
    return _folded(tag("table", tag("thead", *head), tag("tbody", *body)), len(content.rows))


def grid(
    head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "score", caption: str = ""
) -> Markup:
    """A table of texts whose first column names its rows; cells may be markup."""
    parts = [tag("caption", caption)] if caption else []
    parts.append(tag("thead", tag("tr", *(tag("th", text, scope="col") for text in head))))
    body = (
        tag("tr", tag("th", first, scope="row"), *(tag("td", text, class_=kind or False) for text in rest))
        for first, *rest in rows
    )
    return _folded(tag("table", *parts, tag("tbody", *body)), len(rows))


def plain_table(rows: Mapping[str, Sequence[str]], head: Sequence[str] = ()) -> Markup:
    """A table of texts: by name, one text for each result."""
    heads = [tag("thead", tag("tr", tag("td"), *(tag("th", title, scope="col") for title in head)))]
    body = (
        tag("tr", tag("th", name, scope="row"), *(tag("td", text) for text in texts))
        for name, texts in rows.items()
    )
    return tag("div", tag("table", *(heads if head else ()), tag("tbody", *body)), class_="scroll")


def sample(content: Sample) -> Markup:
    """A prompt, its references, and what each result answered."""
    parts = [tag("p", content.told, class_="soft"), _label("prompt"), pre(content.prompt)]
    for title, answer, told in content.answers:
        parts += [_label(f"{title}: {told}" if told else title), pre(answer)]
    parts += [_label("references"), pre("\n".join(content.references))]
    if content.candidates:
        parts += [_label("candidates"), pre("\n".join(content.candidates))]
    return tag("div", *parts, class_="sample", data_answers=" ".join(content.kinds))


def pre(text: str) -> Markup:
    """Text as it is."""
    # The line break at the very start is dropped, so that one of the text's own is not.
    return tag("pre", Markup("\n"), text, dir="auto", tabindex="0")


def colour(number: int) -> str:
    """The class that fills with a result's colour."""
    return f"r{number % COLOURS}"


def _label(text: str) -> Markup:
    return tag("div", text, class_="label")


def score_cell(score: Score) -> Markup:
    """A score with its difference, below it its interval and that over tasks."""
    if score.mean is None:
        return join(["–"])
    parts: list[str] = [f"{score.mean:.1f}"]
    if score.difference is not None:
        kind = {"+": "up", "-": "down"}[score.change[0]] if score.change != "+0.0" else "same"
        parts.append(tag("span", score.change, class_=kind))
    if score.low is not None:
        parts.append(tag("small", f"{score.low:.1f}–{score.high:.1f}"))
    if score.over_tasks is not None:
        parts.append(tag("small", "tasks {:.1f}–{:.1f}".format(*score.over_tasks)))
    return join(parts)


def _folded(content: Markup, rows: int) -> Markup:
    made = tag("div", content, class_="scroll", tabindex="0")
    return tag("details", tag("summary", f"{rows:,} rows"), made) if rows > _LONG else made


def _anchor(title: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in title.casefold())


@functools.cache
def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
