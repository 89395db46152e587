"""Plain text to go on pre-training with: the source is empty, the whole text is the target.

A task is `pretraining.<set>`. A document longer than `max_chars` is cut into pieces, at the last line break of
the second half of what fits, else at the last space, else where it must be: joined again, the pieces are the
document, so that no text is lost. (OPT-IML, section 4.4: 5 % of the final mixture.)
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from iml import seqio_bridge
from iml.bench.card import TaskCard
from iml.bench.categories import canonical_category
from iml.errors import InputError
from tasks import files, layouts
from tasks.definitions import load

BENCHMARK = "pretraining"
#: Characters of a piece by default: about the 2,048 tokens of a training row, at four characters a token.
MAX_CHARS = 8000

_TITLE = re.compile(r" = [^=].* = *$")
#: How files begin, in capitals, that stand beside texts and are none.
_NO_TEXT = ("README", "LICENSE", "LICENCE")
_NOT_IN_NAMES = re.compile(r"[^\w:#]")


def json_lines(path: epath.Path) -> Iterator[tuple[str, str]]:
    """(place, document) of JSON lines with a field `text`, as C4 and most corpora come."""
    for number, record in files.json_lines(path):
        yield str(number), files.field(record, "text", str, path, number)


def lines(path: epath.Path) -> Iterator[tuple[str, str]]:
    """Every line is a document."""
    return ((str(number), line) for number, line in files.lines(path))


def articles(path: epath.Path) -> Iterator[tuple[str, str]]:
    """WikiText: an article begins at its title, ` = Title = ` after a blank line; headings have more signs."""
    place, held, last = "1", [], 0
    for number, line in files.lines(path):
        if held and number > last + 1 and _TITLE.match(line):
            yield place, "\n".join(held)
            place, held = str(number), []
        held.append(line.strip())
        last = number
    if held:
        yield place, "\n".join(held)


def whole(path: epath.Path) -> Iterator[tuple[str, str]]:
    """The file is one document."""
    yield "1", files.text(path)


READERS: Mapping[str, Callable[[epath.Path], Iterator[tuple[str, str]]]] = {
    reader.__name__: reader for reader in (json_lines, lines, articles, whole)
}


def pieces(document: str, max_chars: int) -> Iterator[str]:
    """A document in pieces of at most `max_chars` characters, which joined are the document; 0 for no limit."""
    start = 0
    while max_chars and len(document) - start > max_chars:
        end = start + max_chars
        cut = max(document.rfind("\n", start + max_chars // 2, end), -1) + 1
        cut = cut or document.rfind(" ", start + 1, end) + 1 or end
        yield document[start:cut]
        start = cut
    yield document[start:]


@dataclasses.dataclass(frozen=True)
class TextTask:
    """One set of documents.

    Attributes:
      reader: a key of `READERS`.
      home: the set's folder.
      files: the files of each split.
      max_chars: characters of a piece at most; 0 keeps documents whole.
    """

    reader: str
    home: epath.Path
    files: layouts.Splits
    max_chars: int = MAX_CHARS

    def read(self, split: str) -> Iterator[dict[str, Any]]:
        """The pieces of a split's documents as fields of `Example`; blank ones are left out.

        Raises:
          InputError: a file is missing, damaged or empty.
        """
        paths = self.files[split]
        for path in paths:
            empty = True
            for place, document in READERS[self.reader](path):
                for number, piece in enumerate(pieces(document, self.max_chars)):
                    if piece.strip():
                        empty = False
                        label = "" if len(paths) == 1 else f"{layouts.label(self.home, path)}-"
                        uid = f"{label}{place}-{number}" if number else f"{label}{place}"
                        yield {"uid": uid, "source": "", "target": piece}
            if empty:
                raise InputError("holds no text", path=path)


@functools.cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """Which files known sets have and how they are read; "*" is for all others."""
    return load("pretraining.json")["sets"]


def register(data_dir: str, max_chars: int = MAX_CHARS) -> None:
    """Registers every folder of `pretrain_text/` as a task; opens no data file.

    Args:
      data_dir: holds `pretrain_text/` or `pretraining/`, or is that folder: one folder a set.
      max_chars: characters of a piece at most; 0 keeps documents whole.

    Raises:
      InputError: there is no set, or `max_chars` is negative.
    """
    home = epath.Path(data_dir)
    home = layouts.first_folder(home, ("pretrain_text", BENCHMARK)) or home
    found = 0
    for folder in sorted(home.iterdir()) if home.exists() else ():
        definition = definitions().get(folder.name, definitions()["*"])
        splits = _texts(layouts.find_splits(folder, definition["files"])) if folder.is_dir() else {}
        if not splits:
            continue
        found += 1
        reader = definition.get("reader") or _guess(splits)
        task = TextTask(reader, folder, splits, _checked(max_chars))
        used = dict.fromkeys(path for paths in splits.values() for path in paths)
        source = seqio_bridge.PythonSource(read=task.read, splits=tuple(splits), files=tuple(used))
        seqio_bridge.add_task(_card(folder.name, definition), source=source)
    if not found:
        remedy = "Put each set's .jsonl (with a field text) or .txt files in a folder of pretrain_text/"
        raise InputError("no text is here", path=home, remedy=remedy)


def add_tfds(
    tfds_name: str,
    splits: Sequence[str] = ("train", "validation"),
    max_chars: int = MAX_CHARS,
    tfds_data_dir: str | None = None,
) -> None:
    """Registers a TFDS data set with a feature `text`, such as "c4/en:3.1.0"; downloads and opens nothing.

    Args:
      tfds_name: its name, with its version; the task is named after what stands before the first slash or colon.
      splits: those to read, each under its own name.
      max_chars: as for `register`.
      tfds_data_dir: where TFDS keeps it, which may be remote; TFDS's own default if it is None.

    Raises:
      InputError: `max_chars` is negative.
    """
    name = re.split("[/:]", tfds_name)[0]
    seqio_bridge.add_task(
        _card(name, definitions().get(name, {})),
        source=seqio_bridge.seqio.TfdsDataSource(
            tfds_name=tfds_name, splits={split: split for split in splits}, tfds_data_dir=tfds_data_dir
        ),
        preprocessors=[functools.partial(_cut, max_chars=_checked(max_chars))],
    )


def _cut(dataset: Any, max_chars: int) -> Any:
    """A `tf.data.Dataset` with a feature `text` as one of its pieces."""
    tf = seqio_bridge.tf

    def cut(text: bytes) -> np.ndarray:
        found = pieces(text.decode("utf-8", "replace"), max_chars)
        return np.array([piece.encode() for piece in found if piece.strip()], object)

    def rows(example: Mapping[str, Any]) -> Any:
        texts = tf.ensure_shape(tf.numpy_function(cut, [example["text"]], tf.string), [None])
        return tf.data.Dataset.from_tensor_slices({"inputs": tf.fill(tf.shape(texts), ""), "targets": texts})

    return dataset.flat_map(rows)


def _card(name: str, definition: Mapping[str, Any]) -> TaskCard:
    return TaskCard(
        name=f"{BENCHMARK}.{_NOT_IN_NAMES.sub('_', name)}",
        benchmark=BENCHMARK,
        category=canonical_category(BENCHMARK, "text"),
        source=name,
        licence=definition.get("licence", ""),
        url=definition.get("url", ""),
    )


def _checked(max_chars: int) -> int:
    if max_chars < 0:
        raise InputError("must not be negative", field="max_chars")
    return max_chars


def _texts(found: layouts.Splits) -> layouts.Splits:
    """The files without those that describe them; what is held out does not train as well."""
    held_out = {path for split, paths in found.items() if split != "train" for path in paths}
    kept = {
        split: tuple(
            path
            for path in paths
            if not path.name.upper().startswith(_NO_TEXT) and (split != "train" or path not in held_out)
        )
        for split, paths in found.items()
    }
    return {split: paths for split, paths in kept.items() if paths}


def _guess(splits: layouts.Splits) -> str:
    first = next(iter(splits.values()))[0].name.removesuffix(".gz")
    return "whole" if first.endswith(".txt") else "json_lines"
