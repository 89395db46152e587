"""From the stream's numpy batches to arrays on the mesh, one batch ahead of the devices."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator

import jax
import numpy as np

from iml.data.stream import StreamState, TrainStream
from iml.training import partition

#: What a step does not need, and devices without 64-bit integers could not hold.
_FOR_THE_HOST = ("example_ids",)


@dataclasses.dataclass(frozen=True)
class Fed:
    """A batch on the mesh.

    Attributes:
      batch: arrays of the global batch.
      after: the stream's state after it, of this process's lanes.
      waited: seconds for which the stream was waited for.
    """

    batch: dict[str, jax.Array]
    after: StreamState
    waited: float


def feed(
    stream: TrainStream, state: StreamState, mesh: jax.sharding.Mesh, threads: int, prefetch: int = 4
) -> Iterator[Fed]:
    """Batches of the whole mesh for ever; every process reads only the lanes that its devices hold."""
    lanes = partition.local_lanes(mesh, stream.batch_size)
    sharding = partition.shard_batch(mesh)
    batches = stream.batches(state, lanes, threads=threads, prefetch=prefetch)

    def load() -> Fed:
        began = time.monotonic()
        local, after = next(batches)
        waited = time.monotonic() - began
        batch = {
            name: jax.make_array_from_process_local_data(
                sharding, array, (stream.batch_size, *array.shape[1:])
            )
            for name, array in local.items()
            if name not in _FOR_THE_HOST
        }
        return Fed(batch, after, waited)

    try:
        ready = load()
        while True:
            # The copy of the next batch to the devices begins before this one is worked on.
            current, ready = ready, load()
            yield current
    finally:
        batches.close()


def gather_state(state: StreamState) -> StreamState:
    """The state of all lanes, of what every process knows of its own; all processes call it together."""
    if jax.process_count() == 1:
        return state
    from jax.experimental import multihost_utils

    text = np.frombuffer(json.dumps(state.to_json()).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([text.size], np.int32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    states = [
        StreamState.from_json(json.loads(bytes(row[:size]).decode()))
        for row, size in zip(texts, sizes, strict=True)
    ]
    # Processes that share rows (tensor parallelism across processes) hold the same lanes, in the same state.
    lanes = {lane: standing for state in states for lane, standing in state.lanes.items()}
    return StreamState(states[0].step, dict(sorted(lanes.items())))
