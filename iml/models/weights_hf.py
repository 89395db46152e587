"""OPT weights in Hugging Face's folders: read and written tensor by tensor."""

from __future__ import annotations

import functools
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import ml_dtypes  # noqa: F401 - makes bfloat16 known to numpy, which safetensors asks for it
import numpy as np
import safetensors
import safetensors.numpy

from iml.errors import InputError
from iml.models import layout, torch_file
from iml.models.config import OPTConfig
from iml.models.opt import Params

#: Fields of ours and theirs that mean the same.
_FIELDS = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "embed_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "ffn_dim": "ffn_dim",
    "max_positions": "max_position_embeddings",
    "pre_norm": "do_layer_norm_before",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "init_std": "init_std",
}
#: What this model is and other OPT configurations might not be, with transformers' defaults.
_FIXED = {
    "activation_function": "relu",
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
    "tie_word_embeddings": True,
    "layerdrop": 0.0,
}
_PREFIXES = ("model.decoder.", "decoder.", "")
_VOCABULARY_FILES = (("vocab.json", "merges.txt"), ("gpt2-vocab.json", "gpt2-merges.txt"))
_EOS, _PAD = "</s>", "<pad>"


def read_config(path: str | os.PathLike[str]) -> OPTConfig:
    """The model's shape from a folder's config.json.

    Raises:
      InputError: the file is absent or damaged, or describes a model that is not this OPT.
    """
    file = pathlib.Path(path) / "config.json"
    fields = _read_json(file)
    if fields.get("model_type") != "opt":
        raise InputError(f"a model of type {fields.get('model_type')!r}, not OPT", path=file)
    for name, value in _FIXED.items():
        if fields.get(name, value) != value:
            raise InputError(f"{fields[name]!r} is not supported, only {value!r}", path=file, field=name)
    known = {ours: fields[theirs] for ours, theirs in _FIELDS.items() if theirs in fields}
    pre_norm = known.get("pre_norm", True)
    try:
        return OPTConfig(
            **known,
            word_embed_dim=fields.get("word_embed_proj_dim"),
            final_norm=pre_norm and not fields.get("_remove_final_layer_norm", False),
        )
    except TypeError as error:
        raise InputError(f"a field has a value of the wrong type ({error})", path=file) from error


def read_params(
    path: str | os.PathLike[str],
    config: OPTConfig | None = None,
    place: layout.Place = layout.StoredLeaf.read,
) -> Params:
    """Parameters from safetensors or .bin files, sharded or not, in `config.param_dtype`.

    See `layout.assemble` for `place`, which decides what is read.

    Raises:
      InputError: a file is absent or damaged, or a tensor is missing, too many or of another shape.
    """
    folder = pathlib.Path(path)
    tensors: dict[str, layout.Tensor] = {}
    for file in _weight_files(folder):
        for name, tensor in _tensors(file):
            if name == "lm_head.weight":  # the tied token table once more
                continue
            prefix = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
            short = name.removeprefix(prefix)
            if short in tensors:
                raise InputError(f"tensor {name!r} comes twice", path=file)
            tensors[short] = tensor
    return layout.assemble(config or read_config(folder), tensors, str(folder), place)


def write(
    path: str | os.PathLike[str],
    config: OPTConfig,
    params: Params,
    vocabulary_dir: str | os.PathLike[str] | None = None,
    *,
    max_shard_bytes: int = 5_000_000_000,
    dtype: str | None = None,
) -> None:
    """Writes a folder that transformers loads: config, weights as safetensors and, if given, the tokenizer.

    The folder appears whole or not at all.

    Args:
      path: the folder; it must not exist, or be empty.
      config: the model's shape.
      params: its parameters.
      vocabulary_dir: the folder of the BPE's two files.
      max_shard_bytes: weights beyond it go into several files with an index.
      dtype: what to write the weights in; as they are by default.

    Raises:
      InputError: the folder holds something, the vocabulary is not there, the parameters are not this
        model's, or the disk is full.
    """
    target = pathlib.Path(path).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError("exists already", path=target, remedy="Choose a new folder or empty this one")
    vocabulary = None if vocabulary_dir is None else vocabulary_files(vocabulary_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        written = _write_weights(folder, config, params, max_shard_bytes, dtype)
        _write_json(folder / "config.json", _config_fields(config, written))
        tokens = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
        _write_json(folder / "generation_config.json", {"_from_model_config": True, **tokens})
        if vocabulary:
            _write_tokenizer(folder, vocabulary, config.max_positions)
        folder.chmod(0o755)
        folder.replace(target)
    except safetensors.SafetensorError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(
            f"the weights cannot be written ({error})", path=target, remedy="Is the disk full?"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def vocabulary_files(folder: str | os.PathLike[str]) -> tuple[pathlib.Path, pathlib.Path]:
    """The vocabulary and merges files of a folder, under Hugging Face's names or metaseq's.

    Raises:
      InputError: the folder does not hold both.
    """
    for names in _VOCABULARY_FILES:
        vocabulary, merges = (pathlib.Path(folder) / name for name in names)
        if vocabulary.is_file() and merges.is_file():
            return vocabulary, merges
    raise InputError("holds no vocabulary", path=folder, remedy="It needs vocab.json and merges.txt")


# ------------------------------------------------------------------------------------------ reading


def _weight_files(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The files that hold weights: what is safe to read comes first, an index before a single file."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = _read_json(index).get("weight_map")
            if not isinstance(files, dict):
                raise InputError("has no weight_map", path=index)
            if odd := [file for file in files.values() if pathlib.PurePath(file).name != file]:
                raise InputError(f"names a file outside the folder: {odd[0]!r}", path=index)
            return tuple(folder / file for file in sorted(set(files.values())))
        if (folder / name).is_file():
            return (folder / name,)
    raise InputError(
        "holds no weights", path=folder, remedy="Expected model.safetensors or pytorch_model.bin, or an index"
    )


def _tensors(file: pathlib.Path) -> Iterator[tuple[str, layout.Tensor]]:
    if file.suffix != ".safetensors":
        yield from from_torch(torch_file.load(file), file)
        return
    try:
        with safetensors.safe_open(file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                shape = tuple(opened.get_slice(name).get_shape())
                yield name, layout.Tensor(str(file), shape, functools.partial(_read_tensor, file, name))
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"cannot be read ({error})", path=file) from error


def from_torch(state: Any, file: str | os.PathLike[str]) -> Iterator[tuple[str, layout.Tensor]]:
    """The tensors of a state dict of torch.

    Raises:
      InputError: it is something else.
    """
    if not isinstance(state, dict):
        raise InputError("holds no dict of tensors", path=file)
    for name, value in state.items():
        if not isinstance(value, torch_file.TorchTensor):
            raise InputError(f"{name!r} is not a tensor", path=file)
        yield name, layout.Tensor(os.fspath(file), value.shape, value.read)


def _read_tensor(file: pathlib.Path, name: str, index: tuple[slice, ...]) -> np.ndarray:
    try:
        with safetensors.safe_open(file, "np") as opened:
            return opened.get_slice(name)[index]
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"tensor {name!r} cannot be read ({error})", path=file) from error


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", path=file) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", path=file) from error
    if not isinstance(fields, dict):
        raise InputError("is not a JSON object", path=file)
    return fields


# ------------------------------------------------------------------------------------------ writing


def _write_weights(
    folder: pathlib.Path, config: OPTConfig, params: Params, max_bytes: int, dtype: str | None
) -> np.dtype:
    """Writes the weights in as many files as needed; returns the type they are written in."""
    shards: list[dict[str, np.ndarray]] = [{}]
    parts: list[tuple[pathlib.Path, list[str]]] = []
    size = total = 0

    def flush() -> None:
        part = folder / f"part-{len(parts)}"
        safetensors.numpy.save_file(shards[0], part, metadata={"format": "pt"})
        parts.append((part, list(shards[0])))
        shards[0] = {}

    wanted = None if dtype is None else np.dtype(dtype)
    for name, tensor in layout.disassemble(config, params):
        tensor = tensor if wanted is None else tensor.astype(wanted)
        written = tensor.dtype
        if shards[0] and size + tensor.nbytes > max_bytes:
            flush()
            size = 0
        shards[0][f"model.decoder.{name}"] = tensor
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(parts) == 1:
        parts[0][0].rename(folder / "model.safetensors")
        return written
    weight_map = {}
    for number, (part, names) in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        part.rename(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / "model.safetensors.index.json", index)
    return written


def _config_fields(config: OPTConfig, dtype: np.dtype) -> dict[str, Any]:
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        **{theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()},
        **_FIXED,
        "word_embed_proj_dim": config.word_dim,
        "_remove_final_layer_norm": config.pre_norm and not config.final_norm,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "prefix": _EOS,
        "torch_dtype": dtype.name,
        "use_cache": True,
    }


def _write_tokenizer(
    folder: pathlib.Path, files: tuple[pathlib.Path, pathlib.Path], max_positions: int
) -> None:
    for file, name in zip(files, _VOCABULARY_FILES[0], strict=True):
        shutil.copyfile(file, folder / name)
    special = {"bos_token": _EOS, "eos_token": _EOS, "unk_token": _EOS, "pad_token": _PAD}
    _write_json(folder / "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "errors": "replace",
        "model_max_length": max_positions,
        **special,
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(file: pathlib.Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def count_bytes(config: OPTConfig) -> int:
    """Bytes of the model's parameters in `param_dtype`."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in layout.leaves(config))
