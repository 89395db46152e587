"""What became of an evaluation of a run: whether all of its tasks are answered."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from iml.evaluation.reports.curve_report import JSON as CURVE_FILE
from iml.evaluation.results.result import failed_tasks

SCORES = "scores.json"
#: Within an evaluation's folder, the results of all checkpoints on validation.
CURVE = "curve"

_Failures = Mapping[str, str]


def read_failures(folder: pathlib.Path) -> _Failures | None:
    """The tasks that failed, by name why; None where there are no scores yet.

    A checkpoint that was chosen while a task failed at another one is to be chosen again as well.
    """
    scored = _read(folder / SCORES, failed_tasks)
    return None if scored is None else {**(_read(folder / CURVE / CURVE_FILE, _left_out) or {}), **scored}


def _left_out(curve: Mapping[str, Any]) -> _Failures:
    return dict.fromkeys(curve["left_out"], "failed at some checkpoint on validation")


def _read(path: pathlib.Path, failures: Callable[[Any], _Failures]) -> _Failures | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _read_once(path, (found.st_mtime_ns, found.st_ino), failures)


# Runs are looked at again and again, and their scores are large.
@functools.cache
def _read_once(path: pathlib.Path, _: tuple[int, int], failures: Callable[[Any], _Failures]) -> _Failures:
    return failures(json.loads(path.read_text(encoding="utf-8")))
