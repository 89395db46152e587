"""What the benchmark knows of a task, and what an example of it is."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from iml.errors import InputError

#: The benchmark families, in the order of OPT-IML's Table 1.
BENCHMARKS = (
    "super_natural_instructions",
    "promptsource",
    "crossfit",
    "flan",
    "exmix",
    "t5",
    "unified_skg",
    "reasoning",
)

#: Who wrote the instruction: for the whole task, into each instance, or a few keywords (paper, Table 1).
InstructionLevel = Literal["task", "instance", "keywords"]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskCard:
    """What the bench knows about one task; JSON beside its data.

    Attributes:
      name: unique name, `<benchmark>.<task>`; also the task's folder in the store.
      benchmark: one of `BENCHMARKS`, or a user's own.
      category: the category in the bench's taxonomy ("Question Answering").
      instruction_level: where the instruction stands; decides where demonstrations go.
      source: the data set that the examples come from.
      parent: name under which subtypes are averaged (MMLU's 57 subjects), or "".
      metrics: names in `iml.evaluation.metrics`, the first being the one that is aggregated.
      licence: licence of the data.
      url: home of the data.
      languages: languages of the output.
      drawn_together: regular expression of the beginning of an example's uid that names its passage, where several
        examples are about one: those of a passage are not independent, and intervals draw them together. "" where
        each example stands alone.
    """

    name: str
    benchmark: str
    category: str
    instruction_level: InstructionLevel = "instance"
    source: str = ""
    parent: str = ""
    metrics: tuple[str, ...] = ("rouge_l",)
    licence: str = ""
    url: str = ""
    languages: tuple[str, ...] = ("English",)
    drawn_together: str = ""

    def __post_init__(self):
        try:
            re.compile(self.drawn_together)
        except re.error as error:
            raise InputError(f"not a regular expression ({error})", field="drawn_together") from error

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        return cls(**_checked(cls, record, "card"))

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        # Fingerprints hash this: those of tasks without passages stay what they were before the field.
        if not self.drawn_together:
            del fields["drawn_together"]
        return fields


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One example as text fields; a row of the example store.

    Attributes:
      uid: unique within the task and split, stable between preparations.
      source: the rendered input, without the task-level instruction.
      target: the text to learn.
      references: every right answer; `target` is one of them.
      candidates: the answers to choose between, () for a generation task.
      instruction: task-level instruction, "" where the instruction stands in `source`.
      template: id of the template that rendered it, "" if there is but one.
      rationale: reasoning that leads to the target, "" if there is none.
      metric_data: what metrics need beside the references, JSON, "" if they need nothing.
    """

    uid: str
    source: str
    target: str
    references: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    instruction: str = ""
    template: str = ""
    rationale: str = ""
    metric_data: str = ""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Builds an example from a mapping of its fields; `inputs`/`targets` are taken for source/target.

        Raises:
          InputError: a field is missing, unknown or of the wrong type.
        """
        record = dict(record)
        for seqio_name, name in (("inputs", "source"), ("targets", "target")):
            if seqio_name in record:
                record[name] = record.pop(seqio_name)
        example = cls(**_checked(cls, record, "example"))
        if not example.references:
            example = dataclasses.replace(example, references=(example.target,))
        return example

    def to_json(self) -> dict[str, Any]:
        """The fields that are not empty."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        if self.references == (self.target,):
            del fields["references"]
        return {name: value for name, value in fields.items() if value}

    def encode(self) -> bytes:
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )

    @classmethod
    def decode(cls, record: bytes) -> Self:
        """Inverse of `encode`; trusts its input, which the store has checksummed."""
        fields = json.loads(record.decode("utf-8", "surrogatepass"))
        target = fields.get("target", "")
        return cls(
            uid=fields["uid"],
            source=fields.get("source", ""),
            target=target,
            references=tuple(fields.get("references", (target,))),
            candidates=tuple(fields.get("candidates", ())),
            instruction=fields.get("instruction", ""),
            template=fields.get("template", ""),
            rationale=fields.get("rationale", ""),
            metric_data=fields.get("metric_data", ""),
        )


def _checked(cls: type, record: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The record's fields as constructor arguments, lists made tuples and types checked."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(record) - set(fields))
    if unknown:
        raise InputError(
            f"not a field of this {what}", field=unknown[0], remedy=f"Known fields: {', '.join(fields)}"
        )
    arguments: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in record:
            if field.default is dataclasses.MISSING:
                raise InputError(f"this {what} lacks the field", field=name)
            continue
        value = record[name]
        if str(field.type).startswith("tuple"):
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                raise InputError(f"must be a list of strings, not {value!r:.80}", field=name)
            value = tuple(value)
        elif not isinstance(value, str):
            raise InputError(f"must be a string, not {value!r:.80}", field=name)
        arguments[name] = value
    return arguments
