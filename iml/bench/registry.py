"""The tasks' cards by name. A card may be a function, which is called when the card is first asked for."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from iml.bench.card import TaskCard
from iml.errors import InputError

_CARDS: dict[str, TaskCard | Callable[[], TaskCard]] = {}


def add_card(card: TaskCard | Callable[[], TaskCard], name: str | None = None) -> None:
    """Registers a task's card, or what makes it once it is needed.

    Args:
      card: the card, or a function without arguments that returns it (it may open the data file).
      name: the task's name; may be left out if `card` is a card.

    Raises:
      InputError: the name is missing, taken, or another than the card's.
    """
    if isinstance(card, TaskCard):
        if name not in (None, card.name):
            raise InputError(f"the card of {name} says that it is {card.name}", field="name")
        name = card.name
    if not name:
        raise InputError("a task whose card is a function needs its name given", field="name")
    if name in _CARDS:
        raise InputError(f"there is already a task {name}", field="name", remedy="Names must be unique")
    _CARDS[name] = card


def card(name: str) -> TaskCard:
    """The card of a task.

    Raises:
      InputError: there is no such task, its card has another name, or whatever making the card raises.
    """
    if name not in _CARDS:
        near = difflib.get_close_matches(name, _CARDS, n=1)
        raise InputError(f"there is no task {name!r}", remedy=f"Did you mean {near[0]}?" if near else None)
    found = _CARDS[name]
    if not isinstance(found, TaskCard):
        found = found()
        if found.name != name:
            raise InputError(f"the card of {name} says that it is {found.name}", field="name")
        _CARDS[name] = found
    return found


def names() -> tuple[str, ...]:
    """All tasks, in the order of their registration."""
    return tuple(_CARDS)


def remove(name: str) -> None:
    """Forgets one task, if it is there."""
    _CARDS.pop(name, None)


def clear() -> None:
    """Forgets all tasks."""
    _CARDS.clear()
