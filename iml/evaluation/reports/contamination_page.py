"""The report of the contamination pass as one HTML file; all text out of data is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from iml.bench.contamination_decisions import Decision
from iml.bench.levels import LEVELS
from iml.evaluation.reports.page import document, plain_table
from iml.markup import Markup, join, tag

_NO_DECISION = Decision("", "")


def page(result: Mapping[str, Any], decisions: Mapping[tuple[str, str], Decision]) -> str:
    """The page of what contamination.json holds, with what was decided about each pair."""
    settings, evaluation = result["settings"], result["evaluation"]
    n, threshold = settings["ngram"], f"{100 * settings['threshold']:g} %"
    facts = {
        "split scheme": [settings["split_scheme"]],
        "training side": [f"{result['training']['tasks']:,} tasks, {result['training']['rows']:,} rows"],
        "evaluation side": [f"{evaluation['tasks']:,} tasks, {evaluation['examples']:,} examples"],
        f"examples without {n} words of their own": [f"{evaluation['without_own_ngrams']:,}"],
        "speed": [f"{result['rows_per_second']:,.0f} training rows/s"],
    }
    parts = [
        tag("h1", f"Common {n}-grams of training and evaluation tasks"),
        plain_table(facts),
        tag(
            "p",
            f"Listed are pairs of which more than {threshold} of the evaluation examples share {n} words in "
            "a row, of their own source and target, with the training task. With whole sequences, words of "
            "the instruction and of templates count too.",
            class_="soft",
        ),
    ]
    for level in LEVELS:
        pairs = [pair for pair in result["listed"] if pair["level"] == level]
        if level in settings["levels"]:
            parts.append(tag("h2", f"{level.replace('_', ' ').capitalize()}: {len(pairs):,} pairs"))
            parts += [_pair(pair, decisions) for pair in pairs]
    for name, title in (
        ("below", f"Overlap, but of no more than {threshold} of the examples"),
        ("shared_instructions", "Nothing but instructions or templates in common"),
    ):
        parts.append(tag("h2", f"{title}: {len(result[name]):,} pairs"))
        if result[name]:
            parts.append(tag("details", tag("summary", "the pairs"), _table(result[name])))
    return document(f"Common {n}-grams", *parts)


def _pair(pair: Mapping[str, Any], decisions: Mapping[tuple[str, str], Decision]) -> Markup:
    decision = decisions.get((pair["train"], pair["eval"]), _NO_DECISION)
    head = f"{pair['share']:.1%} of {pair['eval']} in {pair['train']}"
    told = {
        "evaluation examples": [f"{pair['examples']:,} of {pair['of']:,}"],
        "with whole sequences": [f"{pair['whole_share']:.1%}"],
        "training examples": [f"{pair['train_examples']:,}"],
        "categories": [f"{pair['categories']['eval']} / {pair['categories']['train']}"],
        "data sources": [f"{pair['sources']['eval'] or '–'} / {pair['sources']['train'] or '–'}"],
        "decision": [f"{decision.decision} ({decision.reason or 'nobody has looked at it'})"],
    }
    return tag(
        "details", tag("summary", head), plain_table(told), join(map(_excerpt, pair.get("excerpts", ())))
    )


def _excerpt(excerpt: Mapping[str, Any]) -> Markup:
    sides = [excerpt["eval"], excerpt["train"]]
    heads = (
        tag("th", f"{side['split']} {side['uid']}", scope="col", style="overflow-wrap: anywhere")
        for side in sides
    )
    cells = (tag("td", _text(side["text"]), style="width: 50%") for side in sides)
    return tag(
        "div",
        tag("p", f"{excerpt['words']:,} words in a row", class_="soft"),
        tag(
            "table",
            tag("thead", tag("tr", *heads)),
            tag("tbody", tag("tr", *cells)),
            style="width: 100%; table-layout: fixed",
        ),
    )


def _text(text: Iterable[str]) -> Markup:
    before, run, after = text
    return tag("pre", Markup("\n"), before, tag("mark", run), after, dir="auto")


def _table(pairs: Iterable[Mapping[str, Any]]) -> Markup:
    rows = (
        tag(
            "tr",
            tag("td", pair["eval"]),
            tag("td", pair["train"]),
            tag("td", f"{pair['share']:.1%}"),
            tag("td", f"{pair['whole_share']:.1%}"),
        )
        for pair in pairs
    )
    heads = ("evaluation task", "training task", "own text", "whole sequences")
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in heads)))
    return tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll")
