"""Ranking: the shared-prompt pass scores what the plain forward pass scores; scorers, ties, truncation."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.errors import InputError
from iml.evaluation import ranking
from iml.evaluation.engines import trees
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.evaluation.requests import Request
from iml.models import weights_hf
from tests.evaluation.models import small_model

ALL = ranking.scorer_names(ranking.SCORERS, (False, True))


def request(source, candidates):
    prompt = Prompt(source, candidates[0], {})
    return Request("t.a", "test", 0, "0", prompt, (candidates[0],), tuple(candidates), "rank", 0)


@functools.cache
def _forward(opt):
    return jax.jit(opt.apply)


def plain(model, source, text, context_tokens=None):
    """(log-likelihood of the text, of </s>) by one forward pass over the whole document."""
    document = encode_prompts(model.vocabulary, [Prompt(source, text, {})], 10**6)[0]
    head = model.head if document.target_start else [model.vocabulary.EOS]
    ids, start = head + document.tokens.tolist(), document.target_start + len(head)
    if context_tokens is not None:
        ids, start = ids[start - context_tokens :], context_tokens
    n, places = len(ids) - 1, np.arange(model.max_length)[None]
    # Padded on the right, so that all documents are of one shape and the pass is compiled once.
    tokens = np.full_like(places, model.vocabulary.PAD)
    tokens[0, :n] = ids[:-1]
    logits = _forward(model.opt)(model.params, tokens, (places < n).astype(np.int32), places)
    values = np.asarray(jax.nn.log_softmax(logits))[0, np.arange(n), ids[1:]][max(1, start) - 1 :]
    return values[:-1].sum(), values[-1]


@pytest.mark.parametrize("bos", [False, True])
def test_likelihoods_are_those_of_the_plain_forward_pass(tmp_path, bos):
    model = small_model(tmp_path, bos=bos)
    pairs = [
        ("the cat", ["sat", "the other one", "a", "in", "on an ant", "x"]),  # more than one row of candidates
        ("thing:\n", ["yes", "no"]),
        ("", ["an ant", "the"]),
        ("ends in blanks   ", ["a", "a  "]),
    ]
    found = OPTEngine(model).likelihoods(pairs)
    for (source, texts), likelihoods in zip(pairs, found, strict=True):
        for text, likelihood in zip(texts, likelihoods, strict=True):
            expected = plain(model, source, text)
            np.testing.assert_allclose((likelihood.text, likelihood.eos), expected, atol=2e-4)
            assert likelihood.truncated == 0 and not likelihood.cut


def test_scorers_divide_and_subtract_as_documented(tmp_path):
    model = small_model(tmp_path)
    candidates = ["the other", "an"]
    [result] = ranking.rank(OPTEngine(model), [request("on a", candidates)], ALL, "sum")
    for i, text in enumerate(candidates):
        likelihood, eos = plain(model, "on a", text)
        alone, alone_eos = plain(model, "Answer:", text)
        tokens = len(model.vocabulary.encode(" " + text))
        expected = {
            "sum": likelihood,
            "sum_eos": likelihood + eos,
            "mean": likelihood / tokens,
            "mean_eos": (likelihood + eos) / (tokens + 1),
            "char": likelihood / len(text),
            "char_eos": (likelihood + eos) / len(text),
            "unconditional": likelihood - alone,
            "unconditional_eos": likelihood + eos - alone - alone_eos,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(result.scores[name][i], value, atol=2e-4, err_msg=name)
    for name, scores in result.scores.items():
        assert result.picks[name] == int(np.argmax(scores))


def test_the_prompt_is_cut_at_its_head_and_candidates_stay_whole(tmp_path):
    model = small_model(tmp_path)
    source = "b" * 200 + " the end"
    [found] = OPTEngine(model).likelihoods([(source, ["x", "y" * 20])])
    # The longest candidate decides how much context all of them get: 64 positions hold it and its inputs.
    context = 64 - len(model.vocabulary.encode(" " + "y" * 20))
    for text, likelihood in zip(["x", "y" * 20], found, strict=True):
        expected = plain(model, source, text, context_tokens=context)
        np.testing.assert_allclose((likelihood.text, likelihood.eos), expected, atol=2e-4)
        assert likelihood.truncated > 0 and not likelihood.cut


def test_odd_candidates_are_ranked_the_first_winning_and_flagged(tmp_path):
    engine = OPTEngine(small_model(tmp_path))
    requests = [
        request("a", ["same", "same"]),
        request("a", ["", "the"]),
        request("a", ["short", "z" * 100]),
        request("a", ["the", "on"]),
    ]
    results = ranking.rank(engine, requests, ALL, "sum")
    assert set(results[0].picks.values()) == {0}
    assert [result.flags for result in results] == [("tie", "duplicate"), ("empty",), ("cut",), ()]
    assert all(np.isfinite(list(result.scores.values())).all() for result in results)


def test_a_candidate_that_fills_the_window_is_cut_by_the_token_that_nothing_predicts(tmp_path):
    model = small_model(tmp_path)
    [[fits, cut]] = OPTEngine(model).likelihoods([("a", ["z" * 62, "z" * 63])])
    lengths = [len(model.vocabulary.encode(" " + "z" * n)) for n in (62, 63)]
    assert lengths == [63, 64]  # one position is left for the context, or none
    assert [(one.tokens, one.cut) for one in (fits, cut)] == [(63, False), (63, True)]


def test_scores_that_are_no_numbers_are_flagged_and_lose(tmp_path):
    model = small_model(tmp_path)
    engine = OPTEngine(model)
    found = engine.likelihoods([("a", ["the", "on"])])

    class Broken:
        facts = engine.facts

        def likelihoods(self, pairs, tell=lambda number, answer: None):
            answers = [[dataclasses.replace(found[0][0], text=float("nan")), found[0][1]] for _ in pairs]
            for number, answer in enumerate(answers):
                tell(number, answer)
            return answers

    [result] = ranking.rank(Broken(), [request("a", ["the", "on"])], ["sum", "mean"], "sum")
    assert result.flags == ("nonfinite",) and set(result.picks.values()) == {1}


def test_results_do_not_depend_on_what_is_ranked_together(tmp_path):
    model = small_model(tmp_path)
    requests = [request("the " * n, ["on", "a thing", "er"]) for n in (1, 3, 9, 2, 4, 12)]
    requests.append(request("a", ["short", "z" * 70]))
    together = ranking.rank(OPTEngine(dataclasses.replace(model, batch_size=1)), requests, ALL, "sum_eos")
    engine = OPTEngine(model)
    for one, result in zip(requests, together, strict=True):
        [alone] = ranking.rank(engine, [one], ALL, "sum_eos")
        for name in ALL:
            np.testing.assert_allclose(result.scores[name], alone.scores[name], atol=2e-4)


def test_bfloat16_ranks_prompts_that_share_their_beginning(tmp_path):
    shown = "the inn in the north on the other " * 2
    pairs = [(f"{shown}{letter}", ["the", "an inn", "on"]) for letter in "abcdefgh"]
    exact, rounded = (
        OPTEngine(small_model(tmp_path, dtype=dtype)).likelihoods(pairs) for dtype in ("float32", "bfloat16")
    )
    sums = [[[one.text for one in row] for row in rows] for rows in (exact, rounded)]
    np.testing.assert_allclose(*sums, rtol=0.1, atol=0.5)


def test_an_unknown_scorer_is_named():
    with pytest.raises(InputError, match="sum, mean, char, unconditional"):
        ranking.scorer_names(["max"], [True])


@pytest.mark.slow
def test_shared_contexts_and_split_candidates_score_as_transformers_does(tmp_path):
    """Prompts with the same demonstrations, two kinds of them, and one with more candidates than a row holds."""
    torch = pytest.importorskip("torch", reason="compares with transformers")
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    model = small_model(tmp_path, num_layers=1)
    weights_hf.write(tmp_path / "hf", model.opt.config, model.params, model.vocabulary.directory)
    peer = transformers.OPTForCausalLM.from_pretrained(tmp_path / "hf").eval()
    random = np.random.default_rng(0)
    words = "the cat sat on an ant in a north other thing".split()

    def say(n):
        return " ".join(random.choice(words, n))

    shown = [say(12), say(9)]
    pairs = [(f"{shown[i % 2]} {say(3)}", [say(n) for n in (1, 2, 1)]) for i in range(24)]
    pairs.append((say(4), [f"{say(3)} {i}" for i in range(40)]))
    encode = model.vocabulary.encode
    assert sum(len(encode(f" {text}")) for text in pairs[-1][1]) > 2 * model.max_length
    rows = [encode(source) for source, _ in pairs]
    groups = trees.group_by_prefix([row[:-1] for row in rows])
    assert sum(group.shared > 0 for group in groups) == 2
    told = {}
    found = OPTEngine(model).likelihoods(pairs, told.__setitem__)
    assert told == dict(enumerate(found)), "every answer is told of once it is there"
    for (source, texts), likelihoods in zip(pairs, found, strict=True):
        for text, likelihood in zip(texts, likelihoods, strict=True):
            context, ids = encode(source), encode(f"{source} {text}")
            with torch.no_grad():
                logits = peer(torch.tensor([ids])).logits[0].log_softmax(-1)
            values = [logits[i - 1, ids[i]] for i in range(len(context), len(ids))]
            expected = (float(sum(values)), float(logits[-1, model.vocabulary.EOS]))
            np.testing.assert_allclose((likelihood.text, likelihood.eos), expected, rtol=1e-5, atol=2e-4)
