"""The answer at which a text arrives: BIG-Bench Hard's exact match and GSM8K's number match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from iml.evaluation.metrics.base import best

_CONCLUSION = re.compile(r"\banswer is:?\s*(.*?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(r"\(([A-Z])\)")
_NAMED_OPTION = re.compile(r"\(([A-Za-z])\)|([A-Za-z])(?:[.:)]|$)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")
_UNCOUNTED = re.compile(r"[,\"'`\\]")
#: What stands before the number, the surest first; of several places the last counts.
_STATED = (
    re.compile(r"####\s*\$?\s*(-?[\d,]*\.?\d+)"),
    re.compile(r"\banswer is:?\s*[^\d\n-]{0,20}?(-?[\d,]*\.?\d+)", re.IGNORECASE),
)
_ANY_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def final_answer(prediction: str, references: Sequence[str]) -> float:
    """Whether the answer at which a prediction arrives is a reference, in any case.

    The answer is what follows the first "answer is" up to the end of its sentence, and without these words the
    first line; a reference that is itself a chain of thought counts by its answer. Commas, quotation marks and
    backslashes do not count; other punctuation does, since there are answers of brackets alone. Where a
    reference is a letter in brackets the answer's letter decides, with or without brackets: "(B)", "B.",
    "(B) blue". Where it is a number, the answer's first number decides, after an equals sign if there is one:
    "$1,000", "3 * 6 = 18 days".
    """
    answer = _final_answer(prediction)
    return 100.0 * any(_same_answer(answer, _final_answer(reference)) for reference in references)


@best
def number_match(prediction: str, reference: str) -> float:
    """Whether two texts arrive at the same number (GSM8K).

    A text's number is the last one after "####", else the last one after "answer is", else its last one;
    commas do not count, and 18, 18.0 and $18 are the same.
    """
    found, right = _number(prediction), _number(reference)
    return 100.0 * (found is not None and found == right)


def _number(text: str) -> Decimal | None:
    for pattern in (*_STATED, _ANY_NUMBER):
        found = pattern.findall(text)
        if found:
            return Decimal(found[-1].replace(",", ""))
    return None


def _final_answer(prediction: str) -> str:
    stated = _CONCLUSION.search(prediction)
    return stated[1] if stated else (prediction.strip().splitlines() or [""])[0]


def _same_answer(answer: str, reference: str) -> bool:
    option = _OPTION.fullmatch(reference.strip())
    if option:
        named = _NAMED_OPTION.match(answer.strip())
        return named is not None and (named[1] or named[2]).upper() == option[1]
    number = _NUMBER.fullmatch(_folded(reference))
    if number:
        found = _NUMBER.search(_folded(answer).rpartition("=")[2])
        return found is not None and float(found[0]) == float(number[0])
    return _folded(answer) == _folded(reference)


def _folded(answer: str) -> str:
    return " ".join(_UNCOUNTED.sub("", answer.lower()).split()).removesuffix(".").rstrip()
