"""What the browser's pages are made of: the frame around them, links, tables and forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode, urlsplit

from iml.bench.levels import LEVELS
from iml.markup import Markup, tag, visible, void

#: Scripts and styles come from files of the site. 'self' need not cover pages on disk, so `file:` stands
#: beside it; pages that are served come with a header that leaves it out.
POLICY = (
    "default-src 'none'; script-src {script}; style-src 'self' file:; "
    "form-action 'self' file:; base-uri 'none'"
)
WITH_SCRIPT, WITHOUT_SCRIPT = "'self' file:", "'none'"


def document(
    title: str, root: str, here: str, parts: Sequence[Markup], scheme: str, script: str = WITHOUT_SCRIPT
) -> str:
    """A whole page.

    Args:
      root: the way from the page's folder up to the site's, "" or "../".
      here: the entry of the menu that the page is, "" for none.
      parts: its content.
      scheme: the split scheme that the menu's categories go by.
      script: the sources of scripts, one of the two constants.
    """
    places = {
        "overview": f"{root}index.html",
        "tasks": f"{root}tasks.html",
        "categories": categories_url(root, scheme) if scheme else "",
        "packing": f"{root}packing.html",
    }
    names = {
        "overview": "Overview",
        "tasks": "Tasks",
        "categories": "Categories",
        "packing": "Packed rows",
    }
    links = [
        tag("li", tag("a", names[key], href=url, aria_current="page" if key == here else False))
        for key, url in places.items()
        if url
    ]
    head = [
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", http_equiv="Content-Security-Policy", content=POLICY.format(script=script)),
        void("meta", name="referrer", content="no-referrer"),
        tag("title", f"{title} · iml"),
        void("link", rel="stylesheet", href=f"{root}style.css"),
    ]
    body = [
        tag("a", "Skip to content", href="#main", class_="skip"),
        tag("header", tag("nav", tag("ul", *links), aria_label="Pages")),
        tag("main", *parts, id="main", tabindex="-1"),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', *body), lang='en')}\n"


def task_url(root: str, name: str) -> str:
    """Where a task's page is, from the folder whose way up is `root`."""
    return f"{root}task/{quote(name, safe='')}.html"


def tasks_url(root: str, **chosen: str) -> str:
    """Where the tasks are that have this family, category, scheme and level."""
    # As the page has them, with which they are compared.
    return f"{root}tasks.html?{urlencode({name: visible(value) for name, value in chosen.items()})}"


def categories_url(root: str, scheme: str) -> str:
    """Where the categories are under a split scheme."""
    return f"{root}categories/{quote(scheme, safe='')}.html"


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun; the plural ends with s unless it is given."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def link(url: str, text: str) -> Markup:
    """A link to an address of this site."""
    return tag("a", text, href=url)


def web_link(url: str) -> str:
    """A link to a page of the web; any other scheme stays text."""
    try:
        address = urlsplit(url)
    except ValueError:
        return url
    if address.scheme not in ("http", "https") or not address.netloc:
        return url
    return tag("a", url, href=url, rel="noopener noreferrer")


def format_form(fields: Sequence[Markup]) -> Markup:
    """A form that asks for the same page under other choices."""
    return tag("form", *fields, tag("button", "Show"), class_="fields", method="get")


def choice(label: str, name: str, options: Mapping[str, str], chosen: str) -> Markup:
    """A field of a form with a few options: texts by value."""
    return field(label, select(name, list(options), options, chosen))


def number(label: str, name: str, value: int, low: int, high: int) -> Markup:
    """A field of a form for a whole number."""
    return field(label, void("input", type="number", id=name, name=name, value=str(value), min=str(low),
                              max=str(high), required=True))  # fmt: skip


def field(label: str, control: Markup) -> Markup:
    """A control with its label."""
    return tag("label", tag("span", label), control)


def select(
    name: str, values: Sequence[str], texts: Mapping[str, str] | None = None, chosen: str = ""
) -> Markup:
    """A control to choose one of some values, the empty one meaning all; `texts` by value say what is shown."""
    options = (
        tag("option", (texts or {}).get(value) or told(value) or "all", value=value,
            selected=value == chosen and bool(texts))
        for value in values
    )  # fmt: skip
    return tag("select", *options, id=name, name=name)


def table(caption: str, head: Sequence[str], rows: Sequence[Markup], **attributes: str) -> Markup:
    """A table that scrolls sideways if it has to."""
    cells = [tag("th", name, scope="col") for name in head]
    made = tag("table", tag("caption", caption), tag("thead", tag("tr", *cells)), tag("tbody", *rows),
               **attributes)  # fmt: skip
    return tag("div", made, class_="scroll", role="region", aria_label=caption, tabindex="0")


def table_row(name: str, *cells: str | int) -> Markup:
    """A row with its heading; whole numbers stand to the right."""
    made = (
        tag("td", f"{cell:,}", class_="number") if isinstance(cell, int) else tag("td", cell)
        for cell in cells
    )
    return tag("tr", tag("th", name, scope="row"), *made)


def told(level: str) -> str:
    """A level's name in words; any other text as it is."""
    return level.replace("_", " ") if level in LEVELS else level
