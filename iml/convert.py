"""Brings OPT weights in from Hugging Face and metaseq, and takes them out to Hugging Face.

    python -m iml.convert --gin.convert.source=opt-1.3b --gin.convert.target=weights/opt_1.3b
    python -m iml.convert --gin.convert.source=runs/tuned --gin.convert.target=tuned_hf \\
        --gin.convert.target_format=hf

Low-rank adapters are merged into the weights, unless `target_format` is "peft", which keeps them apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from rich.console import Console

from iml import configuration
from iml.errors import InputError
from iml.evaluation.engines.loading import hash_params
from iml.evaluation.reports import model_card
from iml.models import layout, weights_hf, weights_metaseq, weights_peft
from iml.models import lora as lora_lib
from iml.models.adapters import LoRA
from iml.models.config import OPTConfig
from iml.models.opt import OPT, Params
from iml.training import checkpoints, leaf_by_leaf
from iml.training.tuning import join

_SOURCES = ("auto", "hf", "metaseq", "iml", "peft")
_TARGETS = ("iml", "hf", "peft")
#: How far float32 logits may lie from transformers'.
_TOLERANCE = 1e-3


def convert(
    source: str,
    target: str,
    source_format: str = "auto",
    target_format: str = "iml",
    vocabulary_dir: str | None = None,
    model: OPTConfig | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    check: bool = True,
    evaluations: Sequence[str] | None = None,
    contamination: str | None = None,
    base: str | None = None,
    dry_run: bool = False,
) -> None:
    """Converts a model's weights.

    Args:
      source: a Hugging Face folder, a consolidated metaseq checkpoint (a file), a folder of iml,
        or PEFT's adapters.
      target: the folder to write; it must not hold anything.
      source_format: "hf", "metaseq", "iml", "peft" or "auto", which looks.
      target_format: "iml", "hf" or, of a run that trains adapters, "peft".
      vocabulary_dir: the BPE's folder to keep beside the weights; by default the source's own, if any.
      model: the shape of a metaseq model whose file does not say it.
      dtype: what Hugging Face weights are written in; by default what the parameters are in.
      max_shard_bytes: larger Hugging Face weights go into several files.
      check: compare the logits with those of transformers, where it is installed and one side is a Hugging
        Face folder; of adapters over float32 weights from such a folder, with those of PEFT. Both models are then
        in memory, whole.
      base: the folder of the model that PEFT's adapters belong to; by default the one that they name or, where
        they are written, the one that the run began from.
      dry_run: say what would be done, do nothing.

    Raises:
      InputError: the source is not a model, the target holds something, or the logits differ.
    """
    console = Console()
    if source_format not in _SOURCES:
        raise InputError(f"must be one of {', '.join(_SOURCES)}", field="convert.source_format")
    if target_format not in _TARGETS:
        raise InputError(f"must be one of {', '.join(_TARGETS)}", field="convert.target_format")
    if dtype is not None and dtype not in ("float32", "bfloat16", "float16"):
        raise InputError("must be float32, bfloat16 or float16", field="convert.dtype")
    kind = detect(source) if source_format == "auto" else source_format
    if kind == "peft":
        base = weights_peft.base_folder(source, base)
    if pathlib.Path(target).exists() and any(pathlib.Path(target).iterdir()):
        raise InputError("exists already", path=target, remedy="Choose a new folder or empty this one")
    config, vocabulary = (
        _describe(base, detect(base), model) if kind == "peft" else _describe(source, kind, model)
    )
    vocabulary = vocabulary_dir or vocabulary
    console.print(
        f"{source} ({kind}) -> {target} ({target_format}): {config.num_parameters():,} parameters, "
        f"{config.num_layers} layers of width {config.embed_dim}; vocabulary: {vocabulary or 'none'}",
        markup=False,
        soft_wrap=True,
    )
    if dry_run:
        console.print(configuration.operative(), markup=False)
        return
    if target_format == "peft":
        lora, base = _write_peft(source, kind, target, base)
        console.print(f"wrote {target}", markup=False)
        if check:
            exact = (
                lora.base == "float32" and base is not None and pathlib.Path(base, "config.json").is_file()
            )
            params = _read(source, kind, config) if exact else {}
            _check(console, base if exact else None, config, params, adapters=target)
        return
    if kind == "peft":
        params = _read_merged(source, base, config)
    else:
        # What goes from file to file is read as it is written.
        params = _read(source, kind, config, lambda leaf: leaf)
    if target_format == "hf":
        card = _card(source, target, kind, config, evaluations, contamination)
        weights_hf.write(target, config, params, vocabulary, max_shard_bytes=max_shard_bytes, dtype=dtype)
        if card.results or check:
            params = jax.tree.map(
                lambda leaf: leaf.read() if isinstance(leaf, layout.StoredLeaf) else leaf, params
            )
        # Which of the results are of these parameters takes a pass over them.
        own = hash_params(params) if card.results else ""
        model_card.write(target, dataclasses.replace(card, model_hash=own))
    else:
        stored = kind in ("hf", "metaseq")
        with _new_folder(target) as folder:
            write = leaf_by_leaf.save_params if stored else checkpoints.save_params
            write(folder, config, params, vocabulary)
    console.print(f"wrote {target}", markup=False)
    if check:
        reference = target if target_format == "hf" else source if kind == "hf" else None
        if reference == source:
            params = checkpoints.load_params(target)[1]
        coarse = dtype not in (None, "float32")
        _check(console, reference, config, params, coarse=coarse)


def detect(source: str) -> str:
    """Which format a model, or adapters for one, is in.

    Raises:
      InputError: none that is known.
    """
    path = pathlib.Path(source)
    if path.is_file():
        return "metaseq"
    if not path.is_dir():
        raise InputError("no such file or folder", path=source)
    if weights_peft.is_peft(path):
        return "peft"
    if (path / "config.json").is_file():
        return "hf"
    return "iml"


def _describe(source: str, kind: str, model: OPTConfig | None) -> tuple[OPTConfig, str | None]:
    """The model's shape, and the folder of its vocabulary."""
    if kind == "iml":
        found = checkpoints.locate(source)
        return found.config, None if found.vocabulary is None else str(found.vocabulary)
    folder = pathlib.Path(source) if kind == "hf" else pathlib.Path(source).parent
    try:
        weights_hf.vocabulary_files(folder)
        vocabulary = str(folder)
    except InputError:
        vocabulary = None
    if kind == "hf":
        return weights_hf.read_config(source), vocabulary
    return model or weights_metaseq.read_config(source), vocabulary


def _read(source: str, kind: str, config: OPTConfig, place: layout.Place = layout.StoredLeaf.read) -> Params:
    """The model's parameters; `place` says what is made of those in the files of others."""
    if kind == "hf":
        return weights_hf.read_params(source, config, place)
    if kind == "metaseq":
        return weights_metaseq.read(source, config, place)[1]
    return checkpoints.load_params(source)[1]


def _card(
    source: str,
    target: str,
    kind: str,
    config: OPTConfig,
    evaluations: Sequence[str] | None,
    contamination: str | None,
) -> model_card.Facts:
    """What the card of a Hugging Face folder tells; read before anything is written."""
    run, step = None, None
    if kind == "iml":
        found = checkpoints.locate(source)
        step = found.step
        run = None if step is None else found.folder.parent.parent
    name = pathlib.Path(target).absolute().name
    return model_card.gather(name, config, run, step, evaluations, contamination)


def _read_merged(source: str, base: str, config: OPTConfig) -> Params:
    """The parameters of a model with PEFT's adapters merged into them."""
    lora, _ = weights_peft.read_config(source)
    plain = _read(base, detect(base), config)
    return lora_lib.merge(lora, config, join(weights_peft.read(source, config), plain))


def _write_peft(source: str, kind: str, target: str, base: str | None) -> tuple[LoRA, str | None]:
    """Writes a run's adapters; gives their settings and the folder of the model that they belong to."""
    if kind != "iml":
        raise InputError("only a run of iml.train has adapters to write", path=source)
    lora, adapters = checkpoints.load_adapters(source)
    run = checkpoints.locate(source).folder.parent.parent
    base = base or json.loads((run / "plan.json").read_text()).get("init_from")
    with _new_folder(target) as folder:
        weights_peft.write(folder, lora, adapters, base)
    return lora, base


@contextlib.contextmanager
def _new_folder(target: str) -> Iterator[pathlib.Path]:
    """A folder beside the target that gets its name at the end, so that a half-written one never has it."""
    path = pathlib.Path(target).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check(
    console: Console,
    folder: str | None,
    config: OPTConfig,
    params: Params,
    adapters: str | None = None,
    coarse: bool = False,
) -> None:
    """Compares logits with those of a Hugging Face folder, which may have PEFT's adapters beside it.

    Raises:
      InputError: they differ, though the weights were not written more coarsely than they were read.
    """
    difference = _difference(folder, config, params, adapters)
    if isinstance(difference, str):
        console.print(f"logits not checked: {difference}", markup=False)
        return
    peer = "PEFT" if adapters else "transformers"
    console.print(f"largest difference of the logits from those of {peer}: {difference:.2e}")
    if not coarse and not difference <= _TOLERANCE:
        raise InputError(f"the logits differ from those of {peer} by {difference:.2e}", path=folder)


def _difference(folder: str | None, config: OPTConfig, params: Params, adapters: str | None) -> float | str:
    """Largest difference of float32 logits from those of a folder, or why they cannot be compared."""
    if folder is None:
        return "no side is a Hugging Face folder with these weights"
    try:
        import torch
        import transformers
    except ImportError as error:
        return f"{error.name} is not installed"
    transformers.utils.logging.disable_progress_bar()
    length = min(16, config.max_positions)
    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (2, length))
    theirs = transformers.OPTForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if adapters:
        try:
            import peft
        except ImportError:
            return "peft is not installed"
        theirs = peft.PeftModel.from_pretrained(theirs, adapters).eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens)).logits.numpy()
    ours = OPT(dataclasses.replace(config, dtype="float32"))
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    found = np.asarray(ours.apply(params, tokens, np.ones_like(tokens), positions))
    return float(np.abs(found - expected).max())


if __name__ == "__main__":
    configuration.run(convert, doc=__doc__, configurables=(OPTConfig,))
