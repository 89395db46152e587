"""Calibration: whether a model is right as often as the probabilities of its choices say.

A choice's confidence is the softmax of the candidates' scores, and the expected calibration error is the mean
distance of confidence and accuracy over bins of equal width, weighted by their answers (Guo et al., 2017,
arXiv 1706.04599, equation 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from iml.evaluation.metrics import accuracy
from iml.evaluation.metrics.labels import probabilities
from iml.evaluation.scores.units import Prediction, group

#: Bins of equal width over the confidences from 0 to 1, as in Guo et al.
BINS = 15


def calibrate(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> dict[str, Any]:
    """The expected calibration error and its bins; JSON-able.

    Args:
      confidences: of each choice, from 0 to 1; a bin holds its upper edge and not its lower one.
      right: whether each choice is right.

    Returns:
      ece: from 0 to 100.
      examples: number of choices.
      bins: of those that hold a choice, {"low", "high", "examples", "confidence", "accuracy"}, the last two
        means from 0 to 100.
    """
    chances, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    places = np.clip(np.searchsorted(edges, chances, side="left") - 1, 0, bins - 1)
    sizes = np.bincount(places, minlength=bins)
    held = sizes > 0
    confidence = np.bincount(places, chances, bins)[held] / sizes[held]
    accuracy = np.bincount(places, hits, bins)[held] / sizes[held]
    error = np.abs(confidence - accuracy) @ sizes[held] / max(1, len(chances))
    rows = zip(edges[:-1][held], edges[1:][held], sizes[held], confidence, accuracy, strict=True)
    return {
        "ece": 100.0 * float(error),
        "examples": len(chances),
        "bins": [
            {
                "low": float(low),
                "high": float(high),
                "examples": int(size),
                "confidence": 100.0 * float(mean),
                "accuracy": 100.0 * float(share),
            }
            for low, high, size, mean, share in rows
        ],
    }


def calibration(lines: Sequence[Prediction], scorer: str) -> dict[str, dict[str, Any]]:
    """By shots, the calibration of the ranked answers whose scores are kept and finite."""
    found = {}
    for shots, rows in group(lines, lambda line: line["shots"]).items():
        rows = [line for line in rows if _finite(line.get("scores", {}).get(scorer))]
        # The order of lines must not matter, not even to the last bit.
        choices = sorted(
            (
                float(max(probabilities(line["scores"][scorer]))),
                accuracy(line["prediction"], line["references"]) > 0,
            )
            for line in rows
        )
        if choices:
            found[str(shots)] = calibrate(*zip(*choices, strict=True))
    return found


def _finite(scores: Sequence[float] | None) -> bool:
    return bool(scores) and all(map(math.isfinite, scores))
