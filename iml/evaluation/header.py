"""What the predictions of an evaluation depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

from iml.data.settings import plain

if TYPE_CHECKING:
    from iml.data.store import ExampleStore
    from iml.evaluation.engines.engine import Engine
    from iml.evaluation.suites import Suite

_LIBRARIES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "tokenizers", "array-record")


def make_header(engine: Engine, name: str, store: ExampleStore, suite: Suite, seed: int) -> dict[str, Any]:
    """What predictions depend on; results of equal headers may be joined."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {
        "model": name,
        **engine.facts,
        "suite": plain(suite),
        "seed": seed,
        "store": store.fingerprint,
        "versions": versions | engine.facts.get("versions", {}),
    }
