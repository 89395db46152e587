"""What an evaluation itself took: seconds by phase, compilation, requests and tokens a second."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: JAX's event of a program that was compiled.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_COUNTS = ("requests", "characters", "candidates", "tokens")


class Clock:
    """Seconds by phase, and those of them that went into compiling programs."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.compiling = 0.0
        self.programs = 0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time until it is left to this phase."""
        from jax import monitoring

        def note(event: str, duration: float, **_: Any) -> None:
            if event == _COMPILED:
                self.compiling += duration
                self.programs += 1

        monitoring.register_event_duration_secs_listener(note)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - began
            monitoring.unregister_event_duration_listener(note)


def summary(spent: Iterable[Mapping[str, Any]], clock: Clock | None = None) -> dict[str, Any]:
    """What `scores.json` tells of the time an evaluation took; JSON-able.

    Args:
      spent: of `results_folder.read_efficiency`: those of a run that was killed and gone on with are among them.
      clock: of this run; None for none.

    Returns:
      kinds: {"rank" | "generate": {"seconds", "requests", "characters", "candidates" | "tokens", and each of
        these but the first by second as "<name>_per_second"}}; characters are those of prompts, tokens those
        generated
      phases: {phase: seconds} of this run
      compile: {"seconds", "programs"} of this run, which are part of the phases
    """
    kinds: dict[str, dict[str, float]] = {}
    for row in spent:
        kind = kinds.setdefault(row["kind"], {"seconds": 0.0})
        for name in ("seconds", *_COUNTS):
            if name in row:
                kind[name] = kind.get(name, 0) + row[name]
    for kind in kinds.values():
        rates = {f"{name}_per_second": kind[name] / kind["seconds"] for name in _COUNTS if name in kind}
        kind |= rates if kind["seconds"] else {}
    found: dict[str, Any] = {"kinds": dict(sorted(kinds.items()))}
    if clock is not None:
        found["phases"] = dict(clock.seconds)
        found["compile"] = {"seconds": clock.compiling, "programs": clock.programs}
    return found
