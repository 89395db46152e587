"""Metrics of classification over many answers: F1, macro-F1, balanced accuracy, Matthews, AUC, MultiRC.

An answer's class is its text. The classes are the candidates, or for generated answers the references; an answer
that is no class counts against the right class and for none. Where several references are right, the one that was
answered counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from iml.errors import InputError
from iml.evaluation.metrics.base import Answer, CorpusMetric, grouped, ratio


@dataclasses.dataclass(frozen=True)
class ConfusionMetric(CorpusMetric):
    """A function of the confusion matrix.

    Attributes:
      kind: "macro_f1", the mean of F1 over the classes that occur; "f1", of the positive class, which is the
        second candidate (GLUE's label 1); "balanced_accuracy", mean recall of the classes that occur among
        the right answers; "matthews", correlation of prediction and truth, of any number of classes
        (Gorodkin's R_K); 0 where all of one are the same.
    """

    kind: Literal["macro_f1", "f1", "balanced_accuracy", "matthews"]

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        """[answers, 3]: numbers of the right class and of the answered one, and of what is no class."""
        names = _positive_last(answers) if self.kind == "f1" else _classes(answers)
        pairs = map(_truth_and_answer, answers)
        rows = [(names[right], names.get(found, len(names)), len(names)) for right, found in pairs]
        return np.array(rows, np.float64).reshape(-1, 3)

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        right, found, [count, *_] = statistics.T.astype(int)
        truth, answered = grouped(weights, right, count), grouped(weights, found, count + 1)
        hits = grouped(weights * (right == found), right, count)
        if self.kind == "matthews":
            return 100.0 * _matthews(hits.sum(axis=1), truth, answered)
        if self.kind == "balanced_accuracy":
            return 100.0 * _mean_where(ratio(hits, truth, 0.0), truth > 0)
        present = truth + answered[:, :count]
        scores = ratio(2.0 * hits, present, 0.0)
        return 100.0 * (scores[:, -1] if self.kind == "f1" else _mean_where(scores, present > 0))


@dataclasses.dataclass(frozen=True)
class AucRoc(CorpusMetric):
    """Area under the ROC curve of the candidates' probabilities, the softmax of their scores.

    With more than two classes the mean of one-versus-rest areas over the classes that occur; 50 where no class
    can be told from another because all answers are of one.
    """

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        """[answers, 2 * classes]: the probabilities, then the right class one-hot."""
        names = _classes(answers)
        rows = np.zeros((len(answers), 2, len(names)))
        for row, answer in zip(rows, answers, strict=True):
            if not len(answer.scores):
                raise InputError("AUC needs candidates with scores", field="auc_roc")
            for name, chance in zip(answer.candidates, probabilities(answer.scores), strict=True):
                row[0, names[name.strip()]] += chance
            row[1, names[_truth_and_answer(answer)[0]]] = 1.0
        return rows.reshape(len(answers), -1)

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        chances, truth = np.split(statistics, 2, axis=1)
        # What is equal but for rounding errors is equal, so that two classes have the same area.
        chances = chances.round(12)
        areas = np.stack(
            [_area(chances[:, k], truth[:, k], weights) for k in range(chances.shape[1])], axis=1
        )
        known = ~np.isnan(areas)
        return 100.0 * np.where(known.any(axis=1), _mean_where(np.nan_to_num(areas), known), 0.5)


@dataclasses.dataclass(frozen=True)
class QuestionMatch(CorpusMetric):
    """MultiRC's exact match: the share of questions all of whose answers are judged rightly.

    An example's uid is `<paragraph>-<question>-<answer>`; its question is what stands before the last hyphen.
    Resamples draw paragraphs.
    """

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        """[answers, 2]: number of the question, whether the answer is right."""
        numbers: dict[str, int] = {}
        rows = []
        for answer in answers:
            right, found = _truth_and_answer(answer)
            question = answer.uid.rpartition("-")[0]
            if "-" not in question:
                problem = f"{answer.uid!r} is not of the form paragraph-question-answer"
                raise InputError(problem, field="uid")
            rows.append((numbers.setdefault(question, len(numbers)), float(right == found)))
        return np.array(rows, np.float64).reshape(-1, 2)

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        questions = statistics[:, 0].astype(int)
        sizes = np.bincount(questions)
        right = np.bincount(questions, statistics[:, 1]) == sizes
        # All answers of a question have the same weight.
        times = grouped(weights, questions, len(sizes)) / sizes
        return 100.0 * ratio(times @ right, times.sum(axis=1))

    def cluster(self, uid: str) -> str:
        return uid.rpartition("-")[0].rpartition("-")[0] or uid


def probabilities(scores: Sequence[float]) -> np.ndarray:
    """Softmax of log-likelihoods."""
    values = np.exp(np.asarray(scores, np.float64) - np.max(scores))
    return values / values.sum()


def _truth_and_answer(answer: Answer) -> tuple[str, str]:
    found, right = answer.prediction.strip(), [reference.strip() for reference in answer.references]
    if not right:
        raise InputError("an example without a right answer", field="references")
    return (found if found in right else right[0]), found


def _classes(answers: Sequence[Answer]) -> dict[str, int]:
    """Numbers of the classes by name."""
    names = {_truth_and_answer(answer)[0] for answer in answers}
    names.update(text.strip() for answer in answers for text in answer.candidates)
    return {name: number for number, name in enumerate(sorted(names))}


def _positive_last(answers: Sequence[Answer]) -> dict[str, int]:
    choices = {tuple(text.strip() for text in answer.candidates) for answer in answers}
    if len(choices) != 1 or len(pair := choices.pop()) != 2:
        raise InputError(
            "F1 of the positive class needs the same two candidates everywhere",
            field="f1",
            remedy="macro_f1 takes any number of classes",
        )
    return {pair[0]: 0, pair[1]: 1}


def _mean_where(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    return ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


def _matthews(hits: np.ndarray, truth: np.ndarray, answered: np.ndarray) -> np.ndarray:
    size, classes = truth.sum(axis=1), truth.shape[1]
    covariance = hits * size - (truth * answered[:, :classes]).sum(axis=1)
    spread = (size**2 - (truth**2).sum(axis=1)) * (size**2 - (answered**2).sum(axis=1))
    return ratio(covariance, np.sqrt(spread), 0.0)


def _area(chances: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The chance that a positive stands above a negative, ties counting half; NaN without either."""
    _, places = np.unique(chances, return_inverse=True)
    positive, negative = (grouped(weights * part, places, places.max() + 1) for part in (truth, 1.0 - truth))
    below = np.cumsum(negative, axis=1) - negative / 2.0
    return ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))
