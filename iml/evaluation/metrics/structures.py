"""Metrics of answers that name structures: sets of answers, dialogue states, queries (UnifiedSKG)."""

from __future__ import annotations

import re

from iml.evaluation.metrics.base import best

_FLOAT = re.compile(r"[+-][0-9]+\.?[0-9]*|[0-9]*\.?[0-9]*")
#: A slot with such a value is one that was not filled.
_UNFILLED = ("not mentioned", "none")
_QUERY_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|[<>!]=|\w+(?:\.\w+)*|\S")


@best
def denotation(prediction: str, reference: str) -> float:
    """Whether both list the same answers, in any order (UnifiedSKG, `metrics/unified/evaluator.py`).

    Answers are parted by a comma and a space; numbers are compared as floats.
    """
    return 100.0 * (_answers(prediction) == _answers(reference))


@best
def joint_goal(prediction: str, reference: str) -> float:
    """Joint goal accuracy: whether all filled slots of a dialogue state agree (UnifiedSKG, after TRADE).

    A state lists "domain slot value", parted by a comma and a space; what is "none" or "not mentioned" is not
    filled (`metrics/multiwoz/evaluator.py`).
    """
    return 100.0 * (_state(prediction) == _state(reference))


@best
def slot_f1(prediction: str, reference: str) -> float:
    """F1 of the filled slots with their values; of two empty states 100 (UnifiedSKG's "Joint F1")."""
    found, right = _state(prediction), _state(reference)
    if not found or not right:
        return 100.0 * (found == right)
    return 200.0 * len(found & right) / (len(found) + len(right))


@best
def query_match(prediction: str, reference: str) -> float:
    """Whether two queries have the same tokens: white space, case outside quotation marks, the kind of quotation
    marks and a semicolon at the end do not count.

    Stricter than Spider's exact set match, which forgives the order of conditions and all values.
    """
    return 100.0 * (_query(prediction) == _query(reference))


@best
def frame_match(prediction: str, reference: str) -> float:
    """Whether two parses of MTOP have the same intent and the same slots, whatever their words.

    "Template accuracy" of UnifiedSKG (`metrics/mtop/top_metrics.py`, "intent_arg_accuracy"): of nested slots those
    that hold words themselves. What is no parse is wrong.
    """
    frame = _frame(prediction)
    return 100.0 * (frame is not None and frame == _frame(reference))


@best
def logical_form(prediction: str, reference: str) -> float:
    """WikiSQL's logical form accuracy: the same column and aggregate, the same conditions in any order.

    Case does not count (`lib/query.py` of WikiSQL). Columns stand as they are called, as in
    "SELECT COUNT Away team FROM table WHERE Week > 3 AND Home team = richmond".
    """
    return 100.0 * (_form(prediction) == _form(reference))


def _form(text: str) -> tuple[str, frozenset[str]]:
    head, _, conditions = " ".join(text.lower().split()).partition(" where ")
    return head, frozenset(conditions.split(" and "))


def _frame(text: str) -> tuple[str, frozenset[tuple[str, ...]]] | None:
    """The intent and, as paths of labels, what holds words; None for what is no single bracketed parse."""
    path: list[str] = []
    slots: set[tuple[str, ...]] = set()
    intent = None
    for token in text.split():
        if intent is not None and not path:
            return None
        if token.startswith("["):
            path.append(token[1:])
            intent = token[1:] if intent is None else intent
        elif not path:
            return None
        elif token == "]":
            path.pop()
        else:
            slots.add(tuple(path[1:]))
    return None if path or intent is None else (intent, frozenset(slots))


def _answers(text: str) -> list[str]:
    return sorted(_plain_number(part.strip()) for part in text.split(", "))


def _plain_number(text: str) -> str:
    return str(float(text)) if text not in ("", ".") and _FLOAT.fullmatch(text) else text


def _state(text: str) -> frozenset[str]:
    slots = set()
    for part in text.split(", "):
        words = part.split(" ")
        if len(words) < 2:
            continue
        # "hotel book stay 3": the slot is named by two words.
        named = 3 if words[1] == "book" else 2
        slot = "-".join((words[0], " ".join(words[1:named]), " ".join(words[named:])))
        if not any(word in slot for word in _UNFILLED):
            slots.add(slot)
    return frozenset(slots)


def _query(text: str) -> list[str]:
    tokens = _QUERY_TOKEN.findall(text.strip().removesuffix(";"))
    return [f"'{token[1:-1]}'" if token[0] in "'\"" and len(token) > 1 else token.lower() for token in tokens]
