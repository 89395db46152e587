"""Bootstrap over clusters of answers: how far a score depends on which examples were asked.

Percentile bootstrap (Efron & Tibshirani, 1993, chapter 13). What is drawn with replacement are clusters: an
example with all its prompts, templates and numbers of shots, since these are not independent. A resample is the
vector of how often each cluster was drawn, which weights the answers; so every metric is resampled alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from iml.evaluation.metrics import Answer, Metric

RESAMPLES = 500
#: Bounds of the 95 % interval.
QUANTILES = (0.025, 0.975)
#: Clusters drawn at a time, all resamples together: 32 MiB.
_BLOCK = 1 << 22


def draws(size: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks float64 [some resamples, size]: how often each of `size` clusters is drawn."""
    block = max(1, _BLOCK // size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def interval(samples: np.ndarray) -> tuple[float | None, float | None]:
    """Bounds of the 95 % interval of resampled scores; None without resamples."""
    if not len(samples):
        return None, None
    low, high = np.quantile(samples, QUANTILES)
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float | None:
    """Two-sided p-value of resampled differences against none: twice the smaller tail, never below 2 / (n + 1)."""
    if not len(differences):
        return None
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2.0 * (1 + tail) / (len(differences) + 1)))


def bootstrap(
    metric: Metric, answers: Sequence[Answer], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, np.ndarray]:
    """A metric of answers, and of resamples of them.

    Args:
      metric: the metric, which says what is drawn together.
      answers: at least one; those with one `uid` are drawn together.

    Returns:
      The score, and float64 [resamples].
    """
    names = [metric.cluster(answer.uid) for answer in answers]
    _, places = np.unique(names, return_inverse=True)
    statistics, size = metric.statistics(answers), int(places.max()) + 1
    value = metric.combine(statistics, np.ones((1, len(answers))))[0]
    rng = np.random.default_rng(seed)
    parts = [metric.combine(statistics, times[:, places]) for times in draws(size, resamples, rng)]
    samples = np.concatenate([np.zeros(0), *parts])
    return float(value), np.where(np.isnan(samples), value, samples)
