"""Inverted prompts: what is asked and what is given, at which rate, of which tasks."""

import collections
import itertools

import pytest

from iml.bench.card import Example, TaskCard
from iml.data.chain_of_thought import ChainOfThought, final_answer
from iml.data.inversion import ARRANGEMENTS, Inversion
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.errors import InputError

REASONING = TaskCard("reasoning.t", "reasoning", "Reasoning", "task")
CODE = TaskCard("crossfit.t", "crossfit", "Text to Code")
DIALOGUE = TaskCard("dialogue.t", "dialogue", "Dialogue Generation")
THOUGHT = Example(
    "1",
    "What is 2 + 2?",
    "2 and 2 make 4. The answer is 4",
    references=("2 and 2 make 4. The answer is 4", "4"),
    instruction="Answer by reasoning step by step.",
    rationale="2 and 2 make 4.",
)
PARTS = {
    "question": "Question: What is 2 + 2?",
    "rationale": "Reasoning: 2 and 2 make 4.",
    "answer": "Answer: 4",
}


def _render(example, card, number, demonstrations=(), rate=1e9, **settings):
    form = PromptFormat(inversion=Inversion(rate=rate, **settings), delimiters=("\n=>",))
    return form.render(example, card, demonstrations, Draws(0, number))


def test_reasoning_comes_in_every_arrangement_but_the_regular_one():
    seen = collections.Counter()
    for number in range(3000):
        prompt = _render(THOUGHT, REASONING, number)
        seen[prompt.provenance["inversion"]] += 1
        given, _, asked = prompt.provenance["inversion"].removeprefix("reasoning: ").partition(" -> ")
        given = [] if given == "nothing" else given.split(" + ")
        asked = asked.split(" + ")
        assert sorted(given + asked) == sorted(PARTS) and asked
        labelled = "\n".join(PARTS[name] for name in asked)
        assert prompt.target == (labelled if len(asked) > 1 else labelled.partition(": ")[2])
        instruction, _, shown = prompt.source.removesuffix("\n=>").partition("\n")
        shown = shown.removeprefix("Input: ")
        assert shown == "\n".join(PARTS[name] for name in given)
        assert all(PARTS[name] not in prompt.source for name in asked)
        assert "{" not in instruction
    expected = {
        f"reasoning: {' + '.join(order[:end]) or 'nothing'} -> {' + '.join(order[end:])}"
        for order in itertools.permutations(PARTS)
        for end in range(3)
    }
    assert seen.keys() == expected - {"reasoning: question -> rationale + answer"}
    assert len(seen) == 17 == len(ARRANGEMENTS["reasoning"])
    assert min(seen.values()) > 3000 / 17 / 1.5


def test_program_synthesis_asks_the_problem():
    prompt = _render(Example("1", "Sort a list.", "xs.sort()"), CODE, 0)
    assert prompt.target == "Sort a list." and prompt.source.endswith("\nProgram: xs.sort()\n=>")


@pytest.mark.parametrize(
    "example", [Example("1", "", "Hello.\nHi!\nBye.\n"), Example("1", "Hello.\nHi!", "Bye.")]
)
def test_dialogue_asks_the_earlier_turns(example):
    prompt = _render(example, DIALOGUE, 0)
    assert prompt.target == "Hello.\nHi!" and prompt.source.endswith("\nLast turn: Bye.\n=>")


def test_demonstrations_are_inverted_alike_and_those_that_cannot_be_are_left_out():
    shown = [Example("2", "Sum it.", "sum(xs)"), Example("3", " ", "xs")]
    prompt = _render(Example("1", "Sort it.", "xs.sort()"), CODE, 0, shown)
    assert prompt.source.endswith("Program: sum(xs)\n=> Sum it.\n\n\nProgram: xs.sort()\n=>")
    assert prompt.provenance["demonstrations"] == ["2"]


def test_the_rate_is_of_inverted_to_regular_prompts():
    inverted = sum("inversion" in _render(THOUGHT, REASONING, i, rate=0.3).provenance for i in range(10_000))
    assert abs(inverted / (10_000 - inverted) - 0.3) < 0.02
    assert not any("inversion" in _render(THOUGHT, REASONING, i, rate=0.0).provenance for i in range(500))


@pytest.mark.parametrize(
    ("example", "card", "setting"),
    [
        (THOUGHT, TaskCard("flan.t", "flan", "Reasoning"), {}),
        (THOUGHT, REASONING, {"exclude": ("reasoning",)}),
        (THOUGHT, REASONING, {"kinds": ("dialogue",)}),
        (Example("1", "q", "a", instruction="Do."), REASONING, {}),
        (Example("1", "", "One turn."), DIALOGUE, {}),
        (Example("1", "", "A text\nof lines"), TaskCard("pretraining.t", "pretraining", "Other"), {}),
    ],
)
def test_examples_that_are_never_inverted(example, card, setting):
    for number in range(20):
        prompt = _render(example, card, number, **setting)
        assert "inversion" not in prompt.provenance and prompt.target == example.target


@pytest.mark.parametrize(
    "setting", [{"rate": -1.0}, {"kinds": ("reasonin",)}, {"kinds": ()}, {"exclude": "flan"}]
)
def test_wrong_settings_are_named(setting):
    with pytest.raises(InputError, match=f"Inversion.{next(iter(setting))}"):
        Inversion(**setting)


@pytest.mark.parametrize(
    ("target", "references", "answer"),
    [
        ("Because. The answer is 4", ("4",), "4"),
        ("Because. The answer is 4.", ("4",), "4"),
        ("Because. The answer is U.S.", ("U.S.",), "U.S."),
        ("Because. yes", (), "yes"),
        ("yes", (), "yes"),
        ("Because.", (), ""),
    ],
)
def test_final_answers(target, references, answer):
    assert final_answer(Example("1", "q", target, references=references, rationale="Because.")) == answer


def test_shares_of_reasoned_and_direct_prompts():
    form = PromptFormat(chain_of_thought=ChainOfThought(share=0.4))
    prompts = [form.render(THOUGHT, REASONING, [THOUGHT], Draws(0, i)) for i in range(2000)]
    direct = [prompt for prompt in prompts if prompt.provenance.get("chain_of_thought") == "direct"]
    assert abs(len(direct) / 2000 - 0.6) < 0.04
    for prompt in prompts:
        reasoned = prompt not in direct
        assert prompt.target == (THOUGHT.target if reasoned else "4")
        # The demonstration answers as the example does, and nothing asks for what is not to be given.
        assert prompt.source.count("2 and 2 make 4.") == (1 if reasoned else 0)
        assert ("step by step" in prompt.source) == reasoned


def test_varied_reasoning_keeps_rationale_and_answer():
    form = PromptFormat(chain_of_thought=ChainOfThought(varied=True))
    prompts = [form.render(THOUGHT, REASONING, [], Draws(0, i)) for i in range(300)]
    assert len({prompt.target for prompt in prompts}) == 5
    assert all(
        "2 and 2 make 4." in prompt.target and "4" in prompt.target[-8:] + prompt.target[:20]
        for prompt in prompts
    )
    sampled = PromptFormat(chain_of_thought=ChainOfThought(varied=True), sample_reference=True)
    assert all("2 and 2" in sampled.render(THOUGHT, REASONING, [], Draws(0, i)).target for i in range(100))


def test_examples_without_a_rationale_stay_as_they_are():
    plain = Example("1", "q", "a", instruction="Do.")
    form = PromptFormat(chain_of_thought=ChainOfThought(share=0.0, varied=True))
    for i in range(20):
        prompt = form.render(plain, REASONING, [], Draws(0, i))
        assert prompt == PromptFormat().render(plain, REASONING, [], Draws(0, i))
