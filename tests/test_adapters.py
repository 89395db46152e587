"""Adapters to and from PEFT, and into plain weights, through `iml.convert` and `iml.train`."""

import dataclasses

import numpy as np
import pytest

from iml.convert import convert
from iml.errors import InputError
from iml.models.adapters import PROJECTIONS, LoRA
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training.checkpoints import load_params
from tests.training import tiny

SHAPE = {"vocab_size": 272, "num_layers": 2, "embed_dim": 64, "num_heads": 8, "ffn_dim": 128, "dropout": 0.0}
CONFIG = OPTConfig(**SHAPE, max_positions=tiny.LENGTH, dtype="float32")
TOKENS = np.random.default_rng(0).integers(4, 272, (2, 16))


def ours(params):
    rows = np.ones_like(TOKENS), np.broadcast_to(np.arange(16), TOKENS.shape)
    return np.asarray(OPT(CONFIG).apply(params, TOKENS, *rows))


def theirs(model):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model.eval()(input_ids=torch.from_numpy(TOKENS)).logits.numpy()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of Hugging Face's OPT."""
    pytest.importorskip("torch", reason="the peers of adapters need torch")
    transformers = pytest.importorskip("transformers", reason="the peer of OPT is not installed")
    fields = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "word_embed_proj_dim": 64}
    fields |= {"ffn_dim": 128, "vocab_size": 272, "max_position_embeddings": tiny.LENGTH}
    folder = tmp_path_factory.mktemp("base")
    transformers.set_seed(0)
    transformers.OPTForCausalLM(transformers.OPTConfig(**fields)).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_run_leaves_for_peft_and_merges_into_plain_weights(base, tmp_path, capsys):
    peft = pytest.importorskip("peft", reason="adapters' peer is not installed")
    transformers = pytest.importorskip("transformers")
    lora = LoRA(4, 16.0, 0.1, PROJECTIONS)
    model = {name: value for name, value in SHAPE.items() if name != "vocab_size"}
    settings = {"model": model, "tuning": lora, "init_from": str(base), "steps": 4}
    record = tiny.run(tmp_path, **settings)
    assert np.isfinite(record["loss"])
    run = tmp_path / "run"
    _, merged = load_params(run)
    convert(str(run), str(tmp_path / "peft"), target_format="peft")
    assert "logits from those of PEFT" in capsys.readouterr().out
    plain = transformers.OPTForCausalLM.from_pretrained(base)
    before = theirs(plain)
    tuned = theirs(peft.PeftModel.from_pretrained(plain, tmp_path / "peft"))
    np.testing.assert_allclose(ours(merged), tuned, atol=1e-5)
    assert np.abs(tuned - before).max() > 1e-3

    # Back again, as plain weights and as the beginning of another run.
    convert(str(tmp_path / "peft"), str(tmp_path / "plain"), check=False)
    np.testing.assert_allclose(ours(load_params(tmp_path / "plain")[1]), tuned, atol=1e-5)
    tiny.run(tmp_path, **settings | {"run": "again", "init_from": str(tmp_path / "peft"), "steps": 1})
    np.testing.assert_allclose(
        ours(load_params(tmp_path / "again" / "checkpoints" / "0")[1]), tuned, atol=1e-5
    )
    with pytest.raises(InputError, match=r"adapters have rank 4, alpha 16"):
        other = dataclasses.replace(lora, rank=8)
        tiny.run(
            tmp_path, **settings | {"run": "other", "tuning": other, "init_from": str(tmp_path / "peft")}
        )
    with pytest.raises(InputError, match=r"other settings \(tuning: rank was 4, is 8"):
        tiny.run(tmp_path, **settings | {"tuning": other})


def test_adapters_that_peft_made_are_merged(base, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters' peer is not installed")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    plain = transformers.OPTForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["v_proj", "fc1"], use_rslora=True)
    model = peft.get_peft_model(plain, config)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight) * 0.1
    expected = theirs(model)
    model.save_pretrained(tmp_path / "peft")
    convert(str(tmp_path / "peft"), str(tmp_path / "plain"), base=str(base), check=False)
    np.testing.assert_allclose(ours(load_params(tmp_path / "plain")[1]), expected, atol=1e-5)
