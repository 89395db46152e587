"""A task of one's own: capitals, from tab-separated lines. Copy this file and change it."""

import pathlib

import seqio
import tensorflow as tf

from iml.bench.card import TaskCard
from iml.seqio_bridge import add_task

CARD = TaskCard(
    name="my_tasks.capitals",
    benchmark="my_tasks",
    category="Question Answering",
    instruction_level="instance",
    metrics=("exact_match", "rouge_l"),
    source="capitals",
)


def to_example(lines: tf.data.Dataset) -> tf.data.Dataset:
    """Each line, `country<TAB>capital`, becomes what the model reads and what it learns to write."""

    def split(line: tf.Tensor) -> dict[str, tf.Tensor]:
        fields = tf.strings.split(line, "\t")
        return {"inputs": tf.strings.join(["What is the capital of ", fields[0], "?"]), "targets": fields[1]}

    return lines.map(split, num_parallel_calls=tf.data.AUTOTUNE)


def register(data_dir: str) -> None:
    """Called by `iml.prepare` with its `data_dir`; opens nothing."""
    folder = pathlib.Path(data_dir)
    files = {split: str(folder / f"{split}.tsv") for split in ("train", "validation")}
    add_task(CARD, source=seqio.TextLineDataSource(files), preprocessors=[to_example])
