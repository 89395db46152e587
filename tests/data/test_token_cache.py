"""A stream gives the same batches from kept token ids, whatever part of its draws is kept."""

import itertools
import os
import shutil
import signal

import numpy as np
import pytest

from iml.bench.mixing import Mixture
from iml.data import token_cache
from iml.data.prompts import PromptFormat
from iml.data.show import show_step
from iml.data.stream import TrainStream
from iml.errors import InputError
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store


@pytest.fixture(autouse=True)
def short_shards(monkeypatch):
    monkeypatch.setattr(token_cache, "SHARD", 64)


@pytest.fixture
def make_stream(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    rows = [("the other " * (1 + i % 7), "the " * (1 + i % 3)) for i in range(40)]
    store = make_store(tmp_path / "store", {f"flan.t{t}": {"train": rows} for t in range(3)})
    mixture = Mixture(split_scheme="opt_iml_max")

    def make(**changes):
        settings = {"prompt_format": PromptFormat(shots=1), "batch_size": 3, "length": 96} | changes
        return TrainStream(store, vocabulary, mixture, cache_dir=tmp_path / "cache", **settings)

    return make


def batches(stream, steps=12):
    made = stream.batches(stream.initial_state(), threads=2)
    taken = [batch for batch, _ in itertools.islice(made, steps)]
    made.close()
    return taken


@pytest.mark.parametrize("draws", [64, 1000])
def test_kept_ids_give_the_same_batches(make_stream, tmp_path, draws):
    expected = batches(make_stream())
    told = []
    kept = token_cache.build(
        make_stream(), tmp_path / "cache", draws, processes=1, progress=lambda *numbers: told.append(numbers)
    )
    assert kept == -(-draws // 64) * 64 == len(make_stream().cache)
    assert told[-1] == (kept // 64, kept // 64)
    stream = make_stream()
    calls = []
    stream.make_documents = lambda numbers: (
        calls.extend(numbers) or TrainStream.make_documents(stream, numbers)
    )
    found = batches(stream)
    assert all(number >= kept for number in calls) and (draws == 1000) == (not calls)
    for batch, other in zip(found, expected, strict=True):
        assert all(np.array_equal(batch[name], other[name]) for name in batch)


def test_a_task_that_cannot_be_read_and_a_lost_shard_do_not_change_the_order(make_stream, tmp_path):
    next((tmp_path / "store" / "store").glob("flan.t1/*/*.array_record")).write_bytes(b"")
    expected = batches(make_stream())
    token_cache.build(make_stream(), tmp_path / "cache", 500, processes=1)
    shutil.rmtree(next((tmp_path / "cache").glob("*/000000")))
    for batch, other in zip(batches(make_stream()), expected, strict=True):
        assert np.array_equal(batch["tokens"], other["tokens"])


def test_only_the_same_documents_are_found(make_stream, tmp_path):
    token_cache.build(make_stream(), tmp_path / "cache", 64, processes=1)
    assert len(make_stream(batch_size=5, segments=3, target_budget=9).cache) == 64
    for other in ({"seed": 2}, {"length": 64}, {"prompt_format": PromptFormat()}):
        assert not len(make_stream(**other).cache)


def test_a_second_build_and_several_processes_change_nothing(make_stream, tmp_path):
    token_cache.build(make_stream(), tmp_path / "cache", 64, processes=1)
    shard = next((tmp_path / "cache").glob("*/000000"))
    before = shard.stat().st_mtime_ns, (shard / "tokens.npy").read_bytes()
    token_cache.build(make_stream(), tmp_path / "cache", 64, processes=2)
    assert before == (shard.stat().st_mtime_ns, (shard / "tokens.npy").read_bytes())
    assert [path.name for path in shard.parent.iterdir()] == ["000000"]


def test_a_step_is_shown_from_kept_ids_with_its_origins(make_stream, tmp_path):
    from rich.console import Console

    def shown():
        console = Console(width=200, record=True)
        console.print(show_step(make_stream(), 1))
        return console.export_text()

    expected = shown()
    token_cache.build(make_stream(), tmp_path / "cache", 500, processes=1)
    assert shown() == expected and "flan.t" in expected


def test_a_damaged_shard_is_named(make_stream, tmp_path):
    token_cache.build(make_stream(), tmp_path / "cache", 64, processes=1)
    tokens = next((tmp_path / "cache").glob("*/000000/tokens.npy"))
    tokens.write_bytes(tokens.read_bytes()[:100])
    with pytest.raises(InputError, match="token cache is damaged"):
        batches(make_stream())


class _Killed:
    """Documents that take the process which makes them with them."""

    documents_fingerprint = "f"

    def make_documents(self, numbers):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told(tmp_path):
    with pytest.raises(InputError, match=r"was killed.*too little memory"):
        token_cache.build(_Killed(), tmp_path / "cache", 1000, processes=2)


def test_a_folder_that_cannot_be_written(make_stream, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        token_cache.build(make_stream(), tmp_path / "file", 64, processes=1)
