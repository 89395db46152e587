"""Checks that the settings of prompts have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iml.errors import InputError


def as_strings(owner: Any, name: str, *, may_be_empty: bool = False) -> None:
    """Makes a setting of a frozen dataclass a tuple of strings.

    Raises:
      InputError: it is one string, or has no entry and must have one.
    """
    field, value = _field(owner, name), getattr(owner, name)
    if isinstance(value, str):
        raise InputError("must be a list, not one string", field=field)
    if not value and not may_be_empty:
        raise InputError("needs at least one entry", field=field, remedy='[""] is none')
    object.__setattr__(owner, name, tuple(value))


def check_share(owner: Any, name: str) -> None:
    """Raises InputError unless a setting is from 0 to 1."""
    value = getattr(owner, name)
    if not 0 <= value <= 1:
        raise InputError(f"must be from 0 to 1, not {value}", field=_field(owner, name))


def check_templates(owner: Any, name: str, known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Raises InputError unless a setting's strings are templates with known names in braces."""
    for template in getattr(owner, name):
        remedy = f"Names: {', '.join(f'{{{key}}}' for key in known)}"
        try:
            template.format(**dict.fromkeys(known, ""))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            problem = f"{template!r} is no template of these names ({error})"
            raise InputError(problem, field=_field(owner, name), remedy=remedy) from error
        for key in needed:
            if f"{{{key}}}" not in template:
                raise InputError(f"{template!r} lacks {{{key}}}", field=_field(owner, name), remedy=remedy)


def check_known(owner: Any, name: str, known: Sequence[str]) -> None:
    """Raises InputError for an entry of a setting that is not one of those known."""
    for value in getattr(owner, name):
        if value not in known:
            raise InputError(
                f"{value!r} is unknown", field=_field(owner, name), remedy=f"Known: {', '.join(known)}"
            )


def _field(owner: Any, name: str) -> str:
    return f"{type(owner).__name__}.{name}"
