"""The stream gives the same batches on any number of threads and processes, and from any point on."""

import collections
import itertools
import json
import logging
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench.mixing import Mixture
from iml.data.prompts import PromptFormat
from iml.data.random import Draws
from iml.data.store import ExampleStore
from iml.data.stream import LaneState, StreamState, TrainStream
from iml.data.tokens import encode_prompts
from iml.errors import InputError
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store

STEPS = 12
FORMAT = PromptFormat(shots_distribution=(0.5, 0.5))
SCHEME = {"name": "none", "fully_held_out_categories": [], "levels_by_task": {}, "levels_by_category": {}}


class Fixture:
    """A store of tasks of uneven length, and streams over it."""

    def __init__(self, folder):
        self.vocabulary = write_vocabulary(folder / "vocabulary")
        (folder / "splits_none.json").write_text(json.dumps(SCHEME))
        self.mixture = Mixture(split_scheme=str(folder / "splits_none.json"), eps=30)
        draws = Draws(0)

        def text(name, longest):
            return "the other " * (1 + draws.integers(name, longest))

        tasks = {
            f"flan.t{t}": {
                "train": [(text(f"s{t}{i}", 2 + 3 * t), text(f"t{t}{i}", 2)) for i in range(10 + 20 * t)],
                "test": [("q", "a")],
            }
            for t in range(4)
        }
        tasks["t5.only_test"] = {"test": [("q", "a")]}
        self.store = make_store(folder, tasks)

    def stream(self, store=None, mixture=None, prompt_format=FORMAT, **settings_):
        settings_ = {"batch_size": 4, "length": 96, "segments": 8} | settings_
        return TrainStream(
            store or self.store, self.vocabulary, mixture or self.mixture, prompt_format, **settings_
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Fixture(tmp_path_factory.mktemp("stream"))


@pytest.fixture(scope="module")
def straight(data):
    """The first batches, made in the simplest way."""
    stream = data.stream()
    return _take(stream.batches(stream.initial_state(), threads=0), STEPS)


def _take(batches, number):
    taken = list(itertools.islice(batches, number))
    batches.close()
    return taken


def _assert_same(ours, theirs, lanes=slice(None)):
    assert len(ours) == len(theirs)
    for (batch, _), (other, _) in zip(ours, theirs, strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, other[name][lanes], err_msg=name)


@settings(deadline=None, max_examples=40)
@given(
    start=st.integers(0, STEPS - 1),
    threads=st.integers(0, 5),
    prefetch=st.integers(1, 5),
    cut=st.integers(0, 4),
)
def test_any_threads_processes_and_resume_points_give_the_same(data, straight, start, threads, prefetch, cut):
    stream = pickle.loads(pickle.dumps(data.stream()))
    state = straight[start - 1][1] if start else stream.initial_state()
    state = StreamState.from_json(json.loads(json.dumps(state.to_json())))
    ends = []
    for lanes in (range(cut), range(cut, 4)):
        if lanes:
            batches = _take(stream.batches(state, lanes, threads, prefetch), STEPS - start)
            _assert_same(batches, straight[start:], slice(lanes.start, lanes.stop))
            ends.append(batches[-1][1])
    assert StreamState.merge(ends) == straight[-1][1]


def test_an_epoch_of_batches_holds_every_draw_once_and_whole(data):
    stream = data.stream()
    state, documents = stream.initial_state(), {}
    for batch, after in stream.batches(state, threads=1):
        for row in range(4):
            for segment, number in enumerate(batch["example_ids"][row].tolist()):
                if number >= 0:
                    inside = batch["segment_ids"][row] == segment + 1
                    assert number not in documents and number % 4 == row
                    assert np.array_equal(batch["positions"][row][inside], np.arange(inside.sum()))
                    tokens = (
                        batch["tokens"][row][inside].tolist() + batch["targets"][row][inside].tolist()[-1:]
                    )
                    documents[number] = (int(batch["task_ids"][row, segment]), tokens)
        waiting = [number for lane in after.lanes.values() for number in (lane.next, *lane.pending)]
        if min(waiting) >= stream.plan.epoch_size:
            break
    epoch = {number: found for number, found in documents.items() if number < stream.plan.epoch_size}
    assert len(epoch) == stream.plan.epoch_size
    drawn = collections.Counter(stream.tasks[task] for task, _ in epoch.values())
    assert drawn == stream.plan.counts == {"flan.t0": 10, "flan.t1": 30, "flan.t2": 30, "flan.t3": 30}
    numbers = sorted(epoch)
    prompts = [prompt for _, prompt in stream.prompts(numbers)]
    expected = encode_prompts(data.vocabulary, prompts, stream.length)
    assert [epoch[number][1] for number in numbers] == [document.tokens.tolist() for document in expected]


def test_a_budget_of_targets_is_kept_and_gathered(data):
    stream = data.stream(target_budget=7)
    free = dict(_documents(_take(data.stream().batches(data.stream().initial_state()), STEPS)))
    taken = _take(stream.batches(stream.initial_state()), STEPS)
    for batch, _ in taken:
        learnt, places = batch["loss_weights"] > 0, batch["target_positions"]
        assert places.shape == (4, 7) and learnt.sum(axis=1).max() <= 7
        for row in range(4):
            assert np.array_equal(places[row][places[row] >= 0], np.flatnonzero(learnt[row]))
    for number, (tokens, weights) in _documents(taken):
        if number in free:
            assert free[number][0] == tokens
            kept = int(min(7, sum(free[number][1])))
            assert weights == [0.0] * (len(weights) - kept) + [1.0] * kept


def _documents(batches):
    """(number of the draw, (its tokens, its loss weights)) of all documents."""
    for batch, _ in batches:
        for row in range(len(batch["tokens"])):
            for segment, number in enumerate(batch["example_ids"][row].tolist()):
                if number >= 0:
                    inside = batch["segment_ids"][row] == segment + 1
                    yield (
                        number,
                        tuple(batch[name][row][inside].tolist() for name in ("tokens", "loss_weights")),
                    )


def test_closing_ends_the_threads(data):
    stream = data.stream()
    before = set(threading.enumerate())  # of which some may end meanwhile
    batches = stream.batches(stream.initial_state(), threads=3)
    next(batches)
    assert len(set(threading.enumerate()) - before) == 3
    batches.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_errors_of_workers_surface_and_end_the_threads(data, threads):
    class Broken(ExampleStore):
        def read(self, task, split, row):
            raise OSError("the disk is gone")

    stream = data.stream(store=Broken(data.store.path))
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream.batches(stream.initial_state(), threads=threads))
    assert set(threading.enumerate()) <= before


class Damaged(ExampleStore):
    """A store of which some rows cannot be read."""

    damaged = ("flan.t2",)

    def read(self, task, split, row):
        if task in self.damaged and (row % 2 or len(self.damaged) > 1):
            raise InputError("the store's file is damaged", path=f"{task}.array_record")
        return super().read(task, split, row)


def test_a_damaged_file_is_reported_once_and_left_out_the_same_way_everywhere(data, caplog):
    with caplog.at_level(logging.WARNING):
        stream = data.stream(store=Damaged(data.store.path))
        expected = _take(stream.batches(stream.initial_state(), threads=0), STEPS)
    assert len(caplog.records) == 1 and "flan.t2.array_record" in caplog.text
    _assert_same(_take(stream.batches(stream.initial_state(), threads=3), STEPS), expected)
    _assert_same(_take(stream.batches(expected[4][1], threads=2), STEPS - 5), expected[5:])
    strict = data.stream(store=Damaged(data.store.path), strict=True)
    with pytest.raises(InputError, match="damaged"):
        _take(strict.batches(strict.initial_state()), STEPS)


def test_a_store_that_cannot_be_read_at_all_is_an_error(data, monkeypatch):
    monkeypatch.setattr(Damaged, "damaged", tuple(f"flan.t{t}" for t in range(4)))
    stream = data.stream(store=Damaged(data.store.path))
    with pytest.raises(InputError, match="could not be read"):
        next(stream.batches(stream.initial_state()))


def test_the_fingerprint_follows_all_that_batches_depend_on(data):
    fingerprints = {
        data.stream().fingerprint,
        data.stream(seed=1).fingerprint,
        data.stream(length=64).fingerprint,
        data.stream(batch_size=5).fingerprint,
        data.stream(segments=9).fingerprint,
        data.stream(prompt_format=PromptFormat(shots=1)).fingerprint,
        data.stream(mixture=Mixture(split_scheme=data.mixture.split_scheme, eps=29)).fingerprint,
    }
    assert len(fingerprints) == 7
    assert data.stream().fingerprint == data.stream().fingerprint


def test_a_stream_goes_on_far_out(data):
    stream = data.stream(batch_size=256, segments=8)
    step = 1_000_000
    lanes = {lane: LaneState(lane + 256 * 16 * step, (lane + 256 * (16 * step - 9),)) for lane in (0, 255)}
    state = StreamState(step, lanes)
    expected = _take(stream.batches(state, lanes, threads=2), 8)
    assert expected[-1][0]["example_ids"].max() > 2**31
    _assert_same(_take(stream.batches(expected[2][1], lanes, threads=0), 5), expected[3:])
    assert len(json.dumps(expected[-1][1].to_json())) / 2 < 1_000_000 / 256


def test_wrong_states_are_refused(data):
    stream = data.stream()
    state = stream.initial_state()
    first = StreamState(0, {0: state.lanes[0]})
    with pytest.raises(InputError, match="lane 1"):
        stream.batches(first)
    with pytest.raises(InputError, match="two states hold lane 0"):
        StreamState.merge([first, state])
    with pytest.raises(InputError, match="different steps"):
        StreamState.merge([first, StreamState(1, {1: state.lanes[1]})])
    for record in (
        {},
        {"step": 1, "lanes": {"x": [1]}},
        {"step": 1, "lanes": {"0": []}},
        {"step": 1, "lanes": [1]},
    ):
        with pytest.raises(InputError, match="not the state of a stream"):
            StreamState.from_json(record)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("batch_size", "batch_size"),
        ("length", "positions"),
        ("segments", "segments"),
        ("target_budget", "targets"),
    ],
)
def test_wrong_sizes_are_named(data, name, said):
    with pytest.raises(InputError, match=said):
        data.stream(**{name: 0})
