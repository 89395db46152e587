"""What a metric is: statistics of every answer, and how those of many answers become one score.

A metric never sees answers one by one alone. Many are means of per-answer values; F1 of a class, Matthews'
correlation, BLEU or AUC are not. All give `statistics` of each answer, and `combine` turns the statistics of a
weighted set of answers into a score. Bootstrap resamples are weights, so every metric has an interval.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import numpy as np

from iml.errors import InputError

Value = Callable[[str, Sequence[str]], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One answered prompt, as far as metrics know it.

    Attributes:
      prediction: the answer.
      references: the right answers.
      candidates: what could be chosen, or ().
      scores: of the candidates, log-likelihoods by the scorer that chose, or ().
      uid: of the example, by which MultiRC tells its questions apart.
      metric_data: of the example, JSON: the schema that queries are read by.
      databases: the folder of the files that metrics read, such as databases; "" if there is none.
    """

    prediction: str
    references: Sequence[str]
    candidates: Sequence[str] = ()
    scores: Sequence[float] = ()
    uid: str = ""
    metric_data: str = ""
    databases: str = ""


class NotComputable(InputError):
    """What a metric needs beside the answers is missing; such a metric is reported as missing, never as 0."""


class Metric(Protocol):
    """A metric; scores run from 0 to 100, correlations from -100.

    Attributes:
      reads_files: whether `find_data` has anything to look for.
    """

    reads_files: ClassVar[bool]

    def values(self, answers: Sequence[Answer]) -> list[float] | None:
        """The score of each answer on its own, or None where only many answers have a score.

        Raises:
          NotComputable: what the metric needs beside the answers is missing.
        """

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        """float64 [answers, k]: what `combine` needs to know of each answer."""

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """float64 [sets]: the score of each weighted set of answers, NaN where it is not defined.

        Args:
          statistics: [answers, k], of `statistics`.
          weights: [sets, answers], how often each set holds each answer.
        """

    def cluster(self, uid: str) -> str:
        """What is drawn together with an example: by default the example alone."""

    def find_data(self, metric_data: str, databases: str) -> None:
        """Looks for the files by which an answer with this `metric_data` is judged.

        Raises:
          NotComputable: one is missing.
        """


class _Defaults:
    """What most metrics do: draw examples one by one, and read no files."""

    reads_files: ClassVar[bool] = False

    def cluster(self, uid: str) -> str:
        return uid

    def find_data(self, metric_data: str, databases: str) -> None:
        """Looks for nothing."""


@dataclasses.dataclass(frozen=True)
class MeanMetric(_Defaults):
    """The mean over answers of a function of prediction and references."""

    value: Value

    def values(self, answers: Sequence[Answer]) -> list[float]:
        return [self.value(answer.prediction, answer.references) for answer in answers]

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        return np.array(self.values(answers), np.float64).reshape(-1, 1)

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return ratio(weights @ statistics[:, 0], weights.sum(axis=1))


class CorpusMetric(_Defaults):
    """A metric that only many answers together have."""

    def values(self, answers: Sequence[Answer]) -> list[float] | None:
        return None


def best(value: Callable[[str, str], float]) -> Value:
    """A function of prediction and references from one of two texts: the best reference counts."""

    def of_best(prediction: str, references: Sequence[str]) -> float:
        return max((value(prediction, reference) for reference in references), default=0.0)

    of_best.__doc__ = value.__doc__
    return of_best


def ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Elementwise quotient, `empty` where the denominator is 0."""
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, empty, numerator / safe)


def grouped(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """[sets, count]: sums over the last axis of values [sets, answers] that have the same place."""
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    sums = np.zeros((len(values), count))
    sums[:, places[order][starts]] = np.add.reduceat(values[:, order], starts, axis=1)
    return sums
