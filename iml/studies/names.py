"""Hashes by which runs and evaluations are called: of all that their results depend on, and of nothing else."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from iml import configuration, evaluate, train
from iml.data.store import ExampleStore
from iml.data.stream import TrainStream
from iml.data.vocabulary import Vocabulary

#: Settings of iml.train that its results depend on, beside those that its fingerprints cover.
_UPDATES = ("optimizer", "loss_scale", "steps", "microbatches", "packing")
#: Settings of the model that only training knows.
_DROPOUT = ("dropout", "embed_dropout", "attention_dropout")
#: Settings of iml.evaluate that its results depend on, beside suite and store.
_ASKED = ("bos", "dtype", "max_length", "seed")
#: Settings of iml.train that decide which checkpoints there are to choose from.
_CHECKPOINTS = ("keep", "checkpoint_period", "eval_period")


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training run's gin files and bindings come to.

    Attributes:
      name: hash of what the parameters that are evaluated depend on.
      shape: hash of what its speed depends on.
      given: arguments of iml.train.
    """

    name: str
    shape: str
    given: Mapping[str, Any]


def name_training(
    files: Sequence[str], bindings: Sequence[str], begins_from: str | None, chooses: bool
) -> Training:
    """Names a training run.

    Args:
      files, bindings: of iml.train, without the run's folder.
      begins_from: the run whose last parameters it begins from, or None.
      chooses: whether one of its checkpoints is chosen, so that it matters which there are.

    Raises:
      InputError: a file, binding or setting is wrong; or the store is missing.
    """
    given = configuration.arguments(
        train.train, train.CONFIGURABLES, files, [*bindings, "RUN_DIR = 'run'"], train.FLAGS
    )
    depends, shape = _trained(given, begins_from)
    if chooses:
        depends["checkpoints"] = {name: given[name] for name in _CHECKPOINTS}
    return Training(_hash(depends), _hash(shape), given)


def name_evaluation(files: Sequence[str], bindings: Sequence[str], best: bool) -> str:
    """Names what a run is asked.

    Args:
      files, bindings: of iml.evaluate, without model and folders.
      best: whether it is asked of the checkpoint that is best on validation, or of the last.

    Raises:
      InputError: a file, binding or setting is wrong; or the store is missing.
    """
    folders = ("MODEL = 'model'", "OUTPUT_DIR = 'results'")
    given = configuration.arguments(
        evaluate.evaluate, evaluate.CONFIGURABLES, files, [*bindings, *folders], evaluate.FLAGS
    )
    depends = {name: given[name] for name in _ASKED} | {"best": best}
    return _hash(depends | {"suite": _told(given["suite"]), "store": _store(given["store_dir"]).fingerprint})


def _trained(given: Mapping[str, Any], begins_from: str | None) -> tuple[dict[str, Any], Any]:
    """What the trained parameters depend on, and what speed does; JSON-able."""
    model, tuning, begin = given["model"], given["tuning"], begins_from or given["init_from"]
    vocabulary = _vocabulary(str(given["vocabulary_dir"]))
    told = {"model": _told(model, without=train.FREE), "tuning": _told(tuning)}
    shape = told | {name: given[name] for name in ("batch_size", "length", "target_budget")}
    init = {"init": begin, "init_std": model.init_std if begin is None else None}
    if given["steps"] == 0:
        # The untuned model: what would come after does not matter.
        seed = given["seed"] if begin is None else None
        evaluated = _told(model, without=(*train.FREE, *_DROPOUT))
        return {"model": evaluated, "vocabulary": vocabulary.fingerprint, "seed": seed, **init}, shape
    stream = TrainStream(
        _store(given["store_dir"]),
        vocabulary,
        given["mixture"],
        given["prompt_format"],
        given["batch_size"],
        given["length"],
        seed=given["seed"],
        segments=given["segments"],
        target_budget=given["target_budget"],
    )
    prints = train.fingerprints(model, tuning, stream)
    # The stream's own fingerprint covers the format of prompts.
    prints = {name: value for name, value in prints.items() if name != "prompt_format"}
    updates = {name: _told(given[name]) for name in _UPDATES}
    return {**prints, **told, **updates, **init, "dtype": model.dtype}, shape


def _told(value: Any, without: Sequence[str] = ()) -> Any:
    """Settings that are not at their defaults, so that a setting that a later version adds changes no hash."""
    if isinstance(value, Mapping):
        return {str(key): _told(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_told(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    told = {"is": type(value).__name__}
    for field in dataclasses.fields(value):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found = getattr(value, field.name)
        if found != default and field.name not in without:
            told[field.name] = _told(found)
    return told


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@functools.lru_cache(maxsize=8)
def _store(path: str) -> ExampleStore:
    return ExampleStore(path)


@functools.lru_cache(maxsize=8)
def _vocabulary(path: str) -> Vocabulary:
    return Vocabulary(path)
