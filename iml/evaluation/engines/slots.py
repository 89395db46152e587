"""Rows of a batch that decode, each with its own prompt; a row that ends takes the next prompt that waits."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from iml.evaluation.engines import sampling
from iml.evaluation.engines.engine import Decoding
from iml.evaluation.engines.loading import LoadedModel, bucket, left_padded
from iml.models import cached
from iml.models.opt import Params
from iml.training import partition

#: Tokens that all rows may add before the host looks at them.
_STRIDE = 32


class Programs:
    """What is compiled for one model and one way of decoding; once for each of a few shapes."""

    def __init__(self, model: LoadedModel, decoding: Decoding):
        opt, eos = model.opt, model.vocabulary.EOS
        whole = partition.replicated(model.mesh)
        #: XLA's CPU code copies the layer that a scan slices off, at every step; elsewhere memory counts more.
        self.apart = model.mesh.devices.flat[0].platform == "cpu"
        self._take_apart = jax.jit(cached.layers_apart) if self.apart else lambda params: params
        self.load(model.params)
        rows = PartitionSpec(partition.BATCH_AXES, "tensor")
        sharding = NamedSharding(model.mesh, rows if self.apart else PartitionSpec(None, *rows))
        self.empty = jax.jit(
            functools.partial(cached.empty_cache, opt, apart=self.apart),
            static_argnums=(0, 1),
            out_shardings=sharding,
        )
        self.fill = jax.jit(
            functools.partial(_fill, opt), static_argnums=0, donate_argnums=2, out_shardings=sharding
        )
        self.advance = jax.jit(
            functools.partial(_advance, opt, decoding, eos),
            donate_argnums=1,
            out_shardings=(sharding, whole, whole),
        )
        self.widen = jax.jit(
            functools.partial(_widen, opt, decoding.beams),
            donate_argnums=1,
            out_shardings=(sharding, whole, whole, whole),
        )

    def load(self, params: Params | None) -> None:
        """Takes other parameters of the same shapes; None for none."""
        self.params = None if params is None else self._take_apart(params)


@dataclasses.dataclass
class Slots:
    """Rows of one shape; arrays have one entry a row.

    Attributes:
      model, programs: what computes.
      columns: of the cache; a row's prompt and answer fit in them.
      last: the newest token, not yet in the cache.
      filled: tokens in the cache.
      produced: tokens of the answer.
      active: whether the row decodes.
      salts: what the row's draws depend on.
    """

    model: LoadedModel
    programs: Programs
    columns: int
    rows: int

    def __post_init__(self):
        self.cache = self.programs.empty(self.rows, self.columns)
        self.time = 0
        self.last, self.filled, self.produced = (np.zeros(self.rows, np.int32) for _ in range(3))
        self.salts = np.zeros(self.rows, np.uint32)
        self.active = np.zeros(self.rows, bool)

    def fill(self, prompts: dict[tuple[int, ...], list[int]], salts: dict[tuple[int, ...], int]) -> None:
        """Gives each group of rows a prompt."""
        order = sorted(prompts, key=lambda rows: len(prompts[rows]))
        shards = partition.batch_shards(self.model.mesh)
        most = self.rows // shards  # On each part of the mesh.
        while most // 4 * shards >= len(prompts):
            most //= 4
        most *= shards
        source = np.full(self.rows, -1, np.int32)
        for number, rows in enumerate(order):
            chosen, ids = list(rows), prompts[rows]
            source[chosen] = number
            self.last[chosen], self.filled[chosen], self.produced[chosen] = ids[-1], len(ids) - 1, 0
            self.active[chosen], self.salts[chosen] = True, salts[rows]
        # The last token is left to the first step: so no logits of a prompt are ever computed.
        read = [prompts[rows][:-1] for rows in order]
        longest = max(map(len, read))
        width = bucket(longest, 32, self.columns)
        # Widths half-way between powers of two spare up to a quarter of the reading.
        width = width * 3 // 4 if longest <= width * 3 // 4 else width
        tight = max(1, -(-longest // 32)) * 32
        width = tight if (width - tight) * most > self.model.shape_price else width
        lengths = np.zeros(most, np.int32)
        lengths[: len(read)] = [len(ids) for ids in read]
        together = math.gcd(most, self.model.rows_to_read(width))
        placed = self.model.place(left_padded(read, most, width), lengths, source)
        self.cache = self.programs.fill(together, self.model.params, self.cache, *placed, np.int32(self.time))

    def advance(self, patience: int) -> np.ndarray:
        """Steps until `patience` rows have ended, or all, or the host has to look.

        Returns:
          int32 [rows, steps], -1 where a row did not decode.
        """
        arrays = self.model.place(self.last, self.filled, self.produced, self.active, self.salts)
        self.cache, tokens, steps = self.programs.advance(
            self.programs.params, self.cache, np.int32(self.time), np.int32(patience), *arrays
        )
        tokens = np.asarray(tokens)[:, : int(steps)]
        counts = (tokens >= 0).sum(axis=1)
        self.last = np.where(counts > 0, tokens[np.arange(self.rows), np.maximum(counts - 1, 0)], self.last)
        self.filled, self.produced = self.filled + counts, self.produced + counts
        self.time += tokens.shape[1]
        return tokens

    def widen(self, parents: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
        """One step of beam search: scores, parents and tokens [groups, 2 * beams] of the best continuations.

        Args:
          parents: for each row the row that it goes on from.
          scores: float32 [groups, beams], log-likelihoods of the rows.
        """
        arrays = self.model.place(self.last, self.filled, parents.astype(np.int32), scores)
        self.cache, *found = self.programs.widen(
            self.programs.params, self.cache, np.int32(self.time), *arrays
        )
        self.time += 1
        self.filled = self.filled + self.active
        self.produced = self.produced + self.active
        return tuple(map(np.asarray, found))


def _fill(opt, together, params, cache, tokens, lengths, source, time):
    """The cache with prompts [rows, width], padded on the left, in the rows that `source` names.

    Args:
      together: rows that are read at once.
    """
    width = tokens.shape[1]

    def read(part):
        tokens, lengths = part
        start = (width - lengths)[:, None]
        mask = (jnp.arange(width) >= start)[:, None, :] & jnp.tril(jnp.ones((width, width), bool))
        positions = jnp.maximum(0, jnp.arange(width) - start)
        return cached.read(opt, params, tokens, positions, mask)[1]

    if together == tokens.shape[0]:
        return cached.insert(cache, read((tokens, lengths)), source, time)
    # Rows that are read together are spread over all, as the batch is over the mesh.
    parts = (x.reshape(together, -1, *x.shape[1:]).swapaxes(0, 1) for x in (tokens, lengths))
    new = jax.lax.map(read, tuple(parts))  # [parts, layers, together, ...]
    new = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(x.shape[1], -1, *x.shape[3:]), new)
    return cached.insert(cache, new, source, time)


def _advance(opt, decoding, eos, params, cache, time, patience, last, filled, produced, active, salts):
    """Up to `_STRIDE` tokens a row: the cache, tokens [rows, stride] (-1 where none), and the steps made."""

    def going(state):
        step, ended, active = state[0], state[1], state[2]
        return (step < _STRIDE) & active.any() & (ended < patience)

    def advance(state):
        step, ended, active, last, filled, produced, tokens, cache = state
        hidden, cache = cached.step(opt, params, last, filled, time + step, cache)
        token = sampling.choose(opt.logits(params, hidden), decoding, salts, produced)
        tokens = jax.lax.dynamic_update_slice_in_dim(
            tokens, jnp.where(active, token, -1)[:, None], step, axis=1
        )
        last = jnp.where(active, token, last)
        filled, produced = filled + active, produced + active
        goes_on = active & (token != eos) & (produced < decoding.max_new_tokens)
        ended = ended + jnp.sum(active & ~goes_on)
        return step + 1, ended, goes_on, last, filled, produced, tokens, cache

    tokens = jnp.full((last.shape[0], _STRIDE), -1, jnp.int32)
    state = (jnp.int32(0), jnp.int32(0), active, last, filled, produced, tokens, cache)
    step, *_, tokens, cache = jax.lax.while_loop(going, advance, state)
    return cache, tokens, step


def _widen(opt, beams, params, cache, time, last, filled, parents, scores):
    """The cache a token on, and the best 2 * beams continuations of each group: scores, parents, tokens."""
    axis = 0 if isinstance(cache.keys, tuple) else 1
    cache = jax.tree.map(lambda x: jnp.take(x, parents, axis=axis), cache)
    hidden, cache = cached.step(opt, params, last, filled, time, cache)
    grown = scores[..., None] + jax.nn.log_softmax(opt.logits(params, hidden)).reshape(*scores.shape, -1)
    vocabulary = grown.shape[-1]
    best, places = jax.lax.top_k(grown.reshape(scores.shape[0], -1), 2 * beams)
    return cache, best, places // vocabulary, places % vocabulary
