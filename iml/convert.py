"""Brings OPT weights in from Hugging Face and metaseq, and takes them out to Hugging Face.

    python -m iml.convert --gin.convert.source=opt-1.3b --gin.convert.target=weights/opt_1.3b
    python -m iml.convert --gin.convert.source=runs/tuned --gin.convert.target=tuned_hf \\
        --gin.convert.target_format=hf
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from iml import configuration
from iml.errors import InputError
from iml.evaluation import model_card
from iml.evaluation.loading import hash_params
from iml.models import weights_hf, weights_metaseq
from iml.models.config import OPTConfig
from iml.models.opt import OPT, Params

_SOURCES = ("auto", "hf", "metaseq", "iml")
_TARGETS = ("iml", "hf")
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
    dry_run: bool = False,
) -> None:
    """Converts a model's weights.

    Args:
      source: a Hugging Face folder, a consolidated metaseq checkpoint (a file), or a folder of iml.
      target: the folder to write; it must not hold anything.
      source_format: "hf", "metaseq", "iml" or "auto", which looks.
      target_format: "iml" or "hf".
      vocabulary_dir: the BPE's folder to keep beside the weights; by default the source's own, if any.
      model: the shape of a metaseq model whose file does not say it.
      dtype: what Hugging Face weights are written in; by default what the parameters are in.
      max_shard_bytes: larger Hugging Face weights go into several files.
      check: compare the logits with those of transformers, where it is installed and one side is a Hugging
        Face folder.
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
    if pathlib.Path(target).exists() and any(pathlib.Path(target).iterdir()):
        raise InputError("exists already", path=target, remedy="Choose a new folder or empty this one")
    config, vocabulary = _describe(source, kind, model)
    vocabulary = vocabulary_dir or vocabulary
    console.print(
        f"{source} ({kind}) -> {target} ({target_format}): {config.num_parameters():,} parameters, "
        f"{config.num_layers} layers of width {config.embed_dim}; vocabulary: {vocabulary or 'none'}",
        markup=False,
    )
    if dry_run:
        console.print(configuration.operative(), markup=False)
        return
    params = _read(source, kind, config)
    if target_format == "hf":
        card = _card(source, target, kind, config, evaluations, contamination)
        weights_hf.write(target, config, params, vocabulary, max_shard_bytes=max_shard_bytes, dtype=dtype)
        # Which of the results are of these parameters takes a pass over them.
        own = hash_params(params) if card.results else ""
        model_card.write(target, dataclasses.replace(card, model_hash=own))
    else:
        _write_iml(target, config, params, vocabulary)
    console.print(f"wrote {target}", markup=False)
    if check:
        reference = target if target_format == "hf" else source if kind == "hf" else None
        difference = _difference(reference, config, params)
        if isinstance(difference, str):
            console.print(f"logits not checked: {difference}", markup=False)
            return
        console.print(f"largest difference of the logits from transformers': {difference:.2e}")
        # Weights written more coarsely than they were read differ as much as the rounding makes them.
        if dtype in (None, "float32") and not difference <= _TOLERANCE:
            raise InputError(f"the logits differ from transformers' by {difference:.2e}", path=target)


def detect(source: str) -> str:
    """Which format a model is in.

    Raises:
      InputError: none that is known.
    """
    path = pathlib.Path(source)
    if path.is_file():
        return "metaseq"
    if not path.is_dir():
        raise InputError("no such file or folder", path=source)
    if (path / "config.json").is_file():
        return "hf"
    return "iml"


def _describe(source: str, kind: str, model: OPTConfig | None) -> tuple[OPTConfig, str | None]:
    """The model's shape, and the folder of its vocabulary."""
    if kind == "iml":
        from iml.training import checkpoints

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


def _read(source: str, kind: str, config: OPTConfig) -> Params:
    if kind == "hf":
        return weights_hf.read_params(source, config)
    if kind == "metaseq":
        return weights_metaseq.read(source, config)[1]
    from iml.training import checkpoints

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
        from iml.training import checkpoints

        found = checkpoints.locate(source)
        step = found.step
        run = None if step is None else found.folder.parent.parent
    name = pathlib.Path(target).absolute().name
    return model_card.gather(name, config, run, step, evaluations, contamination)


def _write_iml(target: str, config: OPTConfig, params: Params, vocabulary: str | None) -> None:
    """Writes beside the target and renames, so that a half-written folder never has its name."""
    from iml.training import checkpoints

    path = pathlib.Path(target).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        checkpoints.save_params(folder, config, params, vocabulary)
        folder.chmod(0o755)
        folder.replace(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _difference(folder: str | None, config: OPTConfig, params: Params) -> float | str:
    """Largest difference of float32 logits from those of transformers, or why they cannot be compared."""
    if folder is None:
        return "neither side is a Hugging Face folder"
    try:
        import torch
        import transformers
    except ImportError as error:
        return f"{error.name} is not installed"
    length = min(16, config.max_positions)
    tokens = np.random.default_rng(0).integers(3, config.vocab_size, (2, length))
    theirs = transformers.OPTForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens)).logits.numpy()
    ours = OPT(dataclasses.replace(config, dtype="float32"))
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    found = np.asarray(ours.apply(params, tokens, np.ones_like(tokens), positions))
    return float(np.abs(found - expected).max())


if __name__ == "__main__":
    configuration.run(convert, doc=__doc__, configurables=(OPTConfig,))
