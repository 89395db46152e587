"""N prompts from the pool of all renderings of N examples: templates do not change a task's weight."""

import collections
import json

import pytest

from iml.bench.mixing import Mixture
from iml.data.stream import TrainStream
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

EXAMPLES, TEMPLATES = 40, 5


@pytest.fixture
def stream(tmp_path):
    """Two tasks of 40 examples: one under five templates, one under a single one."""
    tasks = {
        "flan.many": {
            "train": [
                {"uid": f"u{i}", "source": f"{t} {i}", "target": "a", "template": f"t{t}"}
                for i in range(EXAMPLES)
                for t in range(TEMPLATES)
            ]
        },
        "flan.one": {"train": [{"uid": f"u{i}", "source": f"{i}", "target": "a"} for i in range(EXAMPLES)]},
    }
    scheme = tmp_path / "all.json"
    scheme.write_text(json.dumps({"name": "all"}))
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    mixture = Mixture(split_scheme=str(scheme), eps=None)
    return TrainStream(
        make_store(tmp_path, tasks), vocabulary, mixture, batch_size=2, length=32, prompt_format=None
    )


def drawn(stream, epoch, task):
    size = stream.plan.epoch_size
    draws = stream.plan.draws(range(epoch * size, (epoch + 1) * size))
    return [draw.row for draw in draws if stream.tasks[draw.task] == task]


def test_an_epoch_draws_as_many_prompts_as_there_are_examples(stream):
    assert dict(stream.plan.counts) == {"flan.many": EXAMPLES, "flan.one": EXAMPLES}
    for epoch in range(3):
        assert sorted(drawn(stream, epoch, "flan.one")) == list(range(EXAMPLES))
        rows = drawn(stream, epoch, "flan.many")
        assert len(set(rows)) == EXAMPLES, "drawn without replacement from the pool"
        # A random part of the pool, not a template's or the first examples' rows.
        assert len({row % TEMPLATES for row in rows}) == TEMPLATES
        assert EXAMPLES / 2 < len({row // TEMPLATES for row in rows}) < EXAMPLES


def test_the_pool_is_walked_whole_before_a_prompt_comes_again(stream):
    seen = collections.Counter(row for epoch in range(TEMPLATES) for row in drawn(stream, epoch, "flan.many"))
    assert seen == dict.fromkeys(range(EXAMPLES * TEMPLATES), 1)
