"""What tests of family modules share: registered tasks as examples, and the real data's manifest."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.card import Example


def clear() -> None:
    """Takes all tasks out of the registries."""
    for name in registry.names():
        seqio_bridge.remove_task(name)


def read(name: str) -> dict[str, list[Example]]:
    """A registered task's splits as examples."""
    splits = seqio_bridge.describe_source(name)[0]
    return {
        split: [Example.from_json(fields) for fields in seqio_bridge.read_fields(name, split)]
        for split in splits
    }


def read_all() -> dict[str, dict[str, list[Example]]]:
    """All registered tasks, each example's uid unique within its split."""
    tasks = {name: read(name) for name in registry.names()}
    for name, splits in tasks.items():
        for split, examples in splits.items():
            assert len({example.uid for example in examples}) == len(examples), (name, split)
    return tasks


def manifest(real_data: pathlib.Path, benchmark: str) -> dict[str, int | None]:
    """Examples by group of a folder of the real data, as its manifest counts them."""
    groups = json.loads((real_data / "MANIFEST.json").read_text())["groups"]
    return {group["group"]: group["examples"] for group in groups if group["benchmark"] == benchmark}


def write_tfds(
    home: pathlib.Path, name: str, features: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Writes a TFDS data set as TFDS keeps it, version 1.0.0 with the one split `train`."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = home / name / "1.0.0"
    folder.mkdir(parents=True)
    known = tfds.features.FeaturesDict(dict(features))
    with tf.io.TFRecordWriter(str(folder / f"{name}-train.tfrecord-00000-of-00001")) as file:
        for row in rows:
            file.write(known.serialize_example(row))
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=known,
        split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=[len(rows)], num_bytes=0)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )
