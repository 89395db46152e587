"""Metrics of answers that are lists in one line (UnifiedSKG's ComplexWebQuestions and MultiModalQA)."""

from __future__ import annotations

import re
import string

import numpy as np

from iml.evaluation.metrics.base import best

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {
    **{word: number for number, word in enumerate(_UNITS.split())},
    **{word: 10 * number for number, word in enumerate(_TENS.split(), start=2)},
    **{"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9},
}


@best
def answer_set(prediction: str, reference: str) -> float:
    """Whether both name the same answers, parted by a comma and a space, letter by letter.

    Order and repetition do not count (UnifiedSKG, `metrics/compwebq/evaluator.py`).
    """
    return 100.0 * ({*_parted(prediction)} == {*_parted(reference)})


@best
def answer_f1(prediction: str, reference: str) -> float:
    """F1 of the answers named, parted as by `answer_set`; one that is named twice counts once."""
    found, right = {*_parted(prediction)}, {*_parted(reference)}
    return 200.0 * len(found & right) / (len(found) + len(right))


@best
def hits_at_1(prediction: str, reference: str) -> float:
    """Whether the first answer named is a right one; parted as by `answer_set`."""
    return 100.0 * (_parted(prediction)[0] in _parted(reference))


@best
def list_em(prediction: str, reference: str) -> float:
    """Whether both are the same list in any order; entries are parted by "|" and normalised as by `list_f1`."""
    found, right = ([*map(_normal, text.split("|"))] for text in (prediction, reference))
    return 100.0 * ({*found} == {*right} and len(found) == len(right))


@best
def list_f1(prediction: str, reference: str) -> float:
    """F1 of words, of entries parted by "|" that are matched one to one as is best (MultiModalQA, after DROP).

    Case, articles and punctuation do not count, numbers are read as floats, also those that are words. An entry
    without the numbers of the right one has nothing of it. As in both papers' scripts the figure has two digits.
    """
    from scipy.optimize import linear_sum_assignment

    found, right = (
        [{*_normal(part).split()} for part in text.split("|")] for text in (prediction, reference)
    )
    scores = np.array([[_overlap(one, other) for one in found] for other in right])
    matched = scores[linear_sum_assignment(scores, maximize=True)].sum()
    return 100.0 * round(matched / max(len(found), len(right)), 2)


def _parted(text: str) -> list[str]:
    return [part.strip() for part in text.split(", ")]


def _normal(text: str) -> str:
    words = (
        _ARTICLE.sub(" ", _number(_bare(word.lower()))).split() for word in re.split(" |-", text.strip())
    )
    return " ".join(part for parts in words for part in parts)


def _bare(word: str) -> str:
    return word if _is_number(word) else word.translate(_WITHOUT_PUNCTUATION)


def _number(word: str) -> str:
    if _is_number(word):
        return str(float(word))
    return str(float(_NUMBERS[word])) if word in _NUMBERS else word


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _overlap(found: set[str], right: set[str]) -> float:
    """F1 of two bags of words; 0 where the right one has numbers, of which the other has none."""
    numbers = set(filter(_is_number, right))
    if numbers and not numbers & found:
        return 0.0
    return 2.0 * len(found & right) / (len(found) + len(right)) if found or right else 1.0
