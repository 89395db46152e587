"""How far the templates of a task lie apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from iml.evaluation.scores.units import Prediction, Unit, group


def spread(lines: Sequence[Prediction], score: Callable[..., Unit]) -> dict[str, dict[str, float]]:
    """By shots, how far the templates' scores lie apart; only of tasks with several templates."""
    templates = group(lines, lambda line: line.get("template") or "")
    if len(templates) < 2:
        return {}
    found = [score(lines=rows).plain for rows in templates.values()]
    spreads = {}
    for shots in sorted({key for scores in found for key in scores}, key=int):
        scores = [values[shots] for values in found if shots in values]
        spreads[shots] = {
            "templates": len(scores),
            "min": min(scores),
            "max": max(scores),
            "std": float(np.std(scores)),
        }
    return spreads


def robustness(spreads: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """By shots, the mean of tasks' spreads over their templates."""
    found = {}
    for shots in sorted({key for spread in spreads for key in spread}, key=int):
        rows = [spread[shots] for spread in spreads if shots in spread]
        found[shots] = {
            "tasks": len(rows),
            "std": float(np.mean([row["std"] for row in rows])),
            "range": float(np.mean([row["max"] - row["min"] for row in rows])),
        }
    return found
