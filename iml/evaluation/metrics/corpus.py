"""BLEU and chrF of a corpus, from sacrebleu's statistics of each sentence."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from iml.evaluation.metrics.base import Answer, CorpusMetric

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric


@dataclasses.dataclass(frozen=True)
class SacreBleu(CorpusMetric):
    """A metric of sacrebleu with its defaults; BLEU's tokeniser is 13a, its smoothing "exp".

    All references of an example count together, as the metric's authors define it.
    """

    kind: Literal["bleu", "chrf"]

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray:
        return np.array([self._of_sentence(answer) for answer in answers], np.float64)

    def combine(self, statistics: np.ndarray, weights: np.ndarray) -> np.ndarray:
        scorer, totals = _scorer(self.kind), weights @ statistics
        # Counts are whole for bootstrap's weights; sacrebleu formats them as integers.
        return np.array(
            [scorer._compute_score_from_stats(list(map(int, np.rint(row)))).score for row in totals]
        )

    def _of_sentence(self, answer: Answer) -> list[float]:
        scorer, references = _scorer(self.kind), list(answer.references) or [""]
        return scorer._extract_corpus_statistics(
            [answer.prediction.strip()], [[r.strip()] for r in references]
        )[0]


@functools.cache
def _scorer(kind: str) -> SacreMetric:
    from sacrebleu.metrics import BLEU, CHRF

    # force: whether a text looks tokenised is not for a warning to say.
    return BLEU(force=True) if kind == "bleu" else CHRF()
