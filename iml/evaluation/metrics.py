"""Metrics of one prediction against its references, from 0 to 100; the best reference counts."""

from __future__ import annotations

import difflib
import functools
import re
import string
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from iml.errors import InputError

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
_CONCLUSION = re.compile(r"\banswer is:?\s*(.*?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE | re.DOTALL)
_OPTION = re.compile(r"\(([A-Z])\)")
_NAMED_OPTION = re.compile(r"\(([A-Za-z])\)|([A-Za-z])(?:[.:)]|$)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")
_UNCOUNTED = re.compile(r"[,\"'`\\]")


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, single spaces; articles stay (Tk-Instruct, `compute_metrics.py`)."""
    return " ".join(_PUNCTUATION.sub("", text.lower()).split())


def accuracy(prediction: str, references: Sequence[str]) -> float:
    """Whether the prediction is a reference, but for white space at its ends."""
    return 100.0 * any(prediction.strip() == reference.strip() for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Whether the normalised prediction equals a normalised reference (Super-NI's rule)."""
    answer = normalize_answer(prediction)
    return 100.0 * any(answer == normalize_answer(reference) for reference in references)


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


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 as google's rouge-score computes it, with the Porter stemmer (Super-NI's rule)."""
    return _rouge("rougeL", prediction, references)


def rouge_1(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-1 F1 as google's rouge-score computes it, with the Porter stemmer."""
    return _rouge("rouge1", prediction, references)


#: By the names that cards use.
METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "accuracy": accuracy,
    "exact_match": exact_match,
    "final_answer": final_answer,
    "rouge_l": rouge_l,
    "rouge_1": rouge_1,
}


def compute(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """A metric of every prediction.

    Raises:
      InputError: there is no such metric.
    """
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(
            f"no metric {name!r}", field="TaskCard.metrics", remedy=f"{hint}Known: {', '.join(METRICS)}"
        )
    return [METRICS[name](*pair) for pair in zip(predictions, references, strict=True)]


class _Tokenizer:
    """rouge-score's tokenizer with a memory: texts recur, and stemming is what costs."""

    def __init__(self):
        from rouge_score.tokenizers import DefaultTokenizer

        self.tokenize = functools.lru_cache(maxsize=1 << 16)(DefaultTokenizer(use_stemmer=True).tokenize)


@functools.cache
def _scorer(kind: str) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=_Tokenizer())


def _rouge(kind: str, prediction: str, references: Sequence[str]) -> float:
    scores = (_scorer(kind).score(reference, prediction)[kind].fmeasure for reference in references)
    return 100.0 * max(scores, default=0.0)


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
