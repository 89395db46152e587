"""HTML and Markdown out of Python, in which everything that is not made here is text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_MARKDOWN_SIGNS = re.compile(r"([\\`*_\[\]<>|#~&$])")

#: Characters that browsers hide, refuse or obey: controls, lone surrogates and overriding directions.
_HIDDEN = (
    {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    | dict.fromkeys([*range(0x7F, 0xA0), *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}")
    | dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\N{REPLACEMENT CHARACTER}")
)


class Markup(str):
    """Text that is HTML already."""


def visible(text: str) -> str:
    """The text with a visible character for each that a browser would hide, refuse or obey."""
    return text if text.isascii() and text.isprintable() else text.translate(_HIDDEN)


def tag(name: str, /, *children: str, **attributes: str | bool) -> Markup:
    """An element; children that are not `Markup` are escaped, as are attributes.

    `class_` stands for class and `aria_label` for aria-label; True is an attribute without a value, False none.
    """
    told = "".join(
        f" {_attribute(key)}" if value is True else f' {_attribute(key)}="{html.escape(visible(value))}"'
        for key, value in attributes.items()
        if value is not False
    )
    return Markup(f"<{name}{told}>{join(children)}</{name}>")


def void(name: str, /, **attributes: str | bool) -> Markup:
    """An element that has no content and no end tag, such as `input`."""
    return Markup(tag(name, **attributes).removesuffix(f"</{name}>"))


def join(children: Iterable[str]) -> Markup:
    """Elements and texts one after the other."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(visible(child), quote=False)
            for child in children
        )
    )


def markdown(text: str) -> str:
    """Text of which Markdown makes nothing, on one line."""
    return _MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
