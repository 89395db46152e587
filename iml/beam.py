"""Work on many items as a pipeline of Apache Beam, on any of its runners; needs the extra `[beam]`."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from iml.errors import InputError

if TYPE_CHECKING:
    import os


@dataclasses.dataclass(frozen=True)
class Beam:
    """Where a pipeline runs.

    Attributes:
      runner: the name of a runner, as Beam's own flag --runner takes it ("DirectRunner", "DaskRunner", ...).
      options: further flags of Beam and of the runner, e.g. ("--direct_num_workers=2",).
    """

    runner: str = "DirectRunner"
    options: Sequence[str] = ()


def map_items(
    beam: Beam, function: Callable[[Any], Any], items: Sequence[Any], folder: str | os.PathLike[str]
) -> Iterator[Any]:
    """What a function makes of each item, in any order.

    Args:
      function: picklable; what it returns is JSON-able. A worker may call it twice for an item.
      items: JSON-able.
      folder: where the workers leave their results for the caller; every machine must see it.

    Raises:
      InputError: Beam is not installed, or there is no such runner.
    """
    try:
        import apache_beam
        from apache_beam.io.filesystems import FileSystems
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            "Apache Beam is not installed", remedy='Install it: pip install -e ".[data,beam]"'
        ) from error
    prefix = FileSystems.join(str(folder), f"beam-{uuid.uuid4().hex[:12]}")
    lines = [json.dumps(item) for item in items]
    try:
        pipeline = apache_beam.Pipeline(runner=beam.runner, options=PipelineOptions([*beam.options]))
    except ValueError as error:
        raise InputError(f"{error}", field="Beam.runner") from error
    with pipeline:
        (
            pipeline
            | "items" >> apache_beam.Create(lines)
            | "spread" >> apache_beam.Reshuffle()
            | "work" >> apache_beam.Map(_call, function)
            | "results" >> apache_beam.io.WriteToText(prefix)
        )
    [match] = FileSystems.match([f"{prefix}*"])
    paths = [metadata.path for metadata in match.metadata_list]
    try:
        for path in paths:
            with FileSystems.open(path) as file:
                for line in file.read().decode("utf-8").splitlines():
                    yield json.loads(line)
    finally:
        FileSystems.delete(paths)


def _call(line: str, function: Callable[[Any], Any]) -> str:
    return json.dumps(function(json.loads(line)))
