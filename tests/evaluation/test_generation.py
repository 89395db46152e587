"""Generation: the cached, batched, padded decoder writes what step-by-step greedy decoding writes."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from iml.errors import InputError
from iml.evaluation.engine import Decoding
from iml.evaluation.opt_engine import OPTEngine
from tests.evaluation.models import small_model


def step_by_step(model, ids, limit):
    """Greedy decoding without a cache; rows padded on the right to one shape, so that it compiles once."""
    apply, n = jax.jit(model.opt.apply), model.max_length
    answer = []
    for _ in range(limit):
        tokens = np.full((1, n), model.vocabulary.PAD, np.int32)
        used = len(ids) + len(answer)
        tokens[0, :used] = ids + answer
        places = np.arange(n, dtype=np.int32)[None]
        logits = apply(model.params, tokens, (places < used).astype(np.int32), places)
        answer.append(int(logits[0, used - 1].argmax()))
        if answer[-1] == model.vocabulary.EOS:
            return answer[:-1], True
    return answer, False


@pytest.mark.parametrize("bos", [False, True])
def test_answers_are_those_of_step_by_step_decoding(tmp_path, bos):
    model = small_model(tmp_path, bos=bos)
    sources = ["the cat", "a", "on the other", "in an inn in the north " * 2 + "an  ", ""]
    for source, answer in zip(sources, OPTEngine(model).generate(sources, Decoding(12)), strict=True):
        ids = model.head + model.vocabulary.encode(source.rstrip(" ")) or [model.vocabulary.EOS]
        expected, finished = step_by_step(model, ids[-(64 - 12) :], 12)
        assert (list(answer.tokens), answer.finished) == (expected, finished)
        assert answer.text == model.vocabulary.decode(expected).strip()


def test_an_answer_ends_at_eos_and_the_others_go_on(tmp_path):
    model = small_model(tmp_path)
    sources = [letter * n for letter in "abcdefgh" for n in (1, 2, 3)]
    # A token that some answers hold and others do not changes places with </s>.
    answers = OPTEngine(model).generate(sources, Decoding(30))
    counts = Counter(token for answer in answers for token in set(answer.tokens))
    used = {token for source in sources for token in model.vocabulary.encode(source)}
    common = next(t for t, n in counts.most_common() if n < len(answers) and t not in used)
    swapped = np.array([common, model.vocabulary.EOS])
    table = jax.tree.map(lambda x: x.at[swapped].set(x[swapped[::-1]]), model.params["embed_tokens"])
    model = dataclasses.replace(model, params={**model.params, "embed_tokens": table})
    answers = OPTEngine(model).generate(sources, Decoding(30))
    assert 0 < sum(answer.finished for answer in answers) < len(answers)
    ended = next(i for i, answer in enumerate(answers) if answer.finished)
    went_on = next(i for i, answer in enumerate(answers) if not answer.finished)
    for i in (ended, went_on):
        expected, finished = step_by_step(model, model.vocabulary.encode(sources[i]), 30)
        assert (list(answers[i].tokens), answers[i].finished) == (expected, finished)


def test_a_long_prompt_keeps_its_end(tmp_path):
    model = small_model(tmp_path)
    [answer] = OPTEngine(model).generate(["z" * 500 + " the question"], Decoding(8))
    ids = model.vocabulary.encode("z" * 500 + " the question")
    assert answer.truncated == len(ids) - (64 - 8)
    assert list(answer.tokens) == step_by_step(model, ids[-(64 - 8) :], 8)[0]


def test_room_for_a_prompt_is_demanded(tmp_path):
    with pytest.raises(InputError, match="max_new_tokens"):
        OPTEngine(small_model(tmp_path)).generate(["a"], Decoding(64))
