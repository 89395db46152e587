"""Inverted examples: what is the answer elsewhere is given, and what is given elsewhere is asked for.

After the Flan Collection (arXiv 2301.13688, section 3.3): of a dialogue the earlier turns are asked from the
last, of program synthesis the problem from the program, and of questions with reasoning every arrangement of
question, answer and reasoning in which at least one is asked.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from iml.bench.card import Example, TaskCard
from iml.data.chain_of_thought import final_answer, prompt_forms
from iml.data.checks import as_strings, check_known
from iml.data.random import Draws
from iml.errors import InputError

KINDS = ("dialogue", "program_synthesis", "reasoning")
_NOTHING_GIVEN = "nothing_given"


@dataclasses.dataclass(frozen=True)
class Inversion:
    """Which prompts are inverted.

    Attributes:
      rate: inverted prompts for each regular one, of examples that can be inverted (Flan: 3 for every 10).
      kinds: of what; of "dialogue", "program_synthesis" and "reasoning".
      exclude: benchmarks that get none. Flan leaves out the three that hold inverted tasks already;
        UnifiedSKG has some too, and its sources hold a database beside the question.
    """

    rate: float = 0.3
    kinds: Sequence[str] = KINDS
    exclude: Sequence[str] = ("flan", "promptsource", "super_natural_instructions", "unified_skg")

    def __post_init__(self):
        as_strings(self, "kinds")
        as_strings(self, "exclude", may_be_empty=True)
        check_known(self, "kinds", KINDS)
        if not 0 <= self.rate < float("inf"):
            raise InputError(f"must not be negative, but is {self.rate}", field="Inversion.rate")

    def draw(self, example: Example, card: TaskCard, draws: Draws) -> Arrangement | None:
        """How the prompt with these draws is inverted; None if it is a regular one."""
        if card.benchmark in self.exclude:
            return None
        kind = next((kind for kind in self.kinds if _parts(example, card, kind)), None)
        if kind is None or draws.uniform("inversion") * (1 + self.rate) >= self.rate:
            return None
        given, asked = draws.choice("arrangement", ARRANGEMENTS[kind])
        instructions = prompt_forms()["inversion"]["instructions"][kind if given else _NOTHING_GIVEN]
        return Arrangement(kind, given, asked, draws.choice("inverted_instruction", instructions))


@dataclasses.dataclass(frozen=True, slots=True)
class Arrangement:
    """An inversion.

    Attributes:
      kind: one of `KINDS`.
      given: the parts that the prompt shows, in order.
      asked: the parts that are to be written, in order.
      instruction: template of the instruction, of {given} and {asked}.
    """

    kind: str
    given: tuple[str, ...]
    asked: tuple[str, ...]
    instruction: str

    def apply(self, example: Example, card: TaskCard) -> Example | None:
        """The inverted example; None if it lacks one of the parts."""
        parts = _parts(example, card, self.kind)
        if not parts:
            return None
        known = prompt_forms()["inversion"]["parts"]
        labelled = {name: f"{known[name]['label']} {parts[name]}" for name in (*self.given, *self.asked)}
        target = "\n".join(labelled[name] for name in self.asked)
        if len(self.asked) == 1:
            target = parts[self.asked[0]]
        return dataclasses.replace(
            example,
            instruction=self.instruction.format(
                given=" and the ".join(known[name]["name"] for name in self.given),
                asked=", then the ".join(known[name]["name"] for name in self.asked),
            ),
            source="\n".join(labelled[name] for name in self.given),
            target=target,
            references=(target,),
            candidates=(),
            rationale="",
        )

    def __str__(self) -> str:
        return f"{self.kind}: {' + '.join(self.given) or 'nothing'} -> {' + '.join(self.asked)}"


def _arrangements() -> dict[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]:
    """(given, asked) by kind; of reasoning all but the regular one, which asks reasoning and answer."""
    orders = itertools.permutations(("question", "rationale", "answer"))
    splits = [(order[:end], order[end:]) for order in orders for end in range(3)]
    regular = (("question",), ("rationale", "answer"))
    return {
        "dialogue": ((("last",), ("turns",)),),
        "program_synthesis": ((("code",), ("problem",)),),
        # Nothing given stands once for each order of the three; so does every other arrangement.
        "reasoning": tuple(split for split in splits if split != regular),
    }


ARRANGEMENTS = _arrangements()


def _parts(example: Example, card: TaskCard, kind: str) -> Mapping[str, str]:
    """The parts of an example, none of them blank; {} if it is not of this kind."""
    if kind == "reasoning":
        if not (example.rationale.strip() and example.source.strip()):
            return {}
        parts = {
            "question": example.source,
            "rationale": example.rationale,
            "answer": final_answer(example),
        }
    else:
        wanted = prompt_forms()["inversion"]["kinds"][kind]
        if card.benchmark not in wanted["benchmarks"] and card.category not in wanted["categories"]:
            return {}
        if kind == "program_synthesis":
            parts = {"problem": example.source, "code": example.target}
        elif example.source:
            parts = {"turns": example.source, "last": example.target}
        else:
            # A turn is a line; one without a letter ends a turn of several.
            turns, _, last = example.target.strip().rpartition("\n")
            parts = {"turns": turns, "last": last if any(map(str.isalnum, last)) else ""}
    parts = {name: text.strip() for name, text in parts.items()}
    return parts if all(parts.values()) else {}
