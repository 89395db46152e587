"""Correlation of numbers in answers with those in references (STS-B)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from iml.evaluation.metrics.base import Answer, CorpusMetric, grouped, ratio

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")


@dataclasses.dataclass(frozen=True)
class Correlation(CorpusMetric):
    """Pearson's or Spearman's correlation, 0 where all numbers are the same.

    A text's number is its first; without one it is 0 (t5 takes -1, which Spearman's does not mind on STS-B's scale
    from 0 to 5).
    """

    kind: Literal["pearson", "spearman"]

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        """[answers, 2]: the answer's number and the first reference's."""
        rows = [(_number(a.prediction), _number((*a.references, "")[0])) for a in answers]
        return np.array(rows, np.float64).reshape(-1, 2)

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        found, right = statistics.T
        if self.kind == "spearman":
            return 100.0 * _pearson(_ranks(found, weights), _ranks(right, weights), weights)
        shape = np.ones((len(weights), 1))
        return 100.0 * _pearson(found * shape, right * shape, weights)


def _number(text: str) -> float:
    found = _NUMBER.search(text)
    return float(found[0]) if found else 0.0


def _ranks(numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[sets, answers]: mid-ranks of the numbers in each weighted set."""
    values, places = np.unique(numbers, return_inverse=True)
    totals = grouped(weights, places, len(values))
    return (np.cumsum(totals, axis=1) - totals / 2.0)[:, places]


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    size = weights.sum(axis=1, keepdims=True)
    x, y = (z - ratio((weights * z).sum(axis=1, keepdims=True), size, 0.0) for z in (x, y))
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    return ratio((weights * x * y).sum(axis=1), np.where(spread > 1e-12, spread, 0.0), 0.0)
