"""Work on many items as a pipeline of Apache Beam, on any of its runners; needs the extra `[beam]`.

The pipeline is one `Create`, one `Reshuffle` and one `Map`, which every runner has. A worker is told what to call
by name and leaves what comes of it in a file: nothing is pickled, and an item that a runner tries twice
replaces its own file.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from iml.errors import InputError


@dataclasses.dataclass(frozen=True)
class Beam:
    """Where a pipeline runs.

    Attributes:
      runner: a runner's name or class, as Beam's own flag --runner takes it, such as "DirectRunner" or
        "apache_beam.runners.dask.dask_runner.DaskRunner".
      options: further flags of Beam and of the runner, e.g. ("--direct_num_workers=2",).
    """

    runner: str = "DirectRunner"
    options: Sequence[str] = ()


def map_items(
    beam: Beam,
    function: str,
    items: Sequence[Any],
    arguments: Mapping[str, Any],
    folder: str | os.PathLike[str],
) -> Iterator[Any]:
    """What a function makes of each item, in the items' order.

    Args:
      function: "module:name" of a function, which the workers import; called as `f(item, **arguments)`. What
        it returns is JSON-able.
      items: JSON-able.
      arguments: JSON-able, the same for all items.
      folder: the workers leave their results there for the caller; every machine must see it.

    Raises:
      InputError: Beam is not installed, there is no such runner, or some items' results did not arrive.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            "Apache Beam is not installed", remedy='Install it: pip install -e ".[data,beam]"'
        ) from error
    results = epath.Path(folder) / f".beam-{uuid.uuid4().hex[:12]}"
    results.mkdir(parents=True)
    try:
        lines = [json.dumps([str(results / f"{i}.json"), item]) for i, item in enumerate(items)]
        call = _Call(function, json.dumps(dict(arguments)))
        try:
            pipeline = apache_beam.Pipeline(runner=beam.runner, options=PipelineOptions([*beam.options]))
        except (ValueError, ImportError, AttributeError) as error:
            raise InputError(f"{error}", field="Beam.runner") from error
        with pipeline:
            made = pipeline | "items" >> apache_beam.Create(lines) | "spread" >> apache_beam.Reshuffle()
            _ = made | "work" >> apache_beam.Map(call)
        for i in range(len(items)):
            path = results / f"{i}.json"
            if not path.exists():
                raise InputError(
                    f"the runner {beam.runner} left no result of item {i} of {len(items)}",
                    path=results,
                    remedy="Do its workers see this folder?",
                )
            yield json.loads(path.read_text())
    finally:
        results.rmtree(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class _Call:
    """Calls a function on an item, and leaves what it returns in a file."""

    function: str
    arguments: str

    def __call__(self, line: str) -> str:
        path, item = json.loads(line)
        module, _, name = self.function.partition(":")
        arguments = json.loads(self.arguments)
        result = getattr(importlib.import_module(module), name)(item, **arguments)
        # Renamed once complete: a worker that dies half way leaves nothing that looks like a result.
        temporary = epath.Path(f"{path}.{uuid.uuid4().hex[:12]}")
        temporary.write_text(json.dumps(result))
        temporary.replace(path)
        return path
