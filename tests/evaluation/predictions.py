"""Prediction lines from plain Python data, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iml.bench.card import TaskCard


def make_card(name: str, **fields: Any) -> TaskCard:
    """A card whose benchmark is what stands before the name's first dot."""
    return TaskCard(**{"name": name, "benchmark": name.partition(".")[0], "category": "A", **fields})


def make_predictions(
    task: str, scores: Mapping[int, Sequence[float]], metric: str = "rouge_l", **fields: Any
) -> list[dict[str, Any]]:
    """Lines of one task, each of its own example: by shots, the scores of rows 0, 1, ..."""
    return [
        make_prediction(task, shots, row, score, metric, **fields)
        for shots, values in scores.items()
        for row, score in enumerate(values)
    ]


def make_prediction(
    task: str, shots: int, row: int, score: float, metric: str = "rouge_l", **fields: Any
) -> dict[str, Any]:
    line = {
        "task": task,
        "split": "validation",
        "shots": shots,
        "uid": str(row),
        "row": row,
        "template": "",
        "demonstrations": ["7"] * shots,
        "prompt": f"question {row}",
        "references": ["right"],
        "candidates": [],
        "prediction": "right" if score == 100 else "wrong",
        "picks": {},
        "flags": [],
        "truncated": 0,
        "metrics": {metric: float(score)},
    }
    return {**line, **fields}
