"""From an example to the text that the model reads and the text that it learns to write.

The rules are those of OPT-IML: sections 2.4 and 4.1, footnote 5 and the printed examples of Appendix C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from iml.bench.card import Example, TaskCard
from iml.data.random import Draws, permute
from iml.errors import InputError

if TYPE_CHECKING:
    from iml.data.store import ExampleStore

#: Footnote 5 of the paper, with its misprint "\output:" put right.
DELIMITERS = ("\nAnswer:", " Answer:", "\nA:", " A:", "\nOutput:", " Output:", "\nanswer:", "\noutput:")

#: Rows looked at in search of demonstrations, at most.
_SEARCH = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """What one request or training document says.

    Attributes:
      source: all that stands before the target, the delimiter included.
      target: the text to learn.
      provenance: how it came about, JSON-able: task, uid, template, delimiter, definition_prefix,
        input_prefix, shots, demonstrations (their uids).
      head: characters at the start that other prompts share, the task's instruction; encoded but once.
    """

    source: str
    target: str
    provenance: dict[str, Any]
    head: int = 0


@dataclasses.dataclass(frozen=True)
class PromptFormat:
    """How examples become prompts.

    Attributes:
      shots: demonstrations in every prompt.
      shots_distribution: probabilities of 0, 1, 2, ... demonstrations; replaces `shots` unless empty.
      separator: stands between demonstrations, and between the last one and the example.
      delimiters: one is drawn for each prompt, and used unless the source ends with ":".
      definition_prefixes: one is drawn to stand before a task-level instruction.
      input_prefixes: one is drawn to stand before an input that follows a task-level instruction.
      sample_reference: draws the target among the example's references instead of taking `target`.
    """

    shots: int = 0
    shots_distribution: Sequence[float] = ()
    separator: str = "\n\n\n"
    delimiters: Sequence[str] = DELIMITERS
    definition_prefixes: Sequence[str] = ("", "Instructions: ", "Task: ")
    input_prefixes: Sequence[str] = ("", "Input: ")
    sample_reference: bool = False

    def __post_init__(self):
        for name in ("shots_distribution", "delimiters", "definition_prefixes", "input_prefixes"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise InputError("must be a list, not one string", field=f"PromptFormat.{name}")
            object.__setattr__(self, name, tuple(value))
            if not value and name != "shots_distribution":
                raise InputError(
                    "needs at least one entry", field=f"PromptFormat.{name}", remedy='[""] is none'
                )
        if self.shots < 0:
            raise InputError("must not be negative", field="PromptFormat.shots")
        total = sum(self.shots_distribution)
        if self.shots_distribution and (min(self.shots_distribution) < 0 or abs(total - 1) > 1e-6):
            raise InputError(
                f"must be probabilities that sum to 1, not to {total:g}",
                field="PromptFormat.shots_distribution",
            )

    def draw_shots(self, draws: Draws) -> int:
        """How many demonstrations the prompt with these draws has."""
        if not self.shots_distribution:
            return self.shots
        point, last = draws.uniform("shots"), 0
        for count, probability in enumerate(self.shots_distribution):
            point -= probability
            if probability:
                last = count
                if point < 0:
                    return count
        return last

    def render(
        self, example: Example, card: TaskCard, demonstrations: Sequence[Example], draws: Draws
    ) -> Prompt:
        """The prompt of an example.

        A task-level instruction stands first, then the demonstrations, then the example.
        A demonstration is written as the example is, with the same delimiter and its target. An example
        without source and instruction is plain text to learn (pre-training, dialogue): neither delimiter nor
        demonstrations.
        """
        target = example.target
        if self.sample_reference and example.references:
            target = draws.choice("reference", example.references)
        provenance = {
            "task": card.name,
            "uid": example.uid,
            "template": example.template,
            "delimiter": "",
            "definition_prefix": "",
            "input_prefix": "",
            "shots": 0,
            "demonstrations": [],
        }
        by_task = card.instruction_level == "task" and bool(example.instruction)
        # Other levels carry the instruction in the source; one kept apart all the same must not be lost.
        instruction = example.instruction
        if not example.source and not instruction:
            return Prompt("", target, provenance)
        delimiter = draws.choice("delimiter", self.delimiters)
        definition_prefix = draws.choice("definition_prefix", self.definition_prefixes) if by_task else ""
        input_prefix = draws.choice("input_prefix", self.input_prefixes) if by_task else ""
        parts = [_shown(shown, input_prefix, delimiter) for shown in demonstrations]
        body = input_prefix + example.source if example.source else ""
        head = definition_prefix + instruction
        if body or parts:
            source = f"{head}\n" if head else ""
            source += self.separator.join([*parts, body])
        else:
            source = head
        used = _delimiter(source, delimiter)
        provenance |= {
            "delimiter": used,
            "definition_prefix": definition_prefix,
            "input_prefix": input_prefix,
            "shots": len(parts),
            "demonstrations": [shown.uid for shown in demonstrations],
        }
        return Prompt(source + used, target, provenance, len(head))


def instance(example: Example) -> str:
    """Names the instance that an example renders: its uid, without the template's name should that follow."""
    return example.uid.removesuffix(f"/{example.template}")


def find_demonstrations(
    store: ExampleStore, task: str, split: str, example: Example, shots: int, draws: Draws
) -> list[Example]:
    """Up to `shots` examples of a split, none of them a rendering of `example` or of each other's instance.

    They are drawn uniformly; those rendered by the example's own template are preferred where a task has
    several. Fewer come back only if the split has fewer.
    """
    if shots <= 0:
        return []
    rows = store.tasks[task].splits[split].rows
    taken, fitting, others = {instance(example)}, [], []
    patience = 16 * (shots + 1)
    for looked, row in enumerate(_walk(rows, draws.key("demonstrations"))):
        if len(fitting) == shots or (looked >= patience and len(fitting) + len(others) >= shots):
            break
        shown = store.read(task, split, row)
        if instance(shown) in taken:
            continue
        if shown.template == example.template:
            taken.add(instance(shown))
            fitting.append(shown)
        else:
            others.append(shown)
    for shown in others:
        if len(fitting) == shots:
            break
        if instance(shown) not in taken:
            taken.add(instance(shown))
            fitting.append(shown)
    return fitting


def render_request(
    store: ExampleStore, task: str, split: str, row: int, prompt_format: PromptFormat, shots: int, seed: int
) -> Prompt:
    """The prompt by which a row is evaluated; a function of (seed, task, uid) and the number of shots.

    Demonstrations are the first of the split "exemplars" in their order, which evaluation suites fix so; else
    they come from the train split if the task has one, else from the row's own split. Provenance says how many
    there were.
    """
    example, entry = store.read(task, split, row), store.tasks[task]
    draws = Draws(seed, task, example.uid)
    fixed, train = entry.splits.get("exemplars"), entry.splits.get("train")
    if fixed is not None:
        demonstrations = store.read_many(task, "exemplars", range(min(shots, fixed.rows)))
        return prompt_format.render(example, entry.card, demonstrations, draws)
    shown_split = "train" if train is not None and train.rows else split
    demonstrations = find_demonstrations(store, task, shown_split, example, shots, draws)
    return prompt_format.render(example, entry.card, demonstrations, draws)


def _shown(example: Example, input_prefix: str, delimiter: str) -> str:
    """A demonstration: the example as it is asked, and its answer."""
    source = input_prefix + example.source
    return f"{source}{_delimiter(source, delimiter)}".rstrip(" ") + f" {example.target.rstrip()}"


def _delimiter(source: str, delimiter: str) -> str:
    """The delimiter, or "" after a source that ends with ":"; trailing spaces do not count, they get lost."""
    return "" if source.rstrip(" ").endswith(":") else delimiter


def _walk(rows: int, key: int, chunk: int = 32) -> Iterator[int]:
    """Distinct rows in random order, `_SEARCH` at most."""
    for start in range(0, min(rows, _SEARCH), chunk):
        yield from permute(range(start, min(rows, _SEARCH, start + chunk)), rows, key).tolist()
