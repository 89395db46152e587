"""Scores of tasks that bring SeqIO's own metrics and postprocessing, from the predictions of an evaluation.

What `seqio.Evaluator` computes with `metric_fns`, `score_metric_fns` and `postprocess_fn`, on the prompts that were
asked: any number of shots, any engine. Needs SeqIO, unlike the rest of evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from iml import seqio_bridge
from iml.errors import InputError
from iml.seqio_bridge import seqio

if TYPE_CHECKING:
    from iml.evaluation.engines.engine import Engine

Prediction = Mapping[str, Any]


def score_all(predictions: Sequence[Prediction], engine: Engine) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and number of shots, the metrics of all registered tasks that bring their own.

    Args:
      predictions: lines of `iml.evaluation.runner`.
      engine: answers what `score_metric_fns` ask.
    """
    own = seqio_bridge.names_with_own_metrics()
    lines: dict[tuple[str, int], list[Prediction]] = {}
    for line in predictions:
        if line["task"] in own:
            lines.setdefault((line["task"], line["shots"]), []).append(line)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, shots in sorted(lines):
        found.setdefault(name, {})[str(shots)] = score(name, lines[name, shots], engine)
    return found


def score(name: str, lines: Sequence[Prediction], engine: Engine) -> dict[str, Any]:
    """A task's own metrics over prediction lines of one split.

    `postprocess_fn` gets each target and prediction as text, with the task's example; `score_metric_fns` get the
    log-likelihood of each target and the end of the document after the prompt.

    Raises:
      InputError: the task's examples are not those of the lines, an engine cannot tell the end of a document,
        or a metric asks for aux_values.
    """
    task = seqio.TaskRegistry.get(name)
    if task.predict_with_aux_metric_fns:
        raise InputError("metrics of (targets, predictions, aux_values) are not computed", field=name)
    examples = _examples(task, lines)
    targets = [seqio_bridge.text_of(example["targets_pretokenized"]) for example in examples]
    process = task.postprocessor or (lambda text, **_: text)
    processed = [
        process(target, example=example, is_target=True)
        for target, example in zip(targets, examples, strict=True)
    ]
    found: dict[str, Any] = {}
    if task.predict_metric_fns:
        predictions = [
            process(line["prediction"], example=example, is_target=False)
            for line, example in zip(lines, examples, strict=True)
        ]
        for metric in task.predict_metric_fns:
            found |= metric(targets=processed, predictions=predictions)
    if task.score_metric_fns:
        pairs = [(line["prompt"], (target,)) for line, target in zip(lines, targets, strict=True)]
        scores = np.array([tail.text + tail.eos for [tail] in engine.likelihoods(pairs)])
        if np.isnan(scores).any():
            raise InputError("the engine cannot tell how likely the end of an answer is", field=name)
        for metric in task.score_metric_fns:
            found |= metric(targets=processed, scores=scores)
    return {key: _plain(value) for key, value in found.items()}


def _examples(task: Any, lines: Sequence[Prediction]) -> list[Mapping[str, Any]]:
    """The task's examples that the lines are answers to, as SeqIO's evaluator has them."""
    [split] = {line["split"] for line in lines}
    dataset = task.get_dataset(None, split=split, shuffle=False, num_epochs=1, seed=seqio_bridge.SEED)
    by_uid = {}
    for number, example in enumerate(dataset.as_numpy_iterator()):
        by_uid[seqio_bridge.text_of(example.get("uid", f"{split}-{number}"))] = example
    absent = next((line["uid"] for line in lines if line["uid"] not in by_uid), None)
    if absent is not None:
        remedy = "Prepare the store again from the same files"
        raise InputError(f"has no example {absent!r} in {split}", field=task.name, remedy=remedy)
    return [by_uid[line["uid"]] for line in lines]


def _plain(value: Any) -> Any:
    """A metric's value as JSON has it: numbers as numbers, of SeqIO's other values their text."""
    value = getattr(value, "value", value)
    return float(value) if np.ndim(value) == 0 and isinstance(value, (int, float, np.generic)) else str(value)
