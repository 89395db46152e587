"""Metrics of one text against its references, from 0 to 100; the best reference counts."""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iml.evaluation.metrics.base import best

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)


def normalize_answer(text: str) -> str:
    """Lower case, no ASCII punctuation, single spaces; articles stay (Tk-Instruct, `compute_metrics.py`)."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def normalize_squad(text: str) -> str:
    """As `normalize_answer`, and without the articles a, an and the (SQuAD's `evaluate-v1.1.py`)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def accuracy(prediction: str, references: Sequence[str]) -> float:
    """Whether the prediction is a reference, but for white space at its ends."""
    return 100.0 * any(prediction.strip() == reference.strip() for reference in references)


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Whether the normalised prediction equals a normalised reference (Super-NI's rule)."""
    answer = normalize_answer(prediction)
    return 100.0 * any(answer == normalize_answer(reference) for reference in references)


@best
def squad_em(prediction: str, reference: str) -> float:
    """Whether both are the same after SQuAD's normalisation."""
    return 100.0 * (normalize_squad(prediction) == normalize_squad(reference))


@best
def squad_f1(prediction: str, reference: str) -> float:
    """F1 of the words in common after SQuAD's normalisation; of two empty texts 100 (`evaluate-v2.0.py`)."""
    found, right = normalize_squad(prediction).split(), normalize_squad(reference).split()
    if not found or not right:
        return 100.0 * (found == right)
    common = sum((Counter(found) & Counter(right)).values())
    return 200.0 * common / (len(found) + len(right))


def rouge_1(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-1 F1 as google's rouge-score computes it, with the Porter stemmer."""
    return _rouge("rouge1", prediction, references)


def rouge_2(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-2 F1 as google's rouge-score computes it, with the Porter stemmer."""
    return _rouge("rouge2", prediction, references)


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 as google's rouge-score computes it, with the Porter stemmer (Super-NI's rule)."""
    return _rouge("rougeL", prediction, references)


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
