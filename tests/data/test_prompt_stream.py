"""A stream with every prompting mode at once is as repeatable as any other."""

import itertools
import json

import numpy as np
import pytest

from iml.bench.mixing import Mixture
from iml.data.chain_of_thought import ChainOfThought
from iml.data.inversion import Inversion
from iml.data.options import Options
from iml.data.prompts import VARIED, PromptFormat
from iml.data.shots import mixed_shots
from iml.data.store import ExampleStore
from iml.data.stream import TrainStream
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

FORMAT = PromptFormat(
    shots_distribution=mixed_shots(),
    separators=("\n\n\n", "\n--\n"),
    suffix_loss=True,
    instruction_last=0.3,
    options=Options(),
    chain_of_thought=ChainOfThought(0.5, varied=True),
    inversion=Inversion(),
    definition="output_space",
    wrong_labels=0.3,
)
STEPS = 8


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modes")
    thoughts = [
        {
            "source": f"What is {i} + 1?",
            "target": f"One more is {i + 1}. The answer is {i + 1}",
            "rationale": f"One more is {i + 1}.",
            "instruction": "Reason.",
        }
        for i in range(60)
    ]
    choices = [
        {"source": f"Is {i} odd?", "target": ("no", "yes")[i % 2], "candidates": ["yes", "no"]}
        for i in range(60)
    ]
    store = make_store(
        folder,
        {
            "reasoning.sums": {"card": {"instruction_level": "task"}, "train": thoughts},
            "t5.odd": {"train": choices},
            "exmix.odd": {
                "card": {"instruction_level": "task"},
                "train": [{**row, "instruction": "Decide."} for row in choices],
            },
            "dialogue.talk": {"train": [("", f"Hello {i}\nHi!\nBye {i}.") for i in range(60)]},
        },
    )
    scheme = folder / "splits_all.json"
    scheme.write_text(json.dumps({"name": "all"}))
    vocabulary = write_vocabulary(folder / "vocabulary")
    mixture = Mixture(str(scheme), tasks=("*", "dialogue.*"))

    def stream():
        return TrainStream(ExampleStore(store.path), vocabulary, mixture, FORMAT, batch_size=4, length=512)

    return stream


def test_batches_are_the_same_on_threads_lanes_and_after_resuming(make):
    first = make()
    plain = list(itertools.islice(first.batches(first.initial_state(), threads=0), STEPS))
    other = make()
    threaded = list(itertools.islice(other.batches(other.initial_state(), threads=2), STEPS))
    resumed = list(itertools.islice(make().batches(plain[2][1], threads=0), STEPS - 3))
    lane = list(itertools.islice(make().batches(first.initial_state(), lanes=[2], threads=0), STEPS))
    for step in range(STEPS):
        for name, array in plain[step][0].items():
            assert np.array_equal(array, threaded[step][0][name])
            assert np.array_equal(array[2:3], lane[step][0][name])
            if step >= 3:
                assert np.array_equal(array, resumed[step - 3][0][name])


def test_every_mode_occurs_and_draws_do_not_hang_on_their_neighbours(make):
    stream = make()
    numbers = list(range(400))
    together = stream.prompts(numbers)
    assert together == [stream.prompts([number])[0] for number in numbers]
    assert together == list(reversed(make().prompts(numbers[::-1])))
    seen = {name for _, prompt in together for name in prompt.provenance}
    assert seen >= set(VARIED)
    kinds = {
        prompt.provenance["inversion"].split(":")[0]
        for _, prompt in together
        if "inversion" in prompt.provenance
    }
    assert kinds == {"reasoning", "dialogue"}
