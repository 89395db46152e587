"""What tests of family modules share: registered tasks as examples, and the real data's manifest."""

from __future__ import annotations

import json
import pathlib

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
