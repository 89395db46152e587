"""The scorers `sum` and `char` are lm-evaluation-harness' `acc` and `acc_norm`, on real questions."""

import json

import numpy as np
import pytest

from iml.data.prompts import Prompt
from iml.data.vocabulary import Vocabulary
from iml.evaluation import ranking
from iml.evaluation.loading import LoadedModel
from iml.evaluation.opt_engine import OPTEngine
from iml.evaluation.requests import Request
from iml.models import weights_hf
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training.mesh import MeshConfig, make_mesh
from tests.evaluation.models import random_params

SETS = ("copa", "piqa", "openbook_qa", "boolq")


@pytest.mark.slow
@pytest.mark.parametrize("bos", [False, True])
def test_the_same_candidates_win_with_the_same_scores(tmp_path, real_data, bos):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    lm_eval = pytest.importorskip("lm_eval.models.huggingface")
    instance = pytest.importorskip("lm_eval.api.instance")
    vocabulary = Vocabulary(str(real_data / "opt_bpe"))
    config = OPTConfig(num_layers=2, embed_dim=32, num_heads=2, max_positions=512, dtype="float32")
    opt = OPT(config)
    params = random_params(opt)
    weights_hf.write(tmp_path / "hf", config, params, vocabulary.directory)
    model = LoadedModel(opt, params, vocabulary, make_mesh(MeshConfig()), 512, 4, bos)
    theirs = lm_eval.HFLM(
        pretrained=transformers.OPTForCausalLM.from_pretrained(tmp_path / "hf"),
        tokenizer=transformers.GPT2Tokenizer.from_pretrained(tmp_path / "hf"),
        add_bos_token=bos,
        prefix_token_id=2,
        batch_size=8,
        device="cpu",
        max_length=512,
    )
    rows = [row for name in SETS for row in read(real_data / "opt_tasks" / f"{name}.jsonl", 12)]
    requests = [
        Request("t.a", "test", i, str(i), Prompt(query, "", {}), (), choices, "rank", 0)
        for i, (query, choices) in enumerate(rows)
    ]
    ours = ranking.rank(OPTEngine(model), requests, ("sum", "char"), "sum")
    pairs = [(query, f" {choice}") for query, choices in rows for choice in choices]
    asked = [instance.Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found = iter(theirs.loglikelihood(asked, disable_tqdm=True))
    for (_, choices), ranked in zip(rows, ours, strict=True):
        scores = np.array([next(found)[0] for _ in choices])
        normed = scores / np.array([float(len(choice)) for choice in choices])
        np.testing.assert_allclose(ranked.scores["sum"], scores, atol=1e-3)
        np.testing.assert_allclose(ranked.scores["char"], normed, atol=1e-3)
        assert ranked.picks == {"sum": int(np.argmax(scores)), "char": int(np.argmax(normed))}


def read(path, count):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return [(row["query"].rstrip(), tuple(row["choices"])) for row in rows]
