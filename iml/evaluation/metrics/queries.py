"""Spider's own metrics, which need the database's schema or the database (arXiv 1809.08887; UnifiedSKG).

An example's `metric_data` is `{"database": its name, "columns": {table: [column]}, "foreign_keys": [[a, b]]}`, with
a and b as "table.column".
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import ClassVar

from iml.evaluation.metrics.base import Answer, MeanMetric, NotComputable
from iml.evaluation.metrics.sql.execution import same_results
from iml.evaluation.metrics.sql.matching import same_clauses
from iml.evaluation.metrics.sql.parsing import parse
from iml.evaluation.metrics.sql.tree import NotSql, Schema


@dataclasses.dataclass(frozen=True)
class ExactSetMatch(MeanMetric):
    """Exact set match; what is no query to the database is wrong."""

    value: None = None

    def values(self, answers: Sequence[Answer]) -> list[float]:
        return [
            100.0 * any(_match(answer.prediction, text, answer.metric_data) for text in answer.references)
            for answer in answers
        ]


@dataclasses.dataclass(frozen=True)
class Execution(MeanMetric):
    """Execution accuracy; what fails or takes too long is wrong."""

    value: None = None
    reads_files: ClassVar[bool] = True

    def find_data(self, metric_data: str, databases: str) -> None:
        find_databases(metric_data, databases)

    def values(self, answers: Sequence[Answer]) -> list[float]:
        # All are looked up before any is run.
        found = [find_databases(answer.metric_data, answer.databases) for answer in answers]
        return [
            100.0 * any(same_results(answer.prediction, text, paths) for text in answer.references)
            for answer, paths in zip(answers, found, strict=True)
        ]


def find_databases(metric_data: str, databases: str) -> list[pathlib.Path]:
    """The SQLite files of an example's database: all in its folder, as a test suite has several.

    Args:
      metric_data: of the example.
      databases: the folder of all databases, "" if there is none.

    Raises:
      NotComputable: there are none.
    """
    name = _load(metric_data)["database"]
    if not databases:
        raise NotComputable(
            "no databases to run queries on",
            field="Suite.databases",
            remedy="Name the folder that holds one folder with SQLite files for each database",
        )
    folder = pathlib.Path(databases, name)
    found = sorted(folder.glob("*.sqlite")) if pathlib.PurePath(name).name == name else []
    if not found:
        raise NotComputable("no .sqlite file here", path=folder, field="Suite.databases")
    return found


def _match(prediction: str, reference: str, metric_data: str) -> bool:
    schema = _schema(metric_data)
    try:
        right = parse(reference, schema)
    except NotSql as error:
        raise NotComputable(f"the right query {reference!r:.80} cannot be read: {error}") from error
    try:
        return same_clauses(parse(prediction, schema), right, schema)
    except NotSql:
        return False


@functools.lru_cache(maxsize=256)
def _schema(metric_data: str) -> Schema:
    data = _load(metric_data)
    return Schema.of(data["columns"], data["foreign_keys"])


@functools.lru_cache(maxsize=256)
def _load(metric_data: str) -> dict:
    if not metric_data:
        raise NotComputable(
            "the examples do not tell their database's schema",
            field="Example.metric_data",
            remedy="Prepare the task again",
        )
    return json.loads(metric_data)
