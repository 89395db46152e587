"""Token ids of a run's documents, kept on disk: made once, mapped into memory by all runs that draw the same.

    cache/<fingerprint>/<shard>/tokens.npy      the ids of 65,536 draws, one document after the other
    cache/<fingerprint>/<shard>/documents.npy   int64 [65536, 4]: end, target start, tokens cut off, task (-1: none)

The fingerprint covers all that a document depends on: store, mixture, seed, prompt format, vocabulary and length,
but not the batch. A shard is written beside its place and renamed once complete.
"""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from iml.data.batches import Placed
from iml.data.tokens import Document
from iml.errors import InputError

#: Draws in a shard.
SHARD = 1 << 16
_COLUMNS = 4
#: Draws that are read and encoded together.
_CHUNK = 1024


class Source(Protocol):
    """What makes documents: a `TrainStream`, which has no cache itself and can be pickled."""

    documents_fingerprint: str

    def make_documents(self, numbers: Sequence[int]) -> list[Placed]: ...


class TokenCache:
    """The documents of draws, as far as they are kept under a folder."""

    def __init__(self, directory: str | os.PathLike[str], fingerprint: str):
        self.folder = pathlib.Path(directory) / fingerprint
        self._shard = functools.lru_cache(maxsize=64)(self._open)

    def __reduce__(self):
        return type(self), (self.folder.parent, self.folder.name)

    def __len__(self) -> int:
        """Draws that are kept, if all shards before the last are."""
        return SHARD * len(list(self.folder.glob("[0-9]*"))) if self.folder.is_dir() else 0

    def find(self, numbers: Sequence[int]) -> tuple[list[Placed], list[int]]:
        """Documents of the draws that are kept, but for those that could not be made, and the other draws."""
        found: list[Placed] = []
        missing: list[int] = []
        start = 0
        while start < len(numbers):
            shard = numbers[start] // SHARD
            stop = start + 1
            while stop < len(numbers) and numbers[stop] // SHARD == shard:
                stop += 1
            part = numbers[start:stop]
            start = stop
            opened = self._shard(shard)
            if opened is None:
                missing += part
                continue
            tokens, documents = opened
            places = np.asarray(part, np.int64) - shard * SHARD
            ends, starts, cut, tasks = documents[places].T.tolist()
            begins = np.where(places > 0, documents[places - 1, 0], 0).tolist()
            found += [
                Placed(part[i], tasks[i], Document(tokens[begins[i] : ends[i]], starts[i], None, cut[i]))
                for i in range(len(part))
                if tasks[i] >= 0
            ]
        return found, missing

    def _open(self, shard: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids and documents of a shard, None if it is not kept."""
        folder = self.folder / f"{shard:06d}"
        if not folder.is_dir():
            return None
        try:
            # Plain arrays over the mapped pages: slices of `np.memmap` cost several times as much.
            tokens = np.asarray(np.load(folder / "tokens.npy", mmap_mode="r"))
            documents = np.asarray(np.load(folder / "documents.npy"))
            if documents.shape != (SHARD, _COLUMNS) or documents[-1, 0] != len(tokens):
                raise ValueError("the two files do not belong together")
        except (OSError, ValueError) as error:
            raise InputError(
                f"the token cache is damaged: {error}", path=folder, remedy="Remove this folder"
            ) from error
        return tokens, documents


def build(
    source: Source,
    directory: str | os.PathLike[str],
    draws: int,
    processes: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> int:
    """Keeps the documents of draws 0, 1, ..., at least `draws` of them; shards that are there stay.

    Args:
      processes: how many work at the same time; 0 for one a processor.
      progress: is told how many shards are done, and of how many.

    Returns:
      The number of draws that are kept.

    Raises:
      InputError: the folder cannot be written, or whatever making a document raises.
    """
    folder = pathlib.Path(directory) / source.documents_fingerprint
    shards = -(-draws // SHARD)
    missing = [shard for shard in range(shards) if not (folder / f"{shard:06d}").is_dir()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for done, _ in enumerate(_write_all(source, folder, missing, processes), 1 + shards - len(missing)):
            progress(done, shards)
    except OSError as error:
        raise InputError(
            f"the token cache cannot be written ({error})", path=folder, remedy="Is the disk full?"
        ) from error
    return shards * SHARD


def _write_all(source: Source, folder: pathlib.Path, shards: list[int], processes: int) -> Iterator[None]:
    processes = min(processes or os.cpu_count() or 1, len(shards))
    if processes <= 1:
        yield from (_write_shard(source, folder, shard, SHARD) for shard in shards)
        return
    context = multiprocessing.get_context("spawn")  # threads of the caller make a fork unsafe
    with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
        futures = [pool.submit(_write_shard, source, folder, shard, SHARD) for shard in shards]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            remedy = "Is there too little memory? Fewer processes need less"
            raise InputError("a process that encodes was killed", remedy=remedy) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_shard(source: Source, folder: pathlib.Path, shard: int, size: int) -> None:
    documents = np.zeros((size, _COLUMNS), np.int64)
    documents[:, 3] = -1
    parts, end, base = [], 0, shard * size
    for first in range(base, base + size, _CHUNK):
        numbers = range(first, min(first + _CHUNK, base + size))
        made = {placed.number: placed for placed in source.make_documents(numbers)}
        for number in numbers:
            placed = made.get(number)
            if placed is not None:
                document = placed.document
                end += len(document.tokens)
                parts.append(document.tokens)
                row = (end, document.target_start, document.truncated, placed.task)
                documents[number - base] = row
            documents[number - base, 0] = end
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    if not len(tokens) or tokens.max() < 1 << 16:
        tokens = tokens.astype(np.uint16)
    written = folder / f".{shard:06d}-{os.getpid()}"
    try:
        written.mkdir(parents=True)
        np.save(written / "tokens.npy", tokens)
        np.save(written / "documents.npy", documents)
        place = folder / f"{shard:06d}"
        if not place.exists():
            written.rename(place)
    finally:
        shutil.rmtree(written, ignore_errors=True)
