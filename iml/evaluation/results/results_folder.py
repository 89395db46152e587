"""The folder of an evaluation's results: complete after any kill, gone on with by the next run.

A task's predictions reach the file all together, with the metrics, once every answer of it is there. What was
answered before that is kept in a file of its own, written every few seconds, which goes when the evaluation is
complete. In a run of several processes the first one writes, and what it finds there already is what all of them
pass over.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from iml.errors import InputError
from iml.training import distributed

HEADER, RESULTS, EFFICIENCY = "header.json", "results.jsonl", "efficiency.jsonl"
#: Answers of tasks that are not complete.
ANSWERS = "answers.jsonl"
#: Seconds whose answers a kill may lose.
_PERIOD = 5.0

Prediction = dict[str, Any]
#: What tells requests apart: task, shots and row.
Key = tuple[str, int, int]
_KEY = ("task", "shots", "row")


class ResultsFolder:
    """A folder that is written to; of several processes only the first writes and reads.

    Attributes:
      answers: to the requests of tasks that are not complete; in other processes than the first, those that were
        found at `resume` are empty.
      writes: whether this process writes.
    """

    def __init__(self, path: str | os.PathLike[str], process: int = 0, processes: int = 1):
        self._folder, self.writes, self._shared = pathlib.Path(path), process == 0, processes > 1
        self.answers: dict[Key, Prediction] = {}
        self._unwritten: list[Prediction] = []
        self._written = time.monotonic()
        if self.writes:
            self._folder.mkdir(parents=True, exist_ok=True)

    def resume(
        self, header: Mapping[str, Any], asked: Mapping[str, Sequence[tuple[int, int]]]
    ) -> dict[str, list[Prediction]]:
        """Predictions of the tasks that are complete; the files are brought to hold what is whole and asked for.

        Args:
          header: what predictions depend on; those of another header are dropped.
          asked: by task, the shots and row of each request.

        Returns:
          Predictions by task; for other processes than the first, empty ones.
        """
        done = self._read(header, asked) if self.writes else {}
        if not self._shared:
            return done
        names = sorted(asked)
        keys = [(name, *numbers) for name in names for numbers in asked[name]]
        flags = [*(name in done for name in names), *(key in self.answers for key in keys)]
        known = distributed.agreed(flags)
        answered = zip(keys, known[len(names) :], strict=True)
        self.answers = {key: self.answers.get(key, {}) for key, there in answered if there}
        complete = zip(names, known[: len(names)], strict=True)
        return {name: done.get(name, []) for name, whole in complete if whole}

    def note(self, key: Key, answer: Prediction) -> None:
        """Keeps an answer; it reaches the file within seconds."""
        self.answers[key] = answer
        if self.writes:
            self._unwritten.append({**dict(zip(_KEY, key, strict=True)), **answer})
            if time.monotonic() - self._written >= _PERIOD:
                self.flush()

    def flush(self) -> None:
        """Writes the answers that are not written yet."""
        self._append(ANSWERS, self._unwritten)
        self._unwritten, self._written = [], time.monotonic()

    def append(self, task: str, predictions: Sequence[Prediction]) -> None:
        """Adds the predictions of a task that is complete."""
        self._append(RESULTS, predictions)
        self.answers = {key: answer for key, answer in self.answers.items() if key[0] != task}
        self._unwritten = [line for line in self._unwritten if line["task"] != task]

    def finish(self) -> None:
        """Removes what is of no use once every task is complete."""
        if self.writes:
            (self._folder / ANSWERS).unlink(missing_ok=True)

    def append_efficiency(self, spent: Mapping[str, Any]) -> None:
        """Adds what answering took."""
        self._append(EFFICIENCY, [spent])

    def _read(
        self, header: Mapping[str, Any], asked: Mapping[str, Sequence[tuple[int, int]]]
    ) -> dict[str, list[Prediction]]:
        folder, found = self._folder, defaultdict(list)
        header = json.loads(json.dumps(header))
        spent, answers = [], []
        if _read_header(folder) == header:
            spent, answers = read_efficiency(folder), _read_whole(folder / ANSWERS)
            for line in _read_whole(folder / RESULTS):
                found[line["task"]].append(line)
        done = {name: lines for name, lines in found.items() if len(lines) == len(asked.get(name, ()))}
        ahead = {(name, *numbers) for name in asked if name not in done for numbers in asked[name]}
        kept = [line for line in answers if tuple(line[name] for name in _KEY) in ahead]
        self.answers = {
            tuple(line[name] for name in _KEY): {name: line[name] for name in line if name not in _KEY}
            for line in kept
        }
        _write(folder / RESULTS, [line for lines in done.values() for line in lines])
        _write(folder / ANSWERS, kept)
        _write(folder / EFFICIENCY, spent)
        temporary = folder / f".{HEADER}"
        temporary.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / HEADER)
        return done

    def _append(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        if self.writes and records:
            with (self._folder / name).open("a", encoding="utf-8") as file:
                file.write(_lines(records))
                file.flush()
                os.fsync(file.fileno())


def read_predictions(output_dir: str | os.PathLike[str]) -> list[Prediction]:
    """The predictions of a results folder.

    Raises:
      InputError: there are none, or the file is damaged.
    """
    path = epath.Path(output_dir) / RESULTS
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
    return _read_whole(pathlib.Path(output_dir) / EFFICIENCY)


def _read_whole(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file, if there is one, but for a last one that a kill has torn."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for line in lines:
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
