"""lm-evaluation-harness gives the same candidates the same scores on real sets, and the same accuracy.

Its HFLM holds the same random OPT, exported to Hugging Face's format. The scorers `sum` and `char` are its `acc`
and `acc_norm`; answers of sets without candidates are ranked among answers to other rows.
"""

import importlib

import jax
import numpy as np
import pytest

from iml.data.prompts import Prompt
from iml.data.vocabulary import Vocabulary
from iml.evaluation import ranking
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.loading import LoadedModel
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.evaluation.metrics import Answer, score
from iml.evaluation.requests import Request
from iml.models import weights_hf
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training.mesh import MeshConfig, make_mesh

#: Tasks by the module that reads them.
SETS = {
    "tasks.opt_tasks": ("opt_tasks.copa", "opt_tasks.piqa", "opt_tasks.openbook_qa", "opt_tasks.boolq"),
    "tasks.mmlu": ("mmlu.abstract_algebra", "mmlu.virology"),
    "tasks.raft": ("raft.ade_corpus_v2", "raft.tweet_eval_hate"),
    "tasks.t5": ("t5.glue_cola", "t5.super_glue_cb"),
    "tasks.bbh": ("bbh.causal_judgement", "bbh.date_understanding"),
    "tasks.super_natural_instructions": ("super_natural_instructions.task069_abductivenli_classification",),
}
ROWS = 8
LENGTH = 512


@pytest.fixture(scope="module")
def models(tmp_path_factory, real_data):
    """By BOS: our engine, and lm_eval's model with the same parameters."""
    pytest.importorskip("torch", reason="needs torch, which runs the peer")
    transformers = pytest.importorskip("transformers", reason="needs transformers, which holds the peer")
    lm_eval = pytest.importorskip("lm_eval.models.huggingface", reason="needs lm_eval, the peer")
    folder = tmp_path_factory.mktemp("agreement")
    vocabulary = Vocabulary(str(real_data / "opt_bpe"))
    config = OPTConfig(num_layers=2, embed_dim=32, num_heads=2, max_positions=LENGTH, dtype="float32")
    opt = OPT(config)
    # Larger weights would make a score depend on the last bits: then one unit in the last place of float32 moves
    # it by more than what is allowed here.
    params = jax.tree.map(lambda x: x * 6 if x.ndim > 1 else x, opt.init(jax.random.key(0)))
    weights_hf.write(folder / "hf", config, params, vocabulary.directory)

    def pair(bos):
        theirs = lm_eval.HFLM(
            pretrained=transformers.OPTForCausalLM.from_pretrained(folder / "hf"),
            tokenizer=transformers.GPT2Tokenizer.from_pretrained(folder / "hf"),
            add_bos_token=bos,
            prefix_token_id=2,
            batch_size=8,
            device="cpu",
            max_length=LENGTH,
        )
        ours = LoadedModel(opt, params, vocabulary, make_mesh(MeshConfig()), LENGTH, 4, bos)
        return OPTEngine(ours), theirs

    return {bos: pair(bos) for bos in (False, True)}


@pytest.fixture(scope="module")
def sets(real_data):
    """By task, its first rows that fit: prompt, candidates and references."""
    pytest.importorskip("seqio", reason="needs seqio, which reads the sets")
    from iml import seqio_bridge
    from tests.tasks import registered

    registered.clear()
    vocabulary, found = Vocabulary(str(real_data / "opt_bpe")), {}
    for module, names in SETS.items():
        importlib.import_module(module).register(str(real_data))
        for name in names:
            splits = seqio_bridge.describe_source(name)[0]
            split = next(split for split in ("test", "validation", "exemplars", "train") if split in splits)
            found[name] = list(rows_of(seqio_bridge.read_fields(name, split), vocabulary))
        registered.clear()
    return found


def rows_of(examples, vocabulary):
    kept = []
    for fields in examples:
        source = "\n".join(filter(None, (fields.get("instruction", ""), fields["source"]))).rstrip()
        if 0 < len(vocabulary.encode(source)) < LENGTH - 64 and fields["target"].strip():
            kept.append((source, fields))
        if len(kept) == ROWS:
            break
    answers = tuple(dict.fromkeys(fields["target"].strip() for _, fields in kept))[:4]
    for source, fields in kept:
        target = fields["target"].strip()
        candidates = tuple(text.strip() for text in fields.get("candidates") or ())
        yield source, candidates or tuple(dict.fromkeys((target, *answers))), target


@pytest.mark.slow
@pytest.mark.parametrize("bos", [False, True])
def test_the_same_candidates_win_with_the_same_scores(models, sets, bos):
    instance = pytest.importorskip("lm_eval.api.instance")
    engine, theirs = models[bos]
    assert engine.facts["bos"] is bos
    counts = {name: len(found) for name, found in sets.items()}
    assert len(sets) >= 8 and min(counts.values()) >= 2, counts
    rows = [(name, *row) for name, found in sets.items() for row in found]
    requests = [
        Request(name, "test", i, str(i), Prompt(source, "", {}), (right,), choices, "rank", 0)
        for i, (name, source, choices, right) in enumerate(rows)
    ]
    ours = ranking.rank(engine, requests, ("sum", "char"), "sum")
    pairs = [(source, f" {choice}") for _, source, choices, _ in rows for choice in choices]
    asked = [instance.Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    answered = iter(theirs.loglikelihood(asked, disable_tqdm=True))
    found = {name: ([], []) for name in sets}
    for (name, _, choices, right), ranked in zip(rows, ours, strict=True):
        scores = np.array([next(answered)[0] for _ in choices])
        normed = scores / np.array([float(len(choice)) for choice in choices])
        np.testing.assert_allclose(ranked.scores["sum"], scores, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(ranked.scores["char"], normed, atol=1e-3, err_msg=name)
        assert ranked.picks == {"sum": int(np.argmax(scores)), "char": int(np.argmax(normed))}, name
        for answers, pick in zip(found[name], (ranked.picks["sum"], int(np.argmax(scores))), strict=True):
            answers.append(Answer(choices[pick], [right]))
    accuracies = {name: tuple(score("accuracy", answers) for answers in pair) for name, pair in found.items()}
    assert all(mine == peer for mine, peer in accuracies.values()), accuracies


@pytest.mark.slow
@pytest.mark.parametrize("bos", [False, True])
def test_prompts_that_share_demonstrations_score_the_same(models, sets, bos):
    """Three rows of a set stand before each of its others; iml reads them once for all."""
    instance = pytest.importorskip("lm_eval.api.instance")
    engine, theirs = models[bos]
    encode = engine.model.vocabulary.encode
    pairs = []
    for rows in sets.values():
        shown = "".join(f"{source} {target}\n\n\n" for source, _, target in rows[:3])
        few_shot = [(shown + source, choices) for source, choices, _ in rows[3:]]
        pairs += [pair for pair in few_shot if len(encode(pair[0])) < LENGTH - 64]
    assert len(pairs) >= 25
    ours = engine.likelihoods(pairs)
    asked = [(source, f" {choice}") for source, choices in pairs for choice in choices]
    asked = [instance.Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]
    expected = [value for value, _ in theirs.loglikelihood(asked, disable_tqdm=True)]
    found = [likelihood.text for row in ours for likelihood in row]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("bos", [False, True])
def test_greedy_answers_are_the_same(models, sets, bos):
    instance = pytest.importorskip("lm_eval.api.instance")
    engine, theirs = models[bos]
    sources = [
        source
        for name, rows in sets.items()
        if name.startswith(("bbh", "super_nat"))
        for source, *_ in rows[:3]
    ]
    ours = engine.generate(sources, Decoding(max_new_tokens=8))
    settings = {"until": ["</s>"], "max_gen_toks": 8, "do_sample": False}
    asked = [
        instance.Instance("generate_until", {}, (source, settings), i) for i, source in enumerate(sources)
    ]
    expected = theirs.generate_until(asked, disable_tqdm=True)
    assert [answer.text for answer in ours] == [text.strip() for text in expected]
