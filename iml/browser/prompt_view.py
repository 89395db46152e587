"""Prompts as HTML: what is learnt stands in a mark, every token in an element of its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby

from iml.browser.instances import Instance, Piece, shorten
from iml.browser.parts import counted
from iml.markup import Markup, join, tag, void

#: Characters of an answer, a candidate or a fact, and answers, that are shown.
_ANSWER, _ANSWERS = 600, 40


def legend(tokens: bool) -> list[Markup]:
    """What the colours mean, and, where there are tokens, the switch that shows their boundaries.

    The switch has to stand before the prompts, with the same parent: the style sheet alone obeys it.
    """
    words = tag(
        "p", "Text ", tag("mark", "marked like this"), " enters the loss; all other text is only read."
    )
    if not tokens:
        told = "Without a vocabulary this is the target's text; with one, the tokens are shown."
        return [words, tag("p", told, class_="soft")]
    return [
        words,
        void("input", type="checkbox", id="boundaries", class_="boundaries"),
        tag("label", "Show token boundaries", for_="boundaries"),
    ]


def instance_section(instance: Instance, most: int) -> Markup:
    """One instance: its prompt, its answers and how it came about.

    Args:
      most: characters of the prompt that are shown.
    """
    title = f"Row {instance.row}" + ("" if instance.draw is None else f", draw {instance.draw:,}")
    facts = dict(instance.prompt.provenance)
    facts.pop("task", None)
    parts = [tag("h4", title), counts(instance.read, instance.learnt, instance.truncated)]
    parts.append(prompt(instance.pieces, most, f"{title}: prompt and target"))
    if instance.candidates:
        parts.append(_answers("Candidates", instance.candidates))
    if instance.references != (instance.prompt.target,):
        parts.append(_answers("References", instance.references))
    if instance.rationale:
        parts.append(_answers("Rationale", (instance.rationale,)))
    parts.append(tag("details", tag("summary", "How this prompt came about"), fact_list(facts)))
    return tag("section", *parts, class_="instance")


def counts(read: int | None, learnt: int | None, truncated: int) -> Markup:
    """Token counts in words; nothing without a vocabulary."""
    if read is None or learnt is None:
        return Markup("")
    told = f"{counted(read + learnt, 'token')}: {read:,} read, {learnt:,} learnt"
    if truncated:
        told += f"; {truncated:,} more cut off the head"
    return tag("p", told, class_="soft")


def prompt(pieces: Sequence[Piece], most: int, label: str) -> Markup:
    """Pieces of a prompt as they follow each other."""
    runs = groupby(shorten(pieces, most), key=lambda piece: piece.learnt)
    parts = []
    for learnt, run in runs:
        texts = join(map(_piece, run))
        parts.append(tag("mark", texts) if learnt else texts)
    # HTML drops the first line break, so that one of the text's own is not.
    return tag("pre", Markup("\n"), *parts, dir="auto", role="group", aria_label=label)


def fact_list(facts: dict) -> Markup:
    """Names and values, the empty ones left out; strings with their spaces and line breaks in sight."""
    pairs = [
        tag("div", tag("dt", str(name).replace("_", " ")), tag("dd", _fact(name, value)))
        for name, value in facts.items()
        if value not in ("", [], (), None)
    ]
    return tag("dl", *pairs, class_="facts")


def _piece(piece: Piece) -> str:
    if piece.kind == "gap":
        return tag("span", f" … {piece.text} … ", class_="gap")
    if piece.kind == "special":
        return tag("i", piece.text, class_="special")
    return _token(piece.text) if piece.tokens else piece.text


@functools.lru_cache(maxsize=1 << 16)
def _token(text: str) -> Markup:
    return tag("i", text)


def _answers(title: str, answers: Sequence[str]) -> Markup:
    items = [tag("li", _cut(answer), dir="auto") for answer in answers[:_ANSWERS]]
    if len(answers) > _ANSWERS:
        items.append(tag("li", f"… {len(answers) - _ANSWERS:,} more", class_="soft"))
    return join([tag("h5", title), tag("ul", *items, class_="answers")])


def _fact(name: str, value) -> str:
    if isinstance(value, (list, tuple)):
        return _cut(", ".join(map(str, value)))
    exact = isinstance(value, str) and name not in ("uid", "template")
    return tag("code", _cut(repr(value))) if exact else _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _ANSWER else f"{text[:_ANSWER]} … ({len(text) - _ANSWER:,} characters more)"
