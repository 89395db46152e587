import json
import pickle
import resource
import tracemalloc
import zipfile

import jax
import numpy as np
import pytest

from iml.errors import InputError
from iml.models import torch_file, weights_hf, weights_metaseq
from iml.models.opt import OPT
from tests.data.small_vocabulary import write_vocabulary
from tests.models.peers import KINDS, transformers_model


@pytest.fixture(params=sorted(KINDS))
def peer(request, tmp_path):
    """transformers' model, and the folder it was saved in."""
    model = transformers_model(KINDS[request.param])
    model.save_pretrained(tmp_path / "theirs")
    return model, tmp_path / "theirs"


def _trees_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _fresh(kind="pre_norm"):
    config = KINDS[kind]
    return config, jax.device_get(OPT(config).init(jax.random.key(0)))


def test_logits_equal_transformers(peer):
    import torch

    model, folder = peer
    config = weights_hf.read_config(folder)
    opt = OPT(type(config)(**{**config.to_json(), "dtype": "float32"}))
    params = weights_hf.read_params(folder)
    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (3, 20))
    real = np.arange(20) >= np.array([0, 7, 15])[:, None]  # the second and third row are padded on the left
    for mask in (np.ones_like(real), real):
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        with torch.no_grad():
            expected = model(
                input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask.astype(np.int64))
            ).logits.numpy()
        found = np.asarray(opt.apply(params, tokens, mask.astype(np.int32), positions))
        assert np.abs(expected).max() > 1  # no comparison of zeros
        np.testing.assert_allclose(found[mask], expected[mask], atol=1e-4)


def test_a_round_trip_keeps_every_bit_and_the_text(peer, tmp_path):
    import torch
    import transformers

    model, folder = peer
    config, params = weights_hf.read_config(folder), weights_hf.read_params(folder)
    write_vocabulary(tmp_path / "bpe", ("gpt2-vocab.json", "gpt2-merges.txt"))
    weights_hf.write(tmp_path / "ours", config, params, tmp_path / "bpe", max_shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 1
    _trees_equal(weights_hf.read_params(tmp_path / "ours"), params)
    assert weights_hf.read_config(tmp_path / "ours") == config
    again, notes = transformers.OPTForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    prompt = torch.tensor([[2, 30, 31, 32]])
    settings = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(prompt, **settings), again.generate(prompt, **settings))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 1)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("prefix", ["model.decoder.", "decoder."])
def test_bin_files_give_what_torch_gives(tmp_path, kind, prefix):
    torch = pytest.importorskip("torch")
    model = transformers_model(KINDS["post_norm"]).to(getattr(torch, kind))
    model.save_pretrained(tmp_path)
    expected = weights_hf.read_params(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {name.replace("model.decoder.", prefix): tensor for name, tensor in model.state_dict().items()}
    names = sorted(state)
    files = {"a.bin": names[: len(names) // 2], "b.bin": names[len(names) // 2 :]}
    for file, part in files.items():
        torch.save({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    params = weights_hf.read_params(tmp_path)
    _trees_equal(params, expected)
    first = state[f"{prefix}layers.1.fc1.weight"].float().numpy()
    np.testing.assert_array_equal(params["layers"]["fc1"]["kernel"][1], first.T)


def test_views_of_one_storage_are_read_by_their_strides(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"view": base[1:, ::2].T, "scalar": torch.tensor(3), "none": base[:0]}, tmp_path / "x.pt")
    content = torch_file.load(tmp_path / "x.pt")
    np.testing.assert_array_equal(content["view"].read(), base[1:, ::2].T.numpy())
    assert content["scalar"].read() == 3 and content["none"].read().shape == (0, 6)


def _archive(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)


class _Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import os
    import subprocess

    mark = tmp_path / "ran"
    attacks = [
        _Call(os.system, f"touch {mark}"),
        _Call(eval, f"open({str(mark)!r}, 'w')"),
        _Call(subprocess.getoutput, f"touch {mark}"),
        _Call(getattr, "x", "upper"),
    ]
    for attack in attacks:
        for protocol in (0, 2, 5):
            _archive(tmp_path / "bad.bin", pickle.dumps({"weights": attack}, protocol))
            with pytest.raises(InputError, match=r"bad\.bin: refuses to run"):
                torch_file.load(tmp_path / "bad.bin")
    assert not mark.exists()


def test_damaged_torch_files_are_told(tmp_path):
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="no such file"):
        torch_file.load(tmp_path / "absent.bin")
    (tmp_path / "x.bin").write_bytes(b"not an archive")
    with pytest.raises(InputError, match="not a zip archive"):
        torch_file.load(tmp_path / "x.bin")
    _archive(tmp_path / "x.bin", b"\x80\x02}q")
    with pytest.raises(InputError, match="damaged"):
        torch_file.load(tmp_path / "x.bin")
    # A tensor that claims more than its storage holds.
    torch.save(torch.arange(6.0), tmp_path / "x.bin")
    with zipfile.ZipFile(tmp_path / "x.bin") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data.replace(b"K\x06\x85", b"K\x63\x85"))
    with pytest.raises(InputError, match="outside its storage"):
        torch_file.load(tmp_path / "x.bin")


def _spoil(folder, change):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_wrong_tensors_are_named(tmp_path):
    config, params = _fresh()
    name = "model.decoder.layers.1.fc1.bias"
    changes = [
        (lambda tensors: tensors.pop(name), "'layers.1.fc1.bias' is missing"),
        (
            lambda tensors: tensors.update({"model.decoder.extra.weight": np.ones(2)}),
            "'extra.weight' belongs",
        ),
        (
            lambda tensors: tensors.update({name: np.ones(3, np.float32)}),
            r"fc1\.bias' is \(3,\), not \(64,\)",
        ),
    ]
    for number, (change, message) in enumerate(changes):
        folder = tmp_path / str(number)
        weights_hf.write(folder, config, params)
        _spoil(folder, change)
        with pytest.raises(InputError, match=message) as raised:
            weights_hf.read_params(folder)
        assert str(folder) in str(raised.value)


def test_damaged_folders_are_told(tmp_path):
    config, params = _fresh()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        weights_hf.read_config(tmp_path)
    weights_hf.write(tmp_path / "x", config, params)
    with pytest.raises(InputError, match="exists already"):
        weights_hf.write(tmp_path / "x", config, params)
    weights = tmp_path / "x" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        weights_hf.read_params(tmp_path / "x")
    weights.unlink()
    with pytest.raises(InputError, match="holds no weights"):
        weights_hf.read_params(tmp_path / "x")
    fields = json.loads((tmp_path / "x" / "config.json").read_text())
    for field, value in {"model_type": "llama", "activation_function": "gelu", "enable_bias": False}.items():
        (tmp_path / "x" / "config.json").write_text(json.dumps({**fields, field: value}))
        with pytest.raises(InputError):
            weights_hf.read_config(tmp_path / "x")


def test_a_failed_write_leaves_nothing(tmp_path):
    config, params = _fresh()
    del params["layers"]["fc2"]["bias"]
    with pytest.raises(InputError, match="layers/fc2/bias"):
        weights_hf.write(tmp_path / "x", config, params)
    with pytest.raises(InputError, match="holds no vocabulary"):
        weights_hf.write(tmp_path / "x", *_fresh(), tmp_path)
    assert not list(tmp_path.iterdir())


def _eighth(stored, part):
    """What one of eight devices holds of a leaf: a part of its longest axis, not that of layers."""
    shape = stored.leaf.shape
    axis = max(range(stored.leaf.stacked, len(shape)), key=lambda axis: shape[axis])
    size = shape[axis] // 8
    cut = slice(part * size, (part + 1) * size if part < 7 else None)
    return axis, tuple(cut if number == axis else slice(None) for number in range(len(shape)))


@pytest.mark.parametrize("form", ["safetensors", "bin", "compressed bin", "metaseq"])
def test_a_part_is_read_without_the_rest(tmp_path, form):
    torch = pytest.importorskip("torch")
    config, _ = _fresh()
    config = type(config)(**{**config.to_json(), "vocab_size": 4096, "embed_dim": 256, "ffn_dim": 2048})
    params = jax.device_get(OPT(config).init(jax.random.key(1)))
    folder = tmp_path / "x"
    weights_hf.write(folder, config, params)
    if form != "safetensors":
        model = transformers_model(config)
        model.save_pretrained(tmp_path / "theirs")
        params = weights_hf.read_params(tmp_path / "theirs", config)
        (folder / "model.safetensors").unlink()
        content, file = model.state_dict(), folder / "pytorch_model.bin"
        if form == "metaseq":
            content, file = _as_metaseq(model, config), tmp_path / "consolidated.pt"
        torch.save(content, file)
        if form == "compressed bin":
            _compress(file)

    def parts(number):
        def place(stored):
            axis, index = _eighth(stored, number)
            return axis, stored.read(index)

        if form == "metaseq":
            return weights_metaseq.read(file, config, place)[1]
        return weights_hf.read_params(folder, config, place)

    tracemalloc.start()
    first = parts(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    total = weights_hf.count_bytes(config)
    if form != "compressed bin":  # which has to be unpacked
        assert peak < total / 8 * 1.3 + 200_000
    rest = [parts(number) for number in range(1, 8)]
    is_part = lambda value: isinstance(value, tuple)  # noqa: E731
    whole = jax.tree.map(
        lambda *cut: np.concatenate([part for _, part in cut], axis=cut[0][0]), first, *rest, is_leaf=is_part
    )
    _trees_equal(whole, params)


def test_what_is_in_files_is_written_tensor_by_tensor(tmp_path):
    config, params = _fresh()
    config = type(config)(**{**config.to_json(), "num_layers": 64, "vocab_size": 64, "max_positions": 8})
    params = jax.device_get(OPT(config).init(jax.random.key(1)))
    weights_hf.write(tmp_path / "x", config, params)
    stored = weights_hf.read_params(tmp_path / "x", place=lambda leaf: leaf)
    tracemalloc.start()
    weights_hf.write(tmp_path / "y", config, stored, max_shard_bytes=20_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < weights_hf.count_bytes(config) / 2
    _trees_equal(weights_hf.read_params(tmp_path / "y"), params)


def _compress(file):
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def _as_metaseq(model, config):
    """The inverse of transformers' script convert_opt_original_pytorch_checkpoint_to_pytorch."""
    import argparse

    import torch

    state = {
        name.removeprefix("model."): tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    renamed = {
        "decoder.project_in.weight": "decoder.project_in_dim.weight",
        "decoder.project_out.weight": "decoder.project_out_dim.weight",
        "decoder.final_layer_norm.weight": "decoder.layer_norm.weight",
        "decoder.final_layer_norm.bias": "decoder.layer_norm.bias",
    }
    state = {renamed.get(name, name): tensor for name, tensor in state.items()}
    for number in range(config.num_layers):
        for kind in ("weight", "bias"):
            place = f"decoder.layers.{number}.self_attn."
            parts = [state.pop(f"{place}{part}_proj.{kind}") for part in "kvq"]
            state[f"{place}qkv_proj.{kind}"] = torch.cat(parts)
    state["decoder.version"] = torch.tensor([3.0])
    state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"]
    settings = argparse.Namespace(
        decoder_attention_heads=config.num_heads, decoder_normalize_before=config.pre_norm, dropout=0.1
    )
    return {"cfg": {"model": settings}, "args": None, "model": state}


def test_metaseq_checkpoints_give_the_same_model(peer, tmp_path):
    import torch

    model, folder = peer
    config = weights_hf.read_config(folder)
    content = _as_metaseq(model, config)
    torch.save(content, tmp_path / "consolidated.pt")
    found, params = weights_metaseq.read(tmp_path / "consolidated.pt")
    assert found == config
    _trees_equal(params, weights_hf.read_params(folder))
    del content["cfg"]
    torch.save(content, tmp_path / "restored.pt")
    with pytest.raises(InputError, match="attention heads"):
        weights_metaseq.read(tmp_path / "restored.pt")
    _trees_equal(weights_metaseq.read(tmp_path / "restored.pt", config)[1], params)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    config, params = _fresh()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # writing fails as on a full disk
    try:
        with pytest.raises(InputError, match=r"new: the weights cannot be written .*Is the disk full"):
            weights_hf.write(tmp_path / "new", config, params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
