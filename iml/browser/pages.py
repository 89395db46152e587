"""The browser's pages. Whatever comes from data is text: nothing here makes markup, a link or a style of it.

A page depends on the site and on what a reader chose, not on who asks: the server and the export give the
same. Links are relative, so that the export works from any folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from urllib.parse import quote

from iml.bench.categories import with_broader
from iml.bench.levels import LEVELS
from iml.browser import prompt_view
from iml.browser.catalogue import Catalogue, Task
from iml.browser.instances import Instance
from iml.browser.packed import PackedRow
from iml.browser.packed_view import packed_section
from iml.browser.parts import (
    WITH_SCRIPT,
    categories_url,
    counted,
    document,
    field,
    link,
    select,
    table,
    table_row,
    task_url,
    tasks_url,
    told,
    web_link,
)
from iml.markup import Markup, tag, void

_SEARCH_HINT = "name, category, data set or words of the definition"


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A task's instances under one format.

    Attributes:
      title: what they are.
      instances: the instances.
      note: what is wrong with the task's files, "" if nothing is.
    """

    title: str
    instances: Sequence[Instance]
    note: str = ""


def overview_page(catalogue: Catalogue) -> str:
    """Families, levels under every split scheme, and what preparation left out."""
    tasks = list(catalogue.tasks.values())
    scheme = catalogue.first_scheme
    families = [
        table_row(
            link(tasks_url("", family=name), name),
            len(group),
            len({task.card.category for task in group}),
            sum(task.examples for task in group),
            sum(task.rows for task in group),
            *catalogue.levels(scheme, group).values(),
        )
        for name, group in catalogue.families.items()
    ]
    families.append(
        table_row(
            "all",
            len(tasks),
            len(catalogue.categories),
            sum(task.examples for task in tasks),
            sum(task.rows for task in tasks),
            *catalogue.levels(scheme, tasks).values(),
        )
    )
    schemes = [
        table_row(
            link(categories_url("", name), name),
            *(
                link(tasks_url("", scheme=name, level=level), f"{count:,}")
                for level, count in catalogue.levels(name, tasks).items()
            ),
        )
        for name in catalogue.schemes
    ]
    head = ("tasks", "categories", "examples", "rows", *map(told, LEVELS))
    told_tasks, told_categories = (
        counted(len(tasks), "task"),
        counted(len(catalogue.categories), "category", "categories"),
    )
    parts = [
        tag("h1", "Tasks of the example store"),
        tag("p", f"{told_tasks} in {told_categories}, as prepared in ",
            tag("code", str(catalogue.store.path)), class_="soft"),
        _search_form(""),
        tag("h2", "Families"),
        table("Tasks by family", ("family", *head), families),
        tag("p", f"Levels under the split scheme {scheme}. A row is one rendering of an example.",
            class_="soft"),
        tag("h2", "Levels"),
        table("Tasks by level under each split scheme", ("split scheme", *map(told, LEVELS)), schemes),
    ]  # fmt: skip
    if catalogue.store.failures:
        left_out = [table_row(name, reason) for name, reason in catalogue.store.failures.items()]
        parts += [
            tag("h2", "Left out"),
            tag("p", "Preparation could not read these."),
            table("Tasks left out by preparation", ("task", "reason"), left_out),
        ]
    return document("Overview", "", "overview", parts, catalogue.first_scheme)


def categories_page(catalogue: Catalogue, scheme: str) -> str:
    """Every category with its tasks, families and levels under a split scheme."""
    others = [
        tag("li", tag("a", name, href=f"{quote(name, safe='')}.html",
                      aria_current="page" if name == scheme else False))
        for name in catalogue.schemes
    ]  # fmt: skip
    rows = [
        table_row(
            link(tasks_url("../", category=name, scheme=scheme), name),
            len(group),
            ", ".join(family for family in catalogue.families if any(_of(task, family) for task in group)),
            sum(task.examples for task in group),
            *catalogue.levels(scheme, group).values(),
        )
        for name, group in catalogue.categories.items()
    ]
    parts = [
        tag("h1", "Categories"),
        tag("nav", tag("span", "Split scheme:"), tag("ul", *others), class_="choices",
            aria_label="Split scheme"),
        table(f"Categories under the split scheme {scheme}",
               ("category", "tasks", "families", "examples", *map(told, LEVELS)), rows),
    ]  # fmt: skip
    return document(f"Categories, {scheme}", "../", "categories", parts, catalogue.first_scheme)


def tasks_page(catalogue: Catalogue) -> str:
    """All tasks in one table, which the page's script narrows down."""
    scheme = catalogue.first_scheme
    rows = [
        tag("tr",
            tag("th", link(task_url("", name), name), scope="row"),
            tag("td", task.card.benchmark),
            tag("td", task.card.category),
            tag("td", told(task.levels[scheme])),
            tag("td", f"{task.examples:,}", class_="number"))
        for name, task in catalogue.tasks.items()
    ]  # fmt: skip
    fields = [
        field("search", void("input", type="search", id="q", name="q", autocomplete="off",
                              placeholder=_SEARCH_HINT)),
        field("family", select("family", ["", *catalogue.families])),
        field("category", select("category", ["", *catalogue.categories])),
        field("split scheme", select("scheme", list(catalogue.schemes))),
        field("level", select("level", ["", *LEVELS])),
    ]  # fmt: skip
    head = ("task", "family", "category", "level", "examples")
    parts = [
        tag("h1", "Tasks"),
        tag("form", *fields, class_="fields", id="filter", role="search"),
        tag("noscript", tag("p", "Search and filters need JavaScript; the table holds all tasks.")),
        tag("p", f"{len(rows):,} tasks", id="count", role="status"),
        table("Tasks", head, rows, id="tasks"),
        tag("button", "Show all", type="button", id="more", hidden=True),
        tag("script", catalogue.search_index(), type="application/json", id="index"),
        tag("script", src="tasks.js", defer=True),
    ]
    return document("Tasks", "", "tasks", parts, catalogue.first_scheme, WITH_SCRIPT)


def task_page(
    catalogue: Catalogue, name: str, views: Sequence[View], form: Markup | None, has_tokens: bool, most: int
) -> str:
    """A task's card, and its instances.

    Args:
      views: the instances under one or several formats.
      form: where a reader chooses the format, if that is possible.
      has_tokens: whether the instances are split into tokens.
      most: characters of a prompt that are shown.
    """
    task = catalogue.tasks[name]
    parts = [
        tag("p", link(tasks_url("../", family=task.card.benchmark), task.card.benchmark), " / ",
            link(tasks_url("../", category=task.card.category), task.card.category), class_="soft"),
        tag("h1", name),
        tag("h2", "Card"),
        _card(task),
        tag("div",
            table("Splits", ("split", "examples", "rows", "templates"), [
                table_row(split, info.examples, info.rows, len(info.templates) or "–")
                for split, info in task.splits.items()
            ]),
            table("Levels", ("split scheme", "level", "used for"), [
                table_row(link(categories_url("../", name), name), told(task.levels[name]),
                          ", ".join(scheme.sets(task.card)) or "–")
                for name, scheme in catalogue.schemes.items()
            ]),
            class_="side"),
    ]  # fmt: skip
    templates = sorted({name for info in task.splits.values() for name in info.templates})
    if templates:
        names = tag("ul", *(tag("li", name) for name in templates))
        parts.append(tag("details", tag("summary", counted(len(templates), "template")), names))
    if task.definition:
        title = "Definition" if task.card.instruction_level == "task" else "Beginning of the first row"
        parts += [tag("h2", title), tag("p", task.definition, class_="definition")]
    parts.append(tag("h2", "Instances"))
    if form:
        parts.append(form)
    parts += prompt_view.legend(has_tokens)
    for view in views:
        parts.append(tag("h3", view.title))
        if view.note:
            parts.append(tag("p", view.note, class_="note"))
        parts += [prompt_view.instance_section(instance, most) for instance in view.instances]
    return document(name, "../", "", parts, catalogue.first_scheme)


def packed_page(
    catalogue: Catalogue, rows: Sequence[PackedRow], form: Markup | None, most: int, note: str = ""
) -> str:
    """Packed rows of the training stream.

    Args:
      rows: the rows.
      form: where a reader chooses step and lane, if that is possible.
      most: characters of a document that are shown.
      note: why there are no rows, "" if there are.
    """
    parts = [
        tag("h1", "Packed rows"),
        tag("p", "A row of a training batch holds whole documents side by side. Each counts its positions "
            "from 0 and sees itself alone."),
    ]  # fmt: skip
    if form:
        parts.append(form)
    if note:
        parts.append(tag("p", note, class_="note"))
    if rows:
        parts += prompt_view.legend(tokens=True)
    parts += [packed_section(row, lambda task: link(task_url("", task), task), most) for row in rows]
    return document("Packed rows", "", "packing", parts, catalogue.first_scheme)


def message_page(title: str, text: str) -> str:
    """A page that says what went wrong."""
    parts = [tag("h1", title), tag("p", text), tag("p", link("/index.html", "Overview"))]
    return document(title, "/", "", parts, "")


def _card(task: Task) -> Markup:
    card = task.card
    facts: dict[str, str] = {
        "Family": card.benchmark,
        "Category": ", a kind of ".join(with_broader(card.category)),
        "Instruction": f"by {card.instruction_level}",
        "Data set": card.source,
        "Part of": card.parent,
        "Metrics": ", ".join(card.metrics),
        "Languages": ", ".join(card.languages),
        "Licence": card.licence,
        "Home": web_link(card.url),
    }
    pairs = [tag("div", tag("dt", name), tag("dd", fact)) for name, fact in facts.items() if fact]
    return tag("dl", *pairs, class_="facts")


def _search_form(root: str) -> Markup:
    box = void("input", type="search", id="q", name="q", placeholder=_SEARCH_HINT)
    return tag("form", field("search", box), tag("button", "Search"), class_="fields", method="get",
               action=f"{root}tasks.html", role="search")  # fmt: skip


def _of(task: Task, family: str) -> bool:
    return task.card.benchmark == family
