"""The folder of an evaluation's results: complete after any kill, gone on with by the next run.

A task's predictions reach the file all together. In a run of several processes the first one writes, and what it
finds there already is what all of them pass over.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iml.errors import InputError

HEADER, RESULTS, EFFICIENCY = "header.json", "results.jsonl", "efficiency.jsonl"

Prediction = dict[str, Any]


class ResultsFolder:
    """A folder that is written to; of several processes only the first writes and reads."""

    def __init__(self, path: str | os.PathLike[str], process: int = 0, processes: int = 1):
        self._folder, self._writes, self._shared = pathlib.Path(path), process == 0, processes > 1
        if self._writes:
            self._folder.mkdir(parents=True, exist_ok=True)

    def resume(self, header: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, list[Prediction]]:
        """Predictions of the tasks that are complete; the files are brought to hold these and no others.

        Args:
          header: what predictions depend on; those of another header are dropped.
          sizes: how many predictions each task has.

        Returns:
          Predictions by task; for other processes than the first, empty ones.
        """
        done = self._read(header, sizes) if self._writes else {}
        if not self._shared:
            return done
        from jax.experimental import multihost_utils

        names = sorted(sizes)
        flags = np.array([name in done for name in names], np.int32)
        agreed = multihost_utils.broadcast_one_to_all(flags)
        return {name: done.get(name, []) for name, complete in zip(names, agreed, strict=True) if complete}

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Adds the predictions of a task."""
        self._append(RESULTS, predictions)

    def append_efficiency(self, spent: Sequence[Mapping[str, Any]]) -> None:
        """Adds what answering took."""
        self._append(EFFICIENCY, spent)

    def _read(self, header: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, list[Prediction]]:
        folder, done = self._folder, defaultdict(list)
        header = json.loads(json.dumps(header))
        spent = []
        if _read_header(folder) == header and (folder / RESULTS).exists():
            spent = read_efficiency(folder)
            for line in (folder / RESULTS).read_text(encoding="utf-8").splitlines():
                # The last line may be torn; its task is then a line short.
                with contextlib.suppress(ValueError):
                    prediction = json.loads(line)
                    done[prediction["task"]].append(prediction)
        done = {name: lines for name, lines in done.items() if len(lines) == sizes.get(name)}
        _write(folder / RESULTS, [line for lines in done.values() for line in lines])
        _write(folder / EFFICIENCY, spent)
        temporary = folder / f".{HEADER}"
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / HEADER)
        return done

    def _append(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        if self._writes:
            with (self._folder / name).open("a", encoding="utf-8") as file:
                file.write(_lines(records))
                file.flush()
                os.fsync(file.fileno())


def read_predictions(output_dir: str | os.PathLike[str]) -> list[Prediction]:
    """The predictions of a results folder.

    Raises:
      InputError: there are none, or the file is damaged.
    """
    path = pathlib.Path(output_dir) / RESULTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"no predictions here ({error.strerror})", path=path) from error
    predictions = []
    for number, line in enumerate(lines, start=1):
        try:
            predictions.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"not JSON ({error})", path=path, line=number) from error
    return predictions


def read_efficiency(output_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What answering took, by kind of request and batch of tasks; nothing where it was not kept."""
    path = pathlib.Path(output_dir) / EFFICIENCY
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for line in lines:
        # A kill may have torn the last line.
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _read_header(folder: pathlib.Path) -> Any:
    try:
        return json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(_lines(records), encoding="utf-8")
    temporary.replace(path)


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    # ASCII: the lone surrogates and line separators that data may hold stay within their line.
    return "".join(json.dumps(record) + "\n" for record in records)
