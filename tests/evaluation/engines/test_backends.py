"""Models run by transformers or behind an endpoint are asked the same and answer as the project's own engine."""

import http.server
import json
import threading

import pytest

from iml.errors import InputError
from iml.evaluate import evaluate
from iml.evaluation.engines.backends import CompletionEndpoint, TransformersModel
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.evaluation.results.results_folder import read_predictions
from iml.evaluation.suites import Suite
from iml.models import weights_hf
from tests.evaluation.models import small_model
from tests.stores import make_store

PAIRS = [
    ("the cat is on the", ["inn", "other hat in an inn", ""]),
    ("a question  ", ["the one", "not the one", "the one"]),
    ("", ["the", "other"]),
    ("the other one in the north " * 8, ["in the inn", "the " * 80]),
]
SOURCES = ["the cat", "on the other", "in an inn in the north " * 6, "a", ""]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    model = small_model(tmp_path_factory.mktemp("model"))
    folder = tmp_path_factory.mktemp("exported") / "hf"
    weights_hf.write(folder, model.opt.config, model.params, model.vocabulary.directory)
    return model, str(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["without bos", "with bos"])
def engines(request, own, tmp_path_factory):
    pytest.importorskip("transformers", reason="the other engine")
    pytest.importorskip("torch", reason="the other engine")
    model = small_model(tmp_path_factory.mktemp("model"), bos=request.param)
    return OPTEngine(model), TransformersModel(own[1], bos=request.param, device="cpu", batch_size=3).open()


def test_transformers_scores_as_our_engine_does(engines):
    ours, theirs = (engine.likelihoods(PAIRS) for engine in engines)
    for expected, found in zip(ours, theirs, strict=True):
        for one, other in zip(expected, found, strict=True):
            assert (one.text, one.eos, one.ending) == pytest.approx(
                (other.text, other.eos, other.ending), abs=2e-3
            )
            assert (one.tokens, one.truncated, one.cut) == (other.tokens, other.truncated, other.cut)


@pytest.mark.parametrize("decoding", [Decoding(8), Decoding(8, stop=("t",)), Decoding(8, beams=3)], ids=str)
def test_transformers_answers_as_our_engine_does(engines, decoding):
    ours, theirs = (engine.generate(SOURCES, decoding) for engine in engines)
    # transformers does not know `<s>` of this folder's vocabulary as special.
    texts = [answer.text.replace("<s>", "").strip() for answer in theirs]
    assert [answer.text for answer in ours] == texts
    assert [answer.finished for answer in ours] == [answer.finished for answer in theirs]
    assert [answer.truncated for answer in ours] == [answer.truncated for answer in theirs]


def test_what_a_model_brings_along_does_not_join_in(own, engines, tmp_path):
    """A penalty in the model's own generation settings would make greedy answers other ones."""
    transformers = pytest.importorskip("transformers", reason="the other engine")
    model = transformers.OPTForCausalLM.from_pretrained(own[1])
    model.generation_config.repetition_penalty = 3.0
    model.save_pretrained(tmp_path / "penalty")
    transformers.GPT2Tokenizer.from_pretrained(own[1]).save_pretrained(tmp_path / "penalty")
    brings = TransformersModel(str(tmp_path / "penalty"), bos=engines[1].facts["bos"], device="cpu").open()
    expected, found = (engine.generate(SOURCES[:1], Decoding(8)) for engine in (engines[1], brings))
    assert found[0].text == expected[0].text


def test_draws_depend_on_the_prompt_alone(engines):
    _, theirs = engines
    decoding = Decoding(6, temperature=1.0, top_k=5, seed=3)
    together = theirs.generate(SOURCES, decoding)
    assert [theirs.generate([source], decoding)[0] for source in SOURCES[::-1]] == together[::-1]


def test_facts_tell_the_model_apart(engines, own):
    ours, theirs = engines
    assert theirs.facts["engine"] == "transformers" != ours.facts["engine"]
    assert theirs.facts["bos"] == ours.facts["bos"]
    with pytest.raises(InputError, match=r"TransformersModel\.max_length"):
        TransformersModel(own[1], max_length=10_000).open()
    with pytest.raises(InputError, match="cannot load"):
        TransformersModel(f"{own[1]}/absent").open()


class _Server(http.server.ThreadingHTTPServer):
    """A completions endpoint that answers with a transformers engine, after it has failed a few times.

    As vLLM does, it refuses what, with the tokens to generate, is longer than `positions`.
    """

    def __init__(self, engine, logprobs=True, positions=2048):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.positions = positions
        self.engine, self.logprobs, self.failures, self.lock = engine, logprobs, 2, threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.failures -= 1
            if self.server.failures >= 0:
                return self._send(503, {"error": {"message": "busy"}})
            tokens = len(self.server.engine._ids(asked["prompt"])) + asked["max_tokens"]
            if tokens > self.server.positions:
                message = f"This model's maximum context length is {self.server.positions}, not {tokens}"
                return self._send(400, {"error": {"message": message}})
            return self._send(200, {"id": "1", "object": "text_completion", "choices": [self._answer(asked)]})

    def _answer(self, asked):
        import torch

        engine = self.server.engine
        if not asked.get("echo"):
            [answer] = engine.generate(
                [asked["prompt"]], Decoding(asked["max_tokens"], asked.get("stop") or ())
            )
            reason = "stop" if answer.finished else "length"
            return {"index": 0, "text": answer.text, "finish_reason": reason}
        tokenizer, network = engine._tokenizer, engine._model
        told = tokenizer(asked["prompt"], add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = told["input_ids"], [start for start, _ in told["offset_mapping"]]
        with torch.inference_mode():
            logits = network(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        values = [None, *(float(logits[i, token]) for i, token in enumerate(ids[1:]))]
        following = int(logits[-1].argmax())
        tokens = [tokenizer.decode([token]) for token in [*ids, following]]
        logprobs = {
            "tokens": tokens,
            "token_logprobs": [*values, float(logits[-1, following])],
            "text_offset": [*offsets, len(asked["prompt"])],
            "top_logprobs": None,
        }
        return {
            "index": 0,
            "text": asked["prompt"] + tokens[-1],
            "finish_reason": "length",
            "logprobs": logprobs if self.server.logprobs else None,
        }

    def _send(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing."""


@pytest.fixture
def serve(own):
    pytest.importorskip("openai", reason="asks the endpoint")
    pytest.importorskip("transformers", reason="stands behind the endpoint")
    servers = []

    def start(**options):
        server = _Server(TransformersModel(own[1], device="cpu").open(), **options)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_endpoint_scores_and_answers_as_the_model_behind_it(serve):
    server = serve()
    engine = CompletionEndpoint(server.url, "served", requests=3).open()
    pairs = PAIRS[:2]
    for expected, found in zip(server.engine.likelihoods(pairs), engine.likelihoods(pairs), strict=True):
        for one, other in zip(expected, found, strict=True):
            assert (one.text, one.ending) == pytest.approx((other.text, other.ending), abs=1e-6)
            assert one.tokens == other.tokens and other.eos != other.eos
    decoding = Decoding(8, stop=("t",))
    texts = [answer.text for answer in server.engine.generate(SOURCES, decoding)]
    assert [answer.text for answer in engine.generate(SOURCES, decoding)] == texts


@pytest.mark.parametrize("kind", ["vocabulary folder", "tokenizer.json"])
def test_prompts_are_shortened_for_an_endpoint_as_for_other_engines(serve, own, tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="writes the tokenizer")
    tokenizer = own[0].vocabulary.directory
    if kind == "tokenizer.json":
        transformers.GPT2TokenizerFast.from_pretrained(own[1]).save_pretrained(tmp_path)
        tokenizer = str(tmp_path / "tokenizer.json")
    length = 40
    server = serve(positions=length)
    engine = CompletionEndpoint(server.url, "served", tokenizer=tokenizer, max_length=length).open()
    # An endpoint leaves room for the token that it generates behind a candidate, and for one of the server's own.
    plain = TransformersModel(own[1], device="cpu", max_length=length - 2).open()
    pairs = [PAIRS[0], *PAIRS[3:], ("the other one in the north " * 9, ["in an inn"])]
    expected, found = plain.likelihoods(pairs), engine.likelihoods(pairs)
    assert [each.truncated > 0 for group in found for each in group] == [False] * 3 + [True] * 3
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.text == pytest.approx(other.text, abs=1e-6)
            assert (one.tokens, one.truncated, one.cut) == (other.tokens, other.truncated, other.cut)
    demonstrations = ["the cat is on an inn\n\n", "a hat in the north of an inn\n\n"] * 3
    question = "the other hat"
    sources = ["".join([*demonstrations, question]), "the " * 100 + question, question]
    cuts = [len("".join(demonstrations[:i])) for i in range(len(demonstrations) + 1)]
    parts, decoding = [cuts, (), ()], Decoding(6)
    plain = TransformersModel(own[1], device="cpu", max_length=length - 1).open()
    expected, found = (one.generate(sources, decoding, parts) for one in (plain, engine))
    assert [(one.text, one.truncated) for one in found] == [(one.text, one.truncated) for one in expected]
    assert found[0].truncated > 0 < found[1].truncated
    with pytest.raises(InputError, match=r"400: .*maximum context length"):
        CompletionEndpoint(server.url, "served").open().generate(sources, decoding, parts)


def test_what_an_endpoint_cannot_do_is_told(serve):
    server = serve(logprobs=False)
    engine = CompletionEndpoint(server.url, "served").open()
    with pytest.raises(InputError, match="log-probabilities of a prompt"):
        engine.likelihoods(PAIRS[:1])
    with pytest.raises(InputError, match="beam search"):
        engine.generate(SOURCES, Decoding(4, beams=2))
    gone = CompletionEndpoint("http://127.0.0.1:9/v1", "served", retries=0).open()
    with pytest.raises(InputError, match="does not answer"):
        gone.generate(SOURCES[:1], Decoding(4))
    with pytest.raises(InputError, match="not an address"):
        CompletionEndpoint("localhost:8000", "served")
    with pytest.raises(InputError, match=r"goes with CompletionEndpoint\.tokenizer"):
        CompletionEndpoint(server.url, "served", max_length=2048)
    with pytest.raises(InputError, match="not a tokenizer"):
        CompletionEndpoint(server.url, "served", tokenizer=__file__, max_length=2048).open()


@pytest.mark.parametrize(("primary", "kept"), [("mean", "mean"), ("sum_eos", "sum")])
def test_an_endpoint_is_judged_as_the_suite_says_but_for_the_end(serve, tmp_path, primary, kept):
    choice = {"source": "the cat is on the", "target": "inn", "candidates": ["inn", "hat"]}
    make_store(tmp_path, {"t.choice": {"card": {"metrics": ["accuracy"]}, "validation": [choice]}})
    model = CompletionEndpoint(serve().url, "served")
    suite = Suite(shots=(0,), split_scheme="pocket", scorers=("sum", "mean"), primary_scorer=primary)
    scores = evaluate(model, str(tmp_path / "store"), str(tmp_path / "out"), suite)
    assert scores["header"]["suite"]["primary_scorer"] == kept
    [line] = read_predictions(tmp_path / "out")
    assert set(line["scores"]) == {"sum", "mean"}
    assert line["prediction"] == line["candidates"][line["picks"][kept]]
