"""Prompts that ask for the reasoning, and prompts that ask for the answer alone, of examples with a rationale."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from iml.bench.card import Example
from iml.data.checks import check_share
from iml.data.random import Draws

_ANSWER = "The answer is "


@functools.cache
def prompt_forms() -> Mapping[str, Any]:
    """The wordings that rearranged prompts use; those of our own making."""
    file = importlib.resources.files("iml.bench.definitions") / "prompt_forms.json"
    return json.loads(file.read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class ChainOfThought:
    """Which prompts of examples with a rationale and an instruction of their task ask for the reasoning.

    Attributes:
      share: fraction of such examples' prompts whose target reasons; the others' target is the answer alone,
        and an instruction is drawn that asks for no more.
      varied: draw instruction, order and separators of reasoned prompts too, instead of leaving them as they
        are.
    """

    share: float = 1.0
    varied: bool = False

    def __post_init__(self):
        check_share(self, "share")

    def draw(self, draws: Draws) -> ThoughtForm | None:
        """The form of the prompt with these draws; None to leave it as it is."""
        reasoned = draws.uniform("chain_of_thought") < self.share
        if reasoned and not self.varied:
            return None
        kind = "reasoned" if reasoned else "direct"
        forms = prompt_forms()["chain_of_thought"][kind]
        return ThoughtForm(kind, **draws.choice("thought_form", forms))


@dataclasses.dataclass(frozen=True, slots=True)
class ThoughtForm:
    """One form: its kind ("reasoned" or "direct"), the instruction, and the target's template."""

    kind: str
    instruction: str
    target: str

    def apply(self, example: Example) -> Example:
        """The example in this form; as it was if it has no rationale or no instruction to replace."""
        if not has_thought(example):
            return example
        answer, rationale = final_answer(example), example.rationale.strip()
        stop = "." if rationale[-1].isalnum() else ""
        target = self.target.format(rationale=rationale + stop, answer=answer)
        others = tuple(reference for reference in example.references if reference != example.target)
        return dataclasses.replace(
            example,
            instruction=self.instruction,
            target=target,
            # Draws of references must keep to the form.
            references=(target, *(() if self.kind == "reasoned" else others)),
            rationale=example.rationale if self.kind == "reasoned" else "",
        )


def has_thought(example: Example) -> bool:
    """Whether an example can be asked with its reasoning and without."""
    return bool(example.rationale.strip() and example.instruction and final_answer(example))


def final_answer(example: Example) -> str:
    """What an example's target says after its rationale; the whole target if that holds no rationale.

    It is what follows the last "The answer is", or what is left when the rationale is taken off.
    """
    target, rationale = example.target.strip(), example.rationale.strip()
    _, said, answer = target.rpartition(_ANSWER)
    if said:
        # As the references have it: a target may end its sentence with a full stop.
        return next((text for text in (answer, answer[:-1]) if text in example.references), answer)
    if rationale and target.startswith(rationale):
        return target[len(rationale) :].strip()
    return target
