"""Instructions reduced to the output space, and demonstrations with wrong answers."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.card import Example
from iml.bench.mixing import Mixture
from iml.bench.subsets import ExampleSubset
from iml.data.chain_of_thought import ChainOfThought
from iml.data.inversion import Inversion
from iml.data.prompts import PromptFormat, compose, find_demonstrations, render_request
from iml.data.random import Draws
from iml.data.settings import plain
from iml.data.stream import TrainStream
from iml.errors import InputError
from iml.evaluation.suites import Suite
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

SCHEME = {"name": "none", "fully_held_out_categories": [], "levels_by_task": {}, "levels_by_category": {}}
DEFINITION = "Say whether the number is odd."
BY_TASK = {"card": {"instruction_level": "task"}}


def _rows(target, number=40, **fields):
    return [
        {"source": f"Number {i}", "target": target(i), "instruction": DEFINITION, **fields}
        for i in range(number)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format_only")
    (folder / "splits_none.json").write_text(json.dumps(SCHEME))
    odd = lambda i: "yes" if i % 2 else "no"  # noqa: E731
    exemplars = [{**row, "uid": f"e{i}"} for i, row in enumerate(_rows(odd, 3))]
    tasks = {
        "flan.chosen": BY_TASK | {"train": _rows(odd, candidates=["no", "maybe", "yes"])},
        "flan.labels": BY_TASK | {"train": _rows(odd), "test": _rows(odd, 4)},
        "flan.text": BY_TASK | {"train": _rows(lambda i: f"It is {i}.")},
        "flan.constant": BY_TASK | {"train": _rows(lambda i: "same")},
        "flan.thought": BY_TASK | {"train": _rows(lambda i: f"So. The answer is {i}", rationale="So.")},
        "flan.bare": BY_TASK
        | {"train": [{"source": "", "target": f"Once {i}", "instruction": "Tell."} for i in range(9)]},
        "flan.instance": {"train": [(f"Is {i} odd?", odd(i)) for i in range(40)]},
        "bbh.fixed": BY_TASK | {"exemplars": exemplars, "test": _rows(odd)},
    }
    return make_store(folder, tasks)


def _prompt(store, task, form, shots=0, row=0, seed=0):
    example, draws = store.read(task, "train", row), Draws(seed, row)
    shown = find_demonstrations(store, task, "train", example, shots, draws)
    return compose(store, task, "train", example, shown, form, draws)


@pytest.mark.parametrize(
    ("task", "said"),
    [("chosen", "Output: no, maybe, yes."), ("labels", "Output: no, yes."), ("text", "Output: text.")],
)
def test_an_instruction_names_the_output_space_or_nothing(store, task, said):
    for row in range(20):
        whole, reduced, none = (
            _prompt(store, f"flan.{task}", PromptFormat(definition=kind), 2, row)
            for kind in ("whole", "output_space", "none")
        )
        prefix = whole.provenance["definition_prefix"]
        assert whole.source.startswith(f"{prefix}{DEFINITION}\n") and "definition" not in whole.provenance
        body = whole.source.removeprefix(f"{prefix}{DEFINITION}\n")
        assert none.source == body and reduced.source == f"{said}\n{body}"
        assert reduced.provenance["definition"] == "output_space" and none.provenance["definition"] == "none"
        assert reduced.target == none.target == whole.target
        assert reduced.source[reduced.parts[1] :].startswith(whole.provenance["input_prefix"] + "Number")


@pytest.mark.parametrize("definition", ["output_space", "none"])
@pytest.mark.parametrize(
    ("task", "variation"),
    [
        ("instance", {}),
        ("bare", {}),
        ("thought", {"chain_of_thought": ChainOfThought(0.0)}),
        ("thought", {"inversion": Inversion(rate=1e9, exclude=())}),
    ],
)
def test_instructions_without_which_nothing_is_asked_stay(store, task, variation, definition):
    form = PromptFormat(**variation)
    reduced = dataclasses.replace(form, definition=definition)
    for row in range(9):
        assert _prompt(store, f"flan.{task}", form, row=row) == _prompt(
            store, f"flan.{task}", reduced, row=row
        )


@settings(deadline=None, max_examples=60)
@given(
    task=st.sampled_from(["chosen", "labels", "text", "instance"]),
    row=st.integers(0, 39),
    shots=st.integers(0, 6),
    seed=st.integers(0, 50),
)
def test_wrong_answers_are_wrong_and_nothing_else_changes(store, task, row, shots, seed):
    task = f"flan.{task}"
    right = _prompt(store, task, PromptFormat(), shots, row, seed)
    wrong = _prompt(store, task, PromptFormat(wrong_labels=1.0), shots, row, seed)
    assert wrong.target == right.target
    shown = right.provenance["demonstrations"]
    assert wrong.provenance["demonstrations"] == shown
    assert wrong.provenance.get("wrong_labels", []) == shown
    by_uid = {example.uid: example for example in store.read_many(task, "train", range(40))}
    ends = [*right.parts[1:], len(right.source)], [*wrong.parts[1:], len(wrong.source)]
    for place, uid in enumerate(shown):
        one = right.source[right.parts[place] : ends[0][place]].rstrip("\n")
        other = wrong.source[wrong.parts[place] : ends[1][place]].rstrip("\n")
        true = by_uid[uid].target
        assert one.endswith(f" {true}") and other.startswith(one.removesuffix(true))
        said = other.removeprefix(one.removesuffix(true))
        allowed = set(by_uid[uid].candidates) or {example.target for example in by_uid.values()}
        assert said in allowed - {true}
        if task == "flan.text":
            assert said != right.target


def test_a_share_of_the_answers_is_wrong_and_some_cannot_be(store):
    marked = []
    for row in range(40):
        prompt = _prompt(store, "flan.chosen", PromptFormat(wrong_labels=0.25), 5, row)
        marked.append(len(prompt.provenance.get("wrong_labels", ())))
    assert 0.15 < sum(marked) / 200 < 0.35 and len(set(marked)) > 2
    right = _prompt(store, "flan.constant", PromptFormat(), 3)
    assert _prompt(store, "flan.constant", PromptFormat(wrong_labels=1.0), 3) == right


@pytest.mark.parametrize("task", ["flan.labels", "bbh.fixed"])
def test_suites_ask_so_too(store, task):
    suite = Suite(format=PromptFormat(definition="output_space", wrong_labels=1.0))
    for row in range(4):
        prompt = render_request(store, task, "test", row, suite.format, shots=2, seed=3)
        assert prompt.source.startswith("Output: no, yes.\n")
        assert prompt.provenance["wrong_labels"] == prompt.provenance["demonstrations"] != []
        assert prompt.target == store.read(task, "test", row).target
        assert prompt == render_request(store, task, "test", row, suite.format, shots=2, seed=3)


def test_streams_are_restricted_to_what_may_be_drawn_and_keep_their_fingerprints(store):
    folder = store.path.parent
    vocabulary = write_vocabulary(folder / "vocabulary")

    def make(form, subset=None):
        mixture = Mixture(str(folder / "splits_none.json"), tasks="flan.text", examples=subset)
        return TrainStream(store, vocabulary, mixture, form, 2, 128)

    form = PromptFormat(shots=2, wrong_labels=1.0, definition="none")
    stream = make(form, ExampleSubset(0.15))
    assert len(allowed := {f"It is {row}." for row in stream.plan.within["flan.text"]}) == 6
    for _, prompt in stream.prompts(range(30)):
        assert prompt.provenance["wrong_labels"]
        assert {line.split("It is ")[1] for line in prompt.source.split("\n") if "It is " in line} <= {
            text.removeprefix("It is ") for text in allowed
        }
    assert make(form).fingerprint != make(PromptFormat(shots=2)).fingerprint
    assert not {"definition", "wrong_labels"} & plain(PromptFormat()).keys()
    told = dataclasses.asdict(Suite()) | {"format": plain(PromptFormat())}
    assert plain(Suite()) == {name: value for name, value in told.items() if name != "task_counts"}
    assert plain(form) == dataclasses.asdict(form)


@pytest.mark.parametrize("fields", [{"definition": "half"}, {"wrong_labels": 1.5}])
def test_wrong_settings_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        PromptFormat(**fields)


def test_labels_of_a_candidate_are_told_once(store):
    card = store.tasks["flan.chosen"].card
    example = Example("0", "Q", "a", candidates=("a ", "a", "b"), instruction="Choose.")
    prompt = PromptFormat(definition="output_space").render(example, card, [], Draws(0))
    assert prompt.source.startswith("Output: a, b.\n")
