"""FLAN 2021 out of TensorFlow Datasets, through the same fields and templates as `tasks.flan`.

Nothing is downloaded before a task is read; TensorFlow Datasets must be installed and have, or get, the data.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

from iml import seqio_bridge
from tasks.flan import FlanTask, flan_tasks
from tasks.flan.fields import plain

_SPLITS = {"train": "train", "validation": "validation"}


def register(
    data_dir: str = "", *, templates: str = "", inverted: bool = False, tfds_data_dir: str = ""
) -> None:
    """Registers every data set of FLAN that TensorFlow Datasets has; opens and downloads nothing.

    Args:
      data_dir: may hold `flan/templates.yaml`.
      templates: as for `tasks.flan.register`.
      inverted: as for `tasks.flan.register`.
      tfds_data_dir: where TensorFlow Datasets keeps its data sets; its default if "".

    Raises:
      InputError: the templates are not of their form or name an unknown data set.
    """
    for task in flan_tasks(pathlib.Path(data_dir), templates, inverted):
        definition = task.definition
        if "tfds" not in definition:
            continue
        task = dataclasses.replace(task, definition={**definition, **definition.get("tfds_changes", {})})
        splits = definition.get("tfds_splits") or definition.get("splits", _SPLITS)
        source = seqio_bridge.seqio.TfdsDataSource(
            tfds_name=definition["tfds"], splits=splits, tfds_data_dir=tfds_data_dir or None
        )
        rendered = functools.partial(_rendered, task=task)
        seqio_bridge.add_task(
            task.card, name=task.task_name, source=source, preprocessors=[rendered], files=task.files
        )


def _rendered(dataset: Any, task: FlanTask) -> Any:
    """A `tf.data.Dataset` of a data set's rows as one of examples under each template."""
    tf = seqio_bridge.tf
    text, texts = tf.TensorSpec((), tf.string), tf.TensorSpec((None,), tf.string)
    signature = dict.fromkeys(("uid", "inputs", "targets", "template"), text)
    signature |= {"references": texts, "candidates": texts}

    def examples() -> Iterator[dict[str, Any]]:
        task.check()
        place = task.definition["tfds"]
        for number, row in enumerate(dataset.as_numpy_iterator(), start=1):
            for example in task.render(plain(row), str(number), place, number):
                fields = {**example, "inputs": example["source"], "targets": example["target"]}
                yield {name: fields[name] for name in signature}

    return tf.data.Dataset.from_generator(examples, output_signature=signature)
