"""Metrics by the names that task cards use; `docs/metrics.md` lists them with their sources and peers."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from iml.errors import InputError
from iml.evaluation.metrics import conclusions, entities, lists, queries, structures, texts
from iml.evaluation.metrics.base import Answer, MeanMetric, Metric, NotComputable
from iml.evaluation.metrics.conclusions import final_answer, number_match
from iml.evaluation.metrics.corpus import SacreBleu
from iml.evaluation.metrics.correlations import Correlation
from iml.evaluation.metrics.labels import AucRoc, ConfusionMetric, QuestionMatch
from iml.evaluation.metrics.texts import accuracy, exact_match, normalize_answer, rouge_1, rouge_l

__all__ = [
    "METRICS",
    "Answer",
    "Measured",
    "Metric",
    "NotComputable",
    "accuracy",
    "exact_match",
    "final_answer",
    "find",
    "measure",
    "normalize_answer",
    "number_match",
    "rouge_1",
    "rouge_l",
    "score",
]

#: By the names that cards use.
METRICS: dict[str, Metric] = {
    "accuracy": MeanMetric(texts.accuracy),
    "exact_match": MeanMetric(texts.exact_match),
    "rouge_1": MeanMetric(texts.rouge_1),
    "rouge_2": MeanMetric(texts.rouge_2),
    "rouge_l": MeanMetric(texts.rouge_l),
    "squad_em": MeanMetric(texts.squad_em),
    "squad_f1": MeanMetric(texts.squad_f1),
    "final_answer": MeanMetric(conclusions.final_answer),
    "number_match": MeanMetric(conclusions.number_match),
    "denotation": MeanMetric(structures.denotation),
    "answer_set": MeanMetric(lists.answer_set),
    "answer_f1": MeanMetric(lists.answer_f1),
    "hits_at_1": MeanMetric(lists.hits_at_1),
    "list_em": MeanMetric(lists.list_em),
    "list_f1": MeanMetric(lists.list_f1),
    "joint_goal": MeanMetric(structures.joint_goal),
    "slot_f1": MeanMetric(structures.slot_f1),
    "exact_set_match": queries.ExactSetMatch(),
    "execution": queries.Execution(),
    "query_match": MeanMetric(structures.query_match),
    "frame_match": MeanMetric(structures.frame_match),
    "logical_form": MeanMetric(structures.logical_form),
    "entity_f1": entities.EntityF1(),
    "bleu": SacreBleu("bleu"),
    "chrf": SacreBleu("chrf"),
    "f1": ConfusionMetric("f1"),
    "macro_f1": ConfusionMetric("macro_f1"),
    "balanced_accuracy": ConfusionMetric("balanced_accuracy"),
    "matthews": ConfusionMetric("matthews"),
    "auc_roc": AucRoc(),
    "multirc_em": QuestionMatch(),
    "pearson": Correlation("pearson"),
    "spearman": Correlation("spearman"),
}


def find(name: str) -> Metric:
    """The metric of this name.

    Raises:
      InputError: there is none.
    """
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(
            f"no metric {name!r}", field="TaskCard.metrics", remedy=f"{hint}Known: {', '.join(METRICS)}"
        )
    return METRICS[name]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What metrics find in answers, by their names.

    Attributes:
      values: of each answer on its own, where it has any.
      statistics: of each answer, of metrics that only many answers together have and that read files: these may
        not be there when scores are made.
      missing: why a metric could not be computed.
    """

    values: Mapping[str, Sequence[float]]
    statistics: Mapping[str, Sequence[Sequence[float]]]
    missing: Mapping[str, str]


def measure(names: Sequence[str], answers: Sequence[Answer]) -> Measured:
    """What metrics find in answers, and why some find nothing.

    Args:
      names: of the metrics; the first one, which is aggregated, must be computable.

    Raises:
      InputError: there is no such metric, or the first cannot be computed.
    """
    values, statistics, missing = {}, {}, {}
    for name in names:
        metric = find(name)
        try:
            found = metric.values(answers)
            if found is not None:
                values[name] = found
            elif metric.reads_files:
                statistics[name] = metric.statistics(answers).tolist()
        except NotComputable as error:
            if name == names[0]:
                raise
            missing[name] = " ".join(str(error).split())
    return Measured(values, statistics, missing)


def score(name: str, answers: Sequence[Answer]) -> float:
    """A metric of all answers together; NaN if there are none.

    Raises:
      InputError: there is no such metric, or it does not suit the answers.
    """
    metric = find(name)
    if not answers:
        return float("nan")
    return float(metric.combine(metric.statistics(answers), np.ones((1, len(answers))))[0])
