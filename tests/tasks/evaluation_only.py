"""What the tests of the benchmarks that only evaluate share."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Iterator

import pytest

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.card import Example


@pytest.fixture(autouse=True)
def empty_registries() -> Iterator[None]:
    """Begins and ends a test with no task registered; to be imported by the modules that want it."""
    _clear()
    yield
    _clear()


def _clear() -> None:
    for name in registry.names():
        seqio_bridge.remove_task(name)


def splits(name: str) -> tuple[str, ...]:
    return seqio_bridge.describe_source(name)[0]


def read(name: str, split: str) -> list[Example]:
    return [Example.from_json(fields) for fields in seqio_bridge.read_fields(name, split)]


def manifest(real_data: pathlib.Path, benchmark: str) -> list[dict]:
    """The groups of the data folder's manifest that belong to a benchmark."""
    groups = json.loads((real_data / "MANIFEST.json").read_text(encoding="utf-8"))["groups"]
    return [group for group in groups if group["benchmark"] == benchmark]


def lm_eval_tasks() -> pathlib.Path:
    """The folder of lm-evaluation-harness's task definitions; skips the test where it is not installed."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs lm_eval")
    return pathlib.Path(found.submodule_search_locations[0]) / "tasks"
