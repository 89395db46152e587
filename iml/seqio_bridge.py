"""SeqIO's side of the bench: tasks and mixtures that are genuine SeqIO ones, and the cards beside them.

This module and `iml.prepare` are the only ones of `iml` that import SeqIO and TensorFlow.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from iml.bench import registry
from iml.bench.card import Example, TaskCard
from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what native code writes to the standard error stream."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as sink:  # noqa: PTH123
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


# TensorFlow tells of CPU features and missing GPUs at import, before its logging can be set: no news to whoever
# prepares data. What it tells later obeys the variable.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _silence():
    import seqio
    import tensorflow as tf

#: Environment variable that names the folder of the vocabulary which SeqIO's token features are made with.
VOCABULARY_VARIABLE = "IML_VOCABULARY"

Read = Callable[[str], Iterable[Mapping[str, Any]]]

#: Preprocessors of SeqIO's that a task's text stops before: what they do is done later, or not at all.
_NOT_TEXT = frozenset(
    (
        seqio.preprocessors.tokenize,
        seqio.preprocessors.tokenize_and_append_eos,
        seqio.preprocessors.append_eos,
        seqio.preprocessors.append_eos_after_trim,
    )
)
#: Seed of preprocessors that draw at random (`seqio.map_over_dataset(num_seeds=...)`).
SEED = 0


class PythonSource(seqio.DataSource):
    """A SeqIO data source whose examples a Python function yields, as mappings of `Example`'s fields.

    `iml.prepare` calls the function itself; SeqIO sees the same examples through `tf.data`, as `inputs` and
    `targets` and all other fields.
    """

    def __init__(self, read: Read, splits: Sequence[str], files: Sequence[str | os.PathLike[str]] = ()):
        """
        Args:
          read: yields the examples of a split; picklable if tasks are prepared in several processes.
          splits: the splits there are.
          files: what the examples are read from; a task is prepared again when one of them changes.
        """
        self.read = read
        self.files = tuple(os.fspath(file) for file in files)
        super().__init__(splits=tuple(splits), num_input_examples=None, caching_permitted=False)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
    ) -> tf.data.Dataset:
        text, texts = tf.TensorSpec((), tf.string), tf.TensorSpec((None,), tf.string)
        signature = dict.fromkeys(("uid", "inputs", "targets", "template", "rationale", "metric_data"), text)
        signature |= {"references": texts, "candidates": texts}

        def generate() -> Iterator[dict[str, Any]]:
            for fields in self.read(split):
                example = Example.from_json(fields)
                source = "\n".join(part for part in (example.instruction, example.source) if part)
                yield {
                    "uid": example.uid,
                    "inputs": source,
                    "targets": example.target,
                    "template": example.template,
                    "rationale": example.rationale,
                    "metric_data": example.metric_data,
                    "references": list(example.references),
                    "candidates": list(example.candidates),
                }

        dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
        if shard_info and shard_info.num_shards > 1:
            dataset = dataset.shard(shard_info.num_shards, shard_info.index)
        return dataset.shuffle(10_000, seed=seed) if shuffle else dataset


class SeqioVocabulary(seqio.Vocabulary):
    """OPT's byte-level BPE as a SeqIO vocabulary, over `iml.data.vocabulary.Vocabulary`.

    Its id 0, `<s>`, never occurs in encoded text, so that SeqIO's padding with 0 is told apart from text.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None):
        """
        Args:
          directory: the folder of the vocabulary's two files; None for the one that `set_vocabulary` chose,
            looked up when the first text is encoded, so that registering a task needs no vocabulary.
        """
        super().__init__(extra_ids=0)
        self._directory = None if directory is None else os.fspath(directory)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary underneath.

        Raises:
          InputError: none was chosen.
        """
        directory = self._directory or os.environ.get(VOCABULARY_VARIABLE)
        if not directory:
            raise InputError(
                "no vocabulary is chosen for SeqIO's token features",
                remedy=f"Call iml.seqio_bridge.set_vocabulary(folder) or set {VOCABULARY_VARIABLE}",
            )
        return _vocabulary(directory)

    @property
    def eos_id(self) -> int:
        return Vocabulary.EOS

    @property
    def unk_id(self) -> int:
        return Vocabulary.UNK

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.padded_size

    def _encode(self, s: str) -> list[int]:
        return self.vocabulary.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes) -> np.ndarray:
            return np.asarray(self.vocabulary.encode(text.decode("utf-8", "replace")), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def decode(array: Any) -> Any:
            if array.ndim == 1:
                return self._decode(array.tolist()).encode()
            return [self._decode(row.tolist()).encode() for row in array]

        return tf.numpy_function(decode, [ids], tf.string)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioVocabulary) and other._directory == self._directory

    def __hash__(self) -> int:
        return hash(self._directory)


class TargetVocabulary(SeqioVocabulary):
    """The vocabulary of targets and predictions: the space that parts one from its source is not its text."""

    def _decode(self, ids: Sequence[int]) -> str:
        return super()._decode(ids).removeprefix(" ")


def set_vocabulary(directory: str | os.PathLike[str]) -> None:
    """Chooses the vocabulary of all tasks' token features, before or after they are registered."""
    os.environ[VOCABULARY_VARIABLE] = os.fspath(directory)


@functools.cache
def _vocabulary(directory: str) -> Vocabulary:
    return Vocabulary(directory)


def _tokenize(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """`inputs` and `targets` as the ids that training makes of them; the target ends with EOS."""
    feature = OUTPUT_FEATURES["targets"]

    def encode(source: bytes, target: bytes) -> tuple[np.ndarray, np.ndarray]:
        prompt = Prompt(source.decode("utf-8", "replace"), target.decode("utf-8", "replace"), {})
        [document] = encode_prompts(feature.vocabulary.vocabulary, [prompt], sys.maxsize)
        return document.tokens[: document.target_start], document.tokens[document.target_start :]

    def convert(fields: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        texts = {name: fields.get(name, tf.constant("")) for name in OUTPUT_FEATURES}
        ids = tf.numpy_function(encode, [texts["inputs"], texts["targets"]], [feature.dtype] * 2)
        for vector in ids:
            vector.set_shape([None])
        kept = {f"{name}_pretokenized": text for name, text in texts.items()}
        return {**fields, **kept, **dict(zip(texts, ids, strict=True))}

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


OUTPUT_FEATURES = {
    "inputs": seqio.Feature(SeqioVocabulary(), add_eos=False, required=False),
    "targets": seqio.Feature(TargetVocabulary(), add_eos=False),
}


def add_task(
    card: TaskCard | Callable[[], TaskCard],
    *,
    name: str | None = None,
    source: seqio.DataSource,
    preprocessors: Sequence[Callable[..., Any]] = (),
    metric_fns: Sequence[Callable[..., Any]] | None = None,
    postprocess_fn: Callable[..., Any] | None = None,
    files: Sequence[str | os.PathLike[str]] = (),
) -> seqio.Task:
    """Registers a task with SeqIO, and its card with the bench. Opens no file.

    Args:
      card: the task's card, or a function that makes it once it is needed (it may open the data file).
      name: the task's name, if the card is a function.
      source: any SeqIO data source; `PythonSource` for examples that Python yields.
      preprocessors: as in `seqio.Task`; what they yield has the text features `inputs` and `targets`, and
        any other field of an `Example`. Tokenising is not theirs to do: SeqIO's own preprocessors that do it,
        and its `CacheDatasetPlaceholder`, are passed over.
      metric_fns: as in `seqio.Task`; the card's metrics if it is None.
      postprocess_fn: as in `seqio.Task`; by default a target becomes the list of its example's references.
      files: what the examples hang on beside the source's own files; the task is prepared again when one of
        them changes.

    Raises:
      InputError: there is already a task of this name.
    """
    registry.add_card(card, name)
    name = name or card.name
    preprocessors = [step for step in preprocessors if not _is_for_tokens(step)]
    try:
        task = seqio.TaskRegistry.add(
            name,
            source=source,
            preprocessors=[*preprocessors, _tokenize],
            output_features=OUTPUT_FEATURES,
            metric_fns=[_card_metrics(name)] if metric_fns is None else list(metric_fns),
            postprocess_fn=postprocess_fn or _references,
        )
    except BaseException:
        registry.remove(name)
        raise
    _TEXT_PREPROCESSORS[name] = tuple(preprocessors)
    _FILES_BESIDE[name] = tuple(map(os.fspath, files))
    if metric_fns is not None:
        _OWN_METRICS.add(name)
    return task


def add_seqio_task(card: TaskCard, task: str | seqio.Task) -> seqio.Task:
    """Registers what a plain SeqIO task reads, under the card's name, as `add_task` does.

    Its metrics and postprocessing stay its own; without metrics it gets the card's.

    Args:
      task: a task or the name of a registered one, such as "glue_cola_v002".

    Raises:
      InputError: there is no such task, or already one of the card's name; or its metrics are `metric_objs`.
    """
    if isinstance(task, str):
        if task not in seqio.TaskRegistry.names():
            near = difflib.get_close_matches(task, seqio.TaskRegistry.names(), n=1)
            remedy = f"Did you mean {near[0]}?" if near else "Import the module that registers it"
            raise InputError(f"SeqIO knows no task {task!r}", remedy=remedy)
        task = seqio.TaskRegistry.get(task)
    metric_fns = task.metric_fns
    if len(task.metric_objs) > len(metric_fns):
        raise InputError(
            "has metric_objs, which are not computed", field=task.name, remedy="Give it metric_fns, or none"
        )
    return add_task(
        card,
        source=task.source,
        preprocessors=task.preprocessors,
        metric_fns=metric_fns or None,
        postprocess_fn=(task.postprocessor or _as_it_is) if metric_fns else None,
    )


def _as_it_is(text: str, **_: Any) -> str:
    return text


def _is_for_tokens(step: Callable[..., Any]) -> bool:
    if isinstance(step, seqio.CacheDatasetPlaceholder):
        return True
    while isinstance(step, functools.partial):
        step = step.func
    return step in _NOT_TEXT


def names_with_own_metrics() -> frozenset[str]:
    """Tasks that were registered with `metric_fns`; `iml.seqio_scores` computes them."""
    return frozenset(_OWN_METRICS)


def _card_metrics(name: str) -> Callable[..., dict[str, float]]:
    """The metrics of a task's card, which is looked up once they are computed, as a SeqIO metric.

    NaN stands for a metric that needs more than targets and predictions.
    """

    def card_metrics(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
        from iml.evaluation import metrics

        answers = [metrics.Answer(*pair) for pair in zip(predictions, targets, strict=True)]
        found = {}
        for metric in registry.card(name).metrics:
            try:
                found[metric] = metrics.score(metric, answers)
            except metrics.NotComputable:
                found[metric] = float("nan")
        return found

    return card_metrics


def _references(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """A prediction as it is; a target as all right answers."""
    if not is_target:
        return text
    found = (example or {}).get("references", ())
    return [text_of(reference) for reference in found] or [text]


_TEXT_PREPROCESSORS: dict[str, tuple[Callable[..., Any], ...]] = {}
_FILES_BESIDE: dict[str, tuple[str, ...]] = {}
_OWN_METRICS: set[str] = set()
_REGISTERED_BY: dict[str, str] = {}


def remove_task(name: str) -> None:
    """Takes a task out of SeqIO's registry and the bench's."""
    seqio.TaskRegistry.remove(name)
    registry.remove(name)
    _TEXT_PREPROCESSORS.pop(name, None)
    _FILES_BESIDE.pop(name, None)
    _OWN_METRICS.discard(name)
    _REGISTERED_BY.pop(name, None)


def read_fields(name: str, split: str) -> Iterator[Mapping[str, Any]]:
    """The examples of a registered task as mappings of `Example`'s fields, in the source's order.

    A `PythonSource` without preprocessors is read directly. Any other task runs through TensorFlow up to
    its text features; where it yields no `uid`, the place in the split serves. What preprocessors draw at random
    is the same each time.
    """
    task = seqio.TaskRegistry.get(name)
    preprocessors = _TEXT_PREPROCESSORS[name]
    if isinstance(task.source, PythonSource) and not preprocessors:
        yield from task.source.read(split)
        return
    dataset = task.source.get_dataset(split=split, shuffle=False)
    given = {"sequence_length": None, "output_features": task.output_features}
    with seqio.map_seed_manager(SEED):
        for preprocessor in preprocessors:
            dataset = seqio.utils.add_kwargs_to_transform(preprocessor, **given)(dataset)
    known = {*Example.__slots__, "inputs", "targets"}
    for number, fields in enumerate(dataset.as_numpy_iterator()):
        example = {key: text_of(value) for key, value in fields.items() if key in known}
        yield {"uid": f"{split}-{number}", "inputs": "", **example}


def describe_source(name: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Splits of a task, the files it is read from, and what else tells its data apart from other data."""
    task = seqio.TaskRegistry.get(name)
    source = task.source
    files = source.files if isinstance(source, PythonSource) else ()
    told: list[str] = [type(source).__name__]
    if isinstance(source, seqio.TfdsDataSource):
        told.append(str(source.tfds_dataset.name))
    elif not isinstance(source, PythonSource):
        shards = [shard for split in source.splits for shard in source.list_shards(split)]
        # Other sources have shards that are no files, whatever lies under their names here.
        files = tuple(str(shard) for shard in shards if epath.Path(str(shard)).is_file())
        told.append(json.dumps(sorted(map(str, shards))))
    return tuple(source.splits), files, " ".join(told)


def files_beside(name: str) -> tuple[str, ...]:
    """The files that a task was registered with beside those of its source."""
    return _FILES_BESIDE[name]


def text_of(value: Any) -> Any:
    """Bytes, or arrays of them, as text; anything else as Python has it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    value = value.tolist() if hasattr(value, "tolist") else value
    return [text_of(item) for item in value] if isinstance(value, list) else value


def registered_by(module: str, names: Iterable[str]) -> None:
    """Notes the module whose `register` registered some tasks: it chose what their readers are called with."""
    _REGISTERED_BY.update(dict.fromkeys(names, module))


def reader_modules(name: str) -> tuple[str, ...]:
    """Names of the modules whose code decides what a task's examples are."""
    source = seqio.TaskRegistry.get(name).source
    functions = [*_TEXT_PREPROCESSORS[name], *([source.read] if isinstance(source, PythonSource) else [])]
    modules = []
    for function in functions:
        while isinstance(function, functools.partial):
            function = function.func
        modules.append(getattr(function, "__module__", type(function).__module__))
    if name in _REGISTERED_BY:
        modules.append(_REGISTERED_BY[name])
    return tuple(dict.fromkeys(modules))
