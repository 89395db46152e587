"""Generation: batches whose rows are refilled write what step-by-step decoding and transformers write."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from iml.errors import InputError
from iml.evaluation.engines import sampling
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.models import weights_hf
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


def test_a_long_prompt_keeps_its_end(tmp_path):
    model = small_model(tmp_path)
    [answer] = OPTEngine(model).generate(["z" * 500 + " the question"], Decoding(8))
    ids = model.vocabulary.encode("z" * 500 + " the question")
    assert answer.truncated == len(ids) - (64 - 8)
    assert list(answer.tokens) == step_by_step(model, ids[-(64 - 8) :], 8)[0]


def test_room_for_a_prompt_is_demanded(tmp_path):
    with pytest.raises(InputError, match="max_new_tokens"):
        OPTEngine(small_model(tmp_path)).generate(["a"], Decoding(64))


def with_endings(model):
    """The model whose </s> is a token that only some greedy answers hold."""
    sources = [letter * n for letter in "abcdefgh" for n in (1, 2, 3)]
    answers = OPTEngine(model).generate(sources, Decoding(20))
    counts = Counter(token for answer in answers for token in set(answer.tokens))
    used = {token for source in sources for token in model.vocabulary.encode(source)}
    common = next(t for t, n in counts.most_common() if n < len(answers) and t not in used)
    swapped = np.array([common, model.vocabulary.EOS])
    table = jax.tree.map(lambda x: x.at[swapped].set(x[swapped[::-1]]), model.params["embed_tokens"])
    return dataclasses.replace(model, params={**model.params, "embed_tokens": table}), sources


@pytest.mark.parametrize(
    ("decoding", "settings"),
    [
        (Decoding(20), {}),
        pytest.param(Decoding(20, beams=4), {"num_beams": 4}, marks=pytest.mark.slow),
        (Decoding(20, beams=4, early_stopping=True), {"num_beams": 4, "early_stopping": True}),
        pytest.param(
            Decoding(20, beams=3, length_penalty=-1.0),
            {"num_beams": 3, "length_penalty": -1.0},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_tokens_are_those_of_transformers(tmp_path, decoding, settings):
    torch = pytest.importorskip("torch", reason="compares with transformers")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    # Room for few rows: most prompts wait for one that ends.
    model, sources = with_endings(dataclasses.replace(small_model(tmp_path), batch_size=1))
    sources = sources[:12]
    weights_hf.write(tmp_path / "hf", model.opt.config, model.params, model.vocabulary.directory)
    peer = transformers.OPTForCausalLM.from_pretrained(tmp_path / "hf").eval()
    found = OPTEngine(model).generate(sources, decoding)
    finished = [answer.finished for answer in found]
    assert any(finished) and len({len(answer.tokens) for answer in found}) > 1
    for source, answer in zip(sources, found, strict=True):
        ids = torch.tensor([model.vocabulary.encode(source)])
        with torch.no_grad():
            whole = peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=20,
                eos_token_id=model.vocabulary.EOS,
                pad_token_id=model.vocabulary.PAD,
                **settings,
            )
        expected = [t for t in whole[0, ids.shape[1] :].tolist() if t != model.vocabulary.PAD]
        ended = expected[-1:] == [model.vocabulary.EOS]
        assert list(answer.tokens) == (expected[:-1] if ended else expected) and answer.finished == ended


@pytest.mark.slow
def test_stop_strings_end_answers_and_are_not_in_them(tmp_path):
    engine = OPTEngine(small_model(tmp_path))
    [plain] = engine.generate(["the cat"], Decoding(12))
    raw = engine.model.vocabulary.decode(plain.tokens)
    stop = raw[len(raw) // 2 :][:2]
    for decoding in (Decoding(12, stop=(stop, "never")), Decoding(12, stop=(stop,), beams=2)):
        [answer] = engine.generate(["the cat"], decoding)
        assert stop not in answer.text
        if decoding.beams == 1:
            assert answer.finished and answer.text == raw[: raw.find(stop)].strip()
            assert stop in engine.model.vocabulary.decode(answer.tokens)
            assert stop not in engine.model.vocabulary.decode(answer.tokens[:-1])


def test_whole_demonstrations_are_cut_before_the_question(tmp_path):
    model = small_model(tmp_path)
    lead, shown, question = "do it\n", ["a" * 20 + " x\n\n", "b" * 20 + " y\n\n"], "the cat"
    source = lead + "".join(shown) + question
    parts = (len(lead), len(lead) + len(shown[0]), len(lead) + sum(map(len, shown)))
    engine, encode = OPTEngine(model), model.vocabulary.encode
    room = len(encode(lead + shown[1] + question))
    assert room < len(encode(source))
    [cut] = engine.generate([source], Decoding(64 - room), [parts])
    [expected] = engine.generate([lead + shown[1] + question], Decoding(64 - room))
    assert cut.tokens == expected.tokens and cut.truncated == len(encode(source)) - room
    short = len(encode(question))
    [cut] = engine.generate([source], Decoding(64 - short), [parts])
    [expected] = engine.generate([question], Decoding(64 - short))
    assert cut.tokens == expected.tokens


@pytest.mark.parametrize(
    "decoding",
    [Decoding(temperature=0.7), Decoding(temperature=1.5, top_k=4), Decoding(temperature=1.0, top_p=0.6)],
)
def test_draws_follow_transformers_distribution(decoding):
    """Chi-square of 4,000 draws from ten tokens; the warpers' own order and rules."""
    torch = pytest.importorskip("torch", reason="compares with transformers")
    process = pytest.importorskip("transformers.generation.logits_process", reason="compares with it")
    stats = pytest.importorskip("scipy.stats", reason="needs the chi-square distribution")
    logits = np.random.default_rng(0).normal(0, 1.5, 10).astype(np.float32)
    count = 4000
    drawn = jax.jit(sampling.choose, static_argnums=1)(
        np.tile(logits, (count, 1)), decoding, np.arange(count, dtype=np.uint32), np.zeros(count, np.int32)
    )
    warped = torch.tensor(logits)[None] / decoding.temperature
    if decoding.top_k:
        warped = process.TopKLogitsWarper(decoding.top_k)(None, warped)
    if decoding.top_p < 1:
        warped = process.TopPLogitsWarper(decoding.top_p)(None, warped)
    expected = torch.softmax(warped, -1)[0].double().numpy()
    found = np.bincount(drawn, minlength=10)
    assert not found[expected == 0].any()
    kept = expected > 0
    assert stats.chisquare(found[kept], count * expected[kept] / expected.sum()).pvalue > 1e-3


def test_a_draw_depends_on_its_prompt_and_the_seed_alone(tmp_path):
    model = small_model(tmp_path)
    sources = ["the cat", "a", "on the other", "an inn", "north"] * 2
    decoding = Decoding(8, temperature=1.0, top_p=0.9)
    together = OPTEngine(dataclasses.replace(model, batch_size=1)).generate(sources, decoding)
    assert [a.tokens for a in together[:5]] == [a.tokens for a in together[5:]]
    [alone] = OPTEngine(model).generate(sources[3:4], decoding)
    assert alone.tokens == together[3].tokens
    [other] = OPTEngine(model).generate(sources[3:4], dataclasses.replace(decoding, seed=1))
    assert other.tokens != alone.tokens


@pytest.mark.parametrize(
    "setting",
    [{"temperature": -1}, {"top_k": 5}, {"beams": 0}, {"beams": 2, "temperature": 1.0}, {"stop": [""]}],
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(InputError, match="Decoding"):
        Decoding(**setting)
