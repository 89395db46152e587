"""What was decided about overlapping pairs of tasks: a file for people, which `iml.prepare` honours.

One JSON object a line and pair; `decision` and `reason` are for a person to edit:

    {"train": "...", "eval": "...", "level": "supervised", "share": 0.12, "decision": "keep", "reason": ""}

| decision | what is left out of the store |
|---|---|
| `keep` | nothing; also stands for what nobody has decided yet |
| `drop_train` | the training task, as in the paper |
| `drop_eval` | the evaluation task; of a supervised one, which is trained on, its evaluation splits |
| `drop_train_examples` | the examples of the training task that overlap, which stand in a file beside this one |
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

from iml.bench.levels import LEVELS
from iml.errors import InputError

DECISIONS = ("keep", "drop_train", "drop_eval", "drop_train_examples")


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """A pair and what was decided about it.

    Attributes:
      train: the training task.
      eval: the evaluation task.
      level: the evaluation task's generalisation level when the pair was found.
      share: the share of its examples that overlapped then.
      decision: one of `DECISIONS`.
      reason: why, in a person's words; "" for a pair that nobody has looked at.
    """

    train: str
    eval: str
    level: str = "fully_held_out"
    share: float = 0.0
    decision: str = "keep"
    reason: str = ""

    @property
    def pair(self) -> tuple[str, str]:
        return self.train, self.eval

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Raises InputError for unknown fields, wrong types and unknown decisions."""
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(record, dict):
            raise InputError("must be a JSON object", remedy=f"Its fields: {', '.join(names)}")
        for name in ("train", "eval"):
            if name not in record:
                raise InputError("is missing", field=name)
        for name, value in record.items():
            if name not in names:
                raise InputError(
                    "unknown field of a decision", field=name, remedy=f"Known: {', '.join(names)}"
                )
            right = (int, float) if name == "share" else str
            if not isinstance(value, right) or isinstance(value, bool):
                raise InputError(f"must be a {'number' if name == 'share' else 'string'}", field=name)
        for name, known in (("decision", DECISIONS), ("level", LEVELS)):
            if record.get(name, known[0]) not in known:
                remedy = f"One of {', '.join(known)}"
                raise InputError(f"there is no {name} {record[name]!r}", field=name, remedy=remedy)
        return cls(**record)


@dataclasses.dataclass(frozen=True, slots=True)
class Without:
    """What is left out of one task that stays.

    Attributes:
      evaluation: leave out all splits but train.
      train_uids: examples of the train split to leave out.
    """

    evaluation: bool = False
    train_uids: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.evaluation or bool(self.train_uids)

    def to_json(self) -> list[Any]:
        return [self.evaluation, sorted(self.train_uids)]

    @classmethod
    def from_json(cls, record: list[Any]) -> Self:
        return cls(record[0], frozenset(record[1]))


@dataclasses.dataclass(frozen=True, slots=True)
class LeaveOut:
    """What decisions leave out of a store.

    Attributes:
      tasks: by task that is left out, why.
      parts: by task that is left out in part, what.
    """

    tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, Without] = dataclasses.field(default_factory=dict)


def load(path: str | os.PathLike[str]) -> list[Decision]:
    """The decisions of a file.

    Raises:
      InputError: there is no such file, or a line is wrong or decides a pair again.
    """
    decisions: dict[tuple[str, str], Decision] = {}
    for line, record in _read_lines(path):
        try:
            decision = Decision.from_json(record)
        except InputError as error:
            raise InputError(
                error.problem, path=path, line=line, field=error.field, remedy=error.remedy
            ) from error
        if decision.pair in decisions:
            raise InputError(
                f"{' and '.join(decision.pair)} stand in an earlier line too", path=path, line=line
            )
        decisions[decision.pair] = decision
    return list(decisions.values())


def add(path: str | os.PathLike[str], found: Iterable[Decision]) -> list[Decision]:
    """Adds the pairs that the file lacks; its own lines stay as they are. Makes the file if there is none.

    Returns:
      All decisions of the file.

    Raises:
      InputError: as `load`.
    """
    path = pathlib.Path(path)
    decisions = load(path) if path.exists() else []
    known = {decision.pair for decision in decisions}
    new = [decision for decision in found if decision.pair not in known]
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    lines = (json.dumps(dataclasses.asdict(decision), ensure_ascii=False) + "\n" for decision in new)
    _replace(path, before + "".join(lines))
    return decisions + new


def add_train_examples(path: str | os.PathLike[str], found: Mapping[tuple[str, str], Iterable[str]]) -> None:
    """Adds the uids of overlapping training examples, by pair, to the file beside a decision file.

    Uids that it has already stay: a store from which they were left out no longer shows them.
    """
    examples = _examples_path(path)
    merged = {pair: set(uids) for pair, uids in found.items()}
    if examples.exists():
        for pair, uids in _load_train_examples(path).items():
            merged.setdefault(pair, set()).update(uids)
    records = (
        {"train": train, "eval": evaluated, "uids": sorted(uids)}
        for (train, evaluated), uids in sorted(merged.items())
    )
    _replace(examples, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def leave_out(path: str | os.PathLike[str]) -> LeaveOut:
    """What the decisions of a file leave out of a store.

    Raises:
      InputError: as `load`; or training examples are to be left out, and nothing says which.
    """
    tasks: dict[str, str] = {}
    untested: set[str] = set()
    train_uids: dict[str, set[str]] = collections.defaultdict(set)
    uids: dict[tuple[str, str], list[str]] | None = None
    for decision in load(path):
        told = f": {decision.reason}" if decision.reason else ""
        match decision.decision:
            case "drop_train":
                tasks.setdefault(decision.train, f"overlaps with {decision.eval}{told}")
            case "drop_eval" if decision.level == "supervised":
                untested.add(decision.eval)
            case "drop_eval":
                tasks.setdefault(decision.eval, f"overlaps with {decision.train}{told}")
            case "drop_train_examples":
                uids = _load_train_examples(path) if uids is None else uids
                if decision.pair not in uids:
                    raise InputError(
                        f"does not say which examples of {decision.train} overlap with {decision.eval}",
                        path=_examples_path(path),
                        remedy="python -m iml.contaminate writes it",
                    )
                train_uids[decision.train].update(uids[decision.pair])
    parts = {
        name: Without(name in untested, frozenset(train_uids.get(name, ())))
        for name in sorted(untested | train_uids.keys())
    }
    return LeaveOut(tasks, parts)


def _examples_path(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}.examples.jsonl")


def _load_train_examples(path: str | os.PathLike[str]) -> dict[tuple[str, str], list[str]]:
    examples = _examples_path(path)
    found = {}
    for line, record in _read_lines(examples):
        try:
            found[record["train"], record["eval"]] = list(map(str, record["uids"]))
        except (KeyError, TypeError) as error:
            raise InputError("needs train, eval and uids", path=examples, line=line) from error
    return found


def _read_lines(path: str | os.PathLike[str]) -> Iterable[tuple[int, Any]]:
    """Each line's number and what it holds; empty ones are skipped."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", path=path, remedy="python -m iml.contaminate writes it"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", path=path) from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"not JSON: {error.msg}", path=path, line=number) from error


def _replace(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
