"""From an example to the text that the model reads and the text that it learns to write.

The rules are those of OPT-IML: sections 2.4 and 4.1, footnote 5 and the printed examples of Appendix C; MetaICL's
suffix loss is section 4.7, and what `Options`, `ChainOfThought` and `Inversion` vary is the Flan Collection's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iml.bench.card import Example, TaskCard
from iml.data.chain_of_thought import ChainOfThought, has_thought
from iml.data.checks import as_strings, check_share
from iml.data.demonstrations import find_demonstrations, instance
from iml.data.format_only import DEFINITIONS, mislabel, output_space, task_labels
from iml.data.inversion import Inversion
from iml.data.options import Options
from iml.data.random import Draws
from iml.data.settings import LATER
from iml.data.shots import mixed_shots, zipf_shots
from iml.errors import InputError

if TYPE_CHECKING:
    from iml.data.store import ExampleStore

__all__ = [
    "CONFIGURABLES",
    "DELIMITERS",
    "VARIED",
    "Prompt",
    "PromptFormat",
    "compose",
    "find_demonstrations",
    "instance",
    "render_request",
]

#: Variations that bring an instruction of their own.
_KEEPING = frozenset(("chain_of_thought", "inversion"))
#: Footnote 5 of the paper, with its misprint "\output:" put right.
DELIMITERS = ("\nAnswer:", " Answer:", "\nA:", " A:", "\nOutput:", " Output:", "\nanswer:", "\noutput:")


#: What a prompt's provenance says only where its format varied it.
VARIED = (
    "separator",
    "suffix_loss",
    "instruction_last",
    "options",
    "option_target",
    "chain_of_thought",
    "inversion",
    "definition",
    "wrong_labels",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """What one request or training document says.

    Attributes:
      source: all that stands before the target, the delimiter included.
      target: the text to learn.
      provenance: how it came about, JSON-able: task, uid, template, delimiter, definition_prefix,
        input_prefix, shots, demonstrations (their uids); and those of `VARIED` that apply.
      head: characters at the start that other prompts share, the task's instruction; encoded but once.
      parts: where in the source its demonstrations begin, and last the example; () without demonstrations.
    """

    source: str
    target: str
    provenance: dict[str, Any]
    head: int = 0
    parts: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class PromptFormat:
    """How examples become prompts.

    Attributes:
      shots: demonstrations in every prompt.
      shots_distribution: probabilities of 0, 1, 2, ... demonstrations; replaces `shots` unless empty.
      separator: stands between demonstrations, and between the last one and the example.
      separators: one is drawn for each prompt; replaces `separator` unless empty.
      delimiters: one is drawn for each prompt, and used unless the source ends with ":".
      definition_prefixes: one is drawn to stand before a task-level instruction.
      input_prefixes: one is drawn to stand before an input that follows a task-level instruction.
      sample_reference: draws the target among the example's references instead of taking `target`.
      suffix_loss: learn the target of the first demonstration and all that follows it, in training.
      instruction_last: share of the prompts with demonstrations whose task-level instruction stands after them.
      options: how answers to choose between are listed; None to leave them as they are.
      chain_of_thought: which prompts ask for reasoning, in training; None to leave them as they are.
      inversion: which prompts are inverted, in training; None for none.
      definition: what a task-level instruction says: "whole"; "output_space" for the labels alone, or that text is
        asked for; "none". Inverted and reasoned prompts keep theirs, as do instructions without a source, and
        those that stand within an instance.
      wrong_labels: share of the demonstrations that are shown with a wrong answer.
    """

    shots: int = 0
    shots_distribution: Sequence[float] = ()
    separator: str = "\n\n\n"
    separators: Sequence[str] = ()
    delimiters: Sequence[str] = DELIMITERS
    definition_prefixes: Sequence[str] = ("", "Instructions: ", "Task: ")
    input_prefixes: Sequence[str] = ("", "Input: ")
    sample_reference: bool = False
    suffix_loss: bool = False
    instruction_last: float = 0.0
    options: Options | None = None
    chain_of_thought: ChainOfThought | None = None
    inversion: Inversion | None = None
    definition: str = dataclasses.field(default="whole", metadata=LATER)
    wrong_labels: float = dataclasses.field(default=0.0, metadata=LATER)

    def __post_init__(self):
        for name in ("separators", "delimiters", "definition_prefixes", "input_prefixes"):
            as_strings(self, name, may_be_empty=name == "separators")
        object.__setattr__(self, "shots_distribution", tuple(self.shots_distribution))
        check_share(self, "instruction_last")
        check_share(self, "wrong_labels")
        if self.definition not in DEFINITIONS:
            raise InputError(
                f"there is no choice {self.definition!r}",
                field="PromptFormat.definition",
                remedy=f"One of {', '.join(DEFINITIONS)}",
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

    def for_requests(self) -> PromptFormat:
        """The format in which evaluation asks: without what changes the task or its answers."""
        options = self.options and dataclasses.replace(self.options, targets=("{text}",))
        return dataclasses.replace(
            self, options=options, suffix_loss=False, chain_of_thought=None, inversion=None
        )

    def render(
        self,
        example: Example,
        card: TaskCard,
        demonstrations: Sequence[Example],
        draws: Draws,
        labels: Sequence[str] = (),
        wrong: Sequence[str] = (),
    ) -> Prompt:
        """The prompt of an example.

        A task-level instruction stands first, then the demonstrations, then the example.
        A demonstration is written as the example is, with the same delimiter and its target. An example
        without source and instruction is plain text to learn (pre-training, dialogue): neither delimiter nor
        demonstrations.

        Args:
          labels: the task's, of which `definition` may tell where the example names no candidates.
          wrong: uids of the demonstrations whose answer is wrong, for the provenance.
        """
        example, demonstrations, extra = self._vary(example, card, demonstrations, draws)
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
            **extra,
        }
        by_task = card.instruction_level == "task" and bool(example.instruction)
        # Other levels carry the instruction in the source; one kept apart all the same must not be lost.
        instruction = example.instruction
        if not example.source and not instruction:
            return Prompt("", target, provenance)
        delimiter = draws.choice("delimiter", self.delimiters)
        if by_task and example.source and self.definition != "whole" and not _KEEPING & extra.keys():
            labels = example.candidates or labels
            instruction = output_space(labels) if self.definition == "output_space" else ""
            provenance["definition"] = self.definition
        prefixed = by_task and "definition" not in provenance
        definition_prefix = draws.choice("definition_prefix", self.definition_prefixes) if prefixed else ""
        input_prefix = draws.choice("input_prefix", self.input_prefixes) if by_task else ""
        separator = self.separator
        if self.separators and demonstrations:
            separator = provenance["separator"] = draws.choice("separator", self.separators)
        asked = [_asked(shown, input_prefix, delimiter) for shown in demonstrations]
        parts = [f"{text} {shown.target.rstrip()}" for text, shown in zip(asked, demonstrations, strict=True)]
        body = input_prefix + example.source if example.source else ""
        head = definition_prefix + instruction
        lead = f"{head}\n" if head and (body or parts) else head
        if head and parts and self.instruction_last and draws.uniform("instruction") < self.instruction_last:
            provenance["instruction_last"] = True
            lead, head, body = "", "", f"{lead}{body}" if body else head
        source = lead + separator.join([*parts, body]) if body or parts else lead
        used = _delimiter(source, delimiter)
        provenance |= {
            "delimiter": used,
            "definition_prefix": definition_prefix,
            "input_prefix": input_prefix,
            "shots": len(parts),
            "demonstrations": [shown.uid for shown in demonstrations],
        }
        if mislabelled := [shown.uid for shown in demonstrations if shown.uid in wrong]:
            provenance["wrong_labels"] = mislabelled
        source += used
        lengths = itertools.accumulate((len(part) + len(separator) for part in parts), initial=len(lead))
        # Where the answer is blank, nothing marks the end of the source that would be learnt.
        if self.suffix_loss and parts and target.strip():
            provenance["suffix_loss"] = True
            first = lead + asked[0]
            source, target = first, f"{source.rstrip(' ')} {target}"[len(first) + 1 :]
        return Prompt(
            source, target, provenance, min(len(head), len(source)), tuple(lengths) if parts else ()
        )

    def _vary(
        self, example: Example, card: TaskCard, demonstrations: Sequence[Example], draws: Draws
    ) -> tuple[Example, Sequence[Example], dict[str, Any]]:
        """An example and its demonstrations, all in the same drawn form, and what was drawn."""
        if self.inversion and (arrangement := self.inversion.draw(example, card, draws)):
            inverted = [arrangement.apply(shown, card) for shown in demonstrations]
            shown = [example for example in inverted if example]
            return arrangement.apply(example, card) or example, shown, {"inversion": str(arrangement)}
        extra: dict[str, Any] = {}
        if self.chain_of_thought and has_thought(example) and (form := self.chain_of_thought.draw(draws)):
            extra["chain_of_thought"] = form.kind
            # One that cannot be brought into the form would show another.
            demonstrations = [form.apply(shown) for shown in demonstrations if has_thought(shown)]
            example = form.apply(example)
        if self.options and example.candidates:
            style = self.options.draw(draws)
            styled = style.apply(example)
            if styled is not example:
                extra["options"] = style.marker
                extra["option_target"] = style.target
                demonstrations = [style.apply(shown) for shown in demonstrations]
            example = styled
        return example, demonstrations, extra


#: What a gin file may set of prompts; to be known wherever `PromptFormat` is.
CONFIGURABLES = (PromptFormat, zipf_shots, mixed_shots, Options, ChainOfThought, Inversion)


def compose(
    store: ExampleStore,
    task: str,
    split: str,
    example: Example,
    demonstrations: Sequence[Example],
    prompt_format: PromptFormat,
    draws: Draws,
    within: Sequence[int] | None = None,
) -> Prompt:
    """The prompt of an example, with what the format takes from the task's other examples.

    Args:
      split: where demonstrations come from.
      within: rows of the split that may be shown; None for all.
    """
    card = store.tasks[task].card
    labels: Sequence[str] = ()
    if prompt_format.definition == "output_space" and not example.candidates and example.instruction:
        splits = store.tasks[task].splits
        told_by = "train" if "train" in splits else max(splits, key=lambda name: splits[name].rows)
        labels = task_labels(store, task, told_by)
    wrong: Sequence[str] = ()
    if prompt_format.wrong_labels:
        demonstrations, wrong = mislabel(
            store, task, split, example, demonstrations, prompt_format.wrong_labels, draws, within
        )
    return prompt_format.render(example, card, demonstrations, draws, labels, wrong)


def render_request(
    store: ExampleStore, task: str, split: str, row: int, prompt_format: PromptFormat, shots: int, seed: int
) -> Prompt:
    """The prompt by which a row is evaluated; a function of (seed, task, uid) and the number of shots.

    Demonstrations are the first of the split "exemplars" in their order, which evaluation suites fix so; else
    they come from the train split if the task has one, else from the row's own split. Provenance says how many
    there were.
    """
    example, entry = store.read(task, split, row), store.tasks[task]
    prompt_format = prompt_format.for_requests()
    draws = Draws(seed, task, example.uid)
    fixed, train = entry.splits.get("exemplars"), entry.splits.get("train")
    if fixed is not None:
        shown_split = "exemplars"
        demonstrations = store.read_many(task, shown_split, range(min(shots, fixed.rows)))
    else:
        shown_split = "train" if train is not None and train.rows else split
        demonstrations = find_demonstrations(store, task, shown_split, example, shots, draws)
    return compose(store, task, shown_split, example, demonstrations, prompt_format, draws)


def _asked(example: Example, input_prefix: str, delimiter: str) -> str:
    """A demonstration up to its answer: the example as it is asked."""
    source = input_prefix + example.source
    return f"{source}{_delimiter(source, delimiter)}".rstrip(" ")


def _delimiter(source: str, delimiter: str) -> str:
    """The delimiter, or "" after a source that ends with ":"; trailing spaces do not count, they get lost."""
    return "" if source.rstrip(" ").endswith(":") else delimiter
