"""T5's sets under its own prefixes: GLUE, SuperGLUE, SQuAD, CNN/DailyMail and WMT, from files or through TFDS.

A task is `t5.<set>`; `tasks/definitions/t5.json` holds its prefix, its label words, its files, and the name it
has at TFDS. OPT-IML keeps seven of them, those that no other family has, and CNN/DailyMail (appendix A).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import layouts
from tasks.definitions import load
from tasks.t5 import formats

BENCHMARK = "t5"
#: What a row trips over that lacks a field or has one of another kind.
_NOT_OF_ITS_FORM = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each set, by its name."""
    return load("t5.json")["tasks"]


def fields(name: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row as fields of `Example`, its uid left out; None if it has no answer.

    Raises:
      KeyError, TypeError, ValueError: it is not of the set's form.
    """
    definition = definitions()[name]
    return formats.FORMS[definition["form"]](definition, row)


@dataclasses.dataclass(frozen=True)
class TextTask:
    """One set.

    Attributes:
      name: a key of `definitions()`.
      home: what the files' labels are relative to.
      files: the files of each split.
    """

    name: str
    home: epath.Path
    files: layouts.Splits

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The examples of a split as fields of `Example`, in the order of its files; the uid is the place there.

        Raises:
          InputError: a file is missing, damaged or without examples.
        """
        definition, paths = definitions()[self.name], self.files[split]
        for path in paths:
            label, empty = "" if len(paths) == 1 else f"{layouts.label(self.home, path)}-", True
            for place, line, row in layouts.guarded(formats.read(path, definition), path):
                try:
                    example = fields(self.name, row)
                except KeyError as error:
                    problem = "a record lacks this field"
                    raise InputError(problem, path=path, line=line, field=str(error.args[0])) from error
                except _NOT_OF_ITS_FORM as error:
                    problem = f"is not of the form of {self.name}: {str(error)[:100]}"
                    raise InputError(problem, path=path, line=line) from error
                if example is not None:
                    empty = False
                    yield {"uid": f"{label}{_judged(row) or place}", **example}
            if empty:
                raise InputError("holds no example that has an answer", path=path)


def register(data_dir: str, papers_seven: bool = False, tfds: bool = False) -> None:
    """Registers every set whose files are there; opens none of them and downloads nothing.

    Args:
      data_dir: holds `t5/glue/CoLA/`, `t5/squad/` and so on, or `hf_raw/glue/cola/`.
      papers_seven: only the seven sets that OPT-IML keeps.
      tfds: sets without files come from TFDS, which keeps its own in `data_dir/tfds/` if that folder is there,
        otherwise where it always does.

    Raises:
      InputError: there is no set.
    """
    home = epath.Path(data_dir)
    found = 0
    for name, definition in definitions().items():
        if papers_seven and not definition.get("kept_by_paper"):
            continue
        splits = layouts.find_splits(home, definition["files"])
        if not splits and not tfds:
            continue
        found += 1
        if splits:
            task = TextTask(name, home, splits)
            used = dict.fromkeys(path for paths in splits.values() for path in paths)
            source = seqio_bridge.PythonSource(read=task.read, splits=tuple(splits), files=tuple(used))
            seqio_bridge.add_task(card(name), source=source)
        else:
            own = home / "tfds"
            add_tfds(name, str(own) if own.exists() else None)
    if not found:
        remedy = "Put them into t5/glue/CoLA, t5/superglue/BoolQ, t5/squad and so on, or take tasks.t5.tfds"
        raise InputError("no set of T5 is here", path=home / BENCHMARK, remedy=remedy)


def add_tfds(name: str, tfds_data_dir: str | None = None) -> None:
    """Registers a set as TFDS has it; downloads and opens nothing.

    Args:
      name: a key of `definitions()`.
      tfds_data_dir: where TFDS keeps it, which may be remote; TFDS's own default if it is None.
    """
    known = definitions()[name]["tfds"]
    source = seqio_bridge.seqio.TfdsDataSource(
        tfds_name=known["name"], splits=dict(known["splits"]), tfds_data_dir=tfds_data_dir
    )
    seqio_bridge.add_task(card(name), source=source, preprocessors=[functools.partial(_convert, name=name)])


def _convert(dataset: Any, name: str) -> Any:
    """A `tf.data.Dataset` of TFDS's rows as one of examples; rows without answer are left out."""
    tf = seqio_bridge.tf

    def convert(row: Mapping[str, Any]) -> dict[str, Any]:
        def example(*values: Any) -> tuple[Any, Any, Any, Any]:
            found = fields(name, formats.plain(tf.nest.pack_sequence_as(row, values)))
            found = found or {"source": "", "target": "", "references": [], "candidates": []}
            references, candidates = found["references"], found["candidates"]
            return found["source"].encode(), found["target"].encode(), _bytes(references), _bytes(candidates)

        texts = tf.numpy_function(example, tf.nest.flatten(row), [tf.string] * 4)
        shapes = {"inputs": [], "targets": [], "references": [None], "candidates": [None]}
        pairs = zip(shapes.items(), texts, strict=True)
        named = {field: tf.ensure_shape(text, shape) for (field, shape), text in pairs}
        judged = _index(row)
        if judged:
            named["uid"] = tf.strings.join([tf.strings.as_string(number) for number in judged], "-")
        return named

    examples = dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.filter(lambda example: tf.strings.length(example["targets"]) > 0)


def _index(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Paragraph, question and answer that a row of MultiRC judges; () of another row."""
    index, names = row.get("idx"), ("paragraph", "question", "answer")
    whole = isinstance(index, Mapping) and all(name in index for name in names)
    return tuple(index[name] for name in names) if whole else ()


def _judged(row: Mapping[str, Any]) -> str:
    """The uid by which the metric `multirc_em` tells questions apart."""
    return "-".join(map(str, _index(row)))


def _bytes(texts: list[str]) -> Any:
    import numpy as np

    return np.array([text.encode() for text in texts], object)


def card(name: str) -> TaskCard:
    """The card of a set."""
    definition = definitions()[name]
    ranked = definition["form"] in ("labelled", "marked", "cloze")
    return TaskCard(
        name=f"{BENCHMARK}.{name}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, definition["cluster"]),
        instruction_level="keywords",
        source=name,
        metrics=tuple(definition.get("metrics", ("accuracy",) if ranked else ("rouge_l", "exact_match"))),
        url=definition["url"],
        languages=(definition.get("language", "English"),),
        drawn_together=definition.get("drawn_together", ""),
    )
