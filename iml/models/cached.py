"""OPT over tokens whose context has been read before: its keys and values are kept, layer by layer.

Two ways to go on. `read` takes many tokens a row under any mask, behind a context that all rows share; `step` takes
one token a row, and keeps the context of each row in a ring of columns.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from iml.models.opt import OPT, Params

#: Logits of all heads above which a CPU takes the heads one by one: those of one stay in its caches.
_CACHED_LOGITS = 2**22


class Cache(NamedTuple):
    """Keys and values in the compute dtype: all layers stacked in one array, or a tuple of one array a layer."""

    keys: Any
    values: Any


class Shared(NamedTuple):
    """A context that all rows share: its cache, of one row, and how many of the columns are filled."""

    cache: Cache
    filled: Int[Array, ""]

    @property
    def columns(self) -> int:
        return self.cache.keys.shape[-2]


def read(
    opt: OPT,
    params: Params,
    tokens: Int[Array, "batch length"],
    positions: Int[Array, "batch length"],
    mask: Bool[Array, "batch length length"],
    context: Shared | None = None,
) -> tuple[Float[Array, "batch length word_embed"], Cache]:
    """States of new tokens, and their own keys and values [layers, batch, heads, length, head_dim].

    Args:
      positions: places of the tokens within their documents; any valid one for padding.
      mask: which of the new tokens each of them sees. All of the context is seen by all.
    """
    hidden = _hide(~mask)
    unfilled = None if context is None else _hide(jnp.arange(context.columns) >= context.filled)

    def mix(hidden: Array, query: Array, key: Array, value: Array, *past: Array) -> Array:
        """Of one head, or of many as the last axis but two."""
        parts = [(_product("...qd,...kd->...qk", query, key) + hidden, value)]
        if past:
            parts.append((_product("...qd,...kd->...qk", query, past[0]) + unfilled, past[1]))
        peak = functools.reduce(jnp.maximum, [logits.max(-1, keepdims=True) for logits, _ in parts])
        total, mixed = 0.0, 0.0
        for logits, values in parts:
            weights = jnp.exp(logits - peak)
            total += weights.sum(-1, keepdims=True)
            mixed += jnp.einsum("...qk,...kd->...qd", weights.astype(value.dtype), values)
        return (mixed / total).astype(value.dtype)

    def at_once(*arrays: Array) -> Array:
        return mix(hidden[:, None], *arrays)

    def one_by_one(query: Array, key: Array, value: Array, *past: Array) -> Array:
        heads_first = (*(x.swapaxes(0, 1) for x in (query, key, value)), *past)
        return jax.lax.map(lambda head: mix(hidden, *head), heads_first).swapaxes(0, 1)

    def attend(query: Array, key: Array, value: Array, past: Cache | None) -> tuple[Array, Cache]:
        # Heads before tokens: XLA's CPU code multiplies such arrays twice as fast.
        query = query.swapaxes(1, 2) * query.shape[-1] ** -0.5
        own = Cache(key.swapaxes(1, 2), value.swapaxes(1, 2))
        arrays = (query, *own, *(() if past is None else (past.keys[0], past.values[0])))
        logits = math.prod(query.shape[:3]) * (query.shape[2] + (0 if context is None else context.columns))
        if logits <= _CACHED_LOGITS:
            mixed = at_once(*arrays)
        else:
            mixed = jax.lax.platform_dependent(*arrays, cpu=one_by_one, default=at_once)
        return mixed.swapaxes(1, 2), own

    return opt.run(params, tokens, positions, attend, None if context is None else context.cache)


def _product(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _hide(hidden: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """What is added to logits: XLA's CPU code makes one fast loop of a product and a sum, but not of a choice."""
    return jnp.where(hidden, -1e30, 0.0)


def step(
    opt: OPT,
    params: Params,
    tokens: Int[Array, " batch"],
    filled: Int[Array, " batch"],
    time: Int[Array, ""],
    cache: Cache,
) -> tuple[Float[Array, "batch word_embed"], Cache]:
    """The state of one more token a row, and the cache [layers, batch, heads, columns, head_dim] with it in it.

    The token goes to column `time` modulo the columns, the same for all rows. A row's context stands in the
    `filled` columns before it, so that rows of different lengths need neither padding nor a column each.

    Args:
      filled: tokens of each row's context, at most the columns less one; the place of the token.
    """

    def attend(query: Array, key: Array, value: Array, past: Cache) -> tuple[Array, Cache]:
        columns = past.keys.shape[2]
        write = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=time % columns, axis=2)
        keys = write(past.keys, key.swapaxes(1, 2))
        values = write(past.values, value.swapaxes(1, 2))
        visible = (time - jnp.arange(columns)) % columns <= filled[:, None]
        query = query[:, 0] * query.shape[-1] ** -0.5
        logits = jnp.einsum("bhd,bhkd->bhk", query, keys, preferred_element_type=jnp.float32)
        logits = jnp.where(visible[:, None], logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        return jnp.einsum("bhk,bhkd->bhd", weights, values)[:, None], Cache(keys, values)

    hidden, cache = opt.run(params, tokens[:, None], filled[:, None], attend, cache)
    return hidden[:, 0], cache


def empty_cache(opt: OPT, batch: int, columns: int, apart: bool) -> Cache:
    """A cache of zeros; its layers apart where the parameters' are."""
    config = opt.config
    shape = (batch, config.num_heads, columns, config.head_dim)
    if apart:
        layers = range(config.num_layers)
        return Cache(*(tuple(jnp.zeros(shape, config.dtype) for _ in layers) for _ in range(2)))
    return Cache(*(jnp.zeros((config.num_layers, *shape), config.dtype) for _ in range(2)))


def insert(cache: Cache, new: Cache, source: Int[Array, " batch"], time: Int[Array, ""]) -> Cache:
    """Rows of a cache replaced by contexts just read, flush right, their last token in the column before `time`.

    Args:
      new: [layers, rows, heads, length, head_dim], from `read`.
      source: for each row of the cache the row of `new` that replaces it, or -1.
    """

    def replace(old: Array, new: Array) -> Array:
        columns, length = old.shape[-2], new.shape[-2]
        pad = [(0, 0)] * (new.ndim - 2) + [(0, columns - length), (0, 0)]
        rolled = jnp.roll(jnp.pad(new, pad), (time - length) % columns, axis=-2)
        taken = jnp.take(rolled, jnp.maximum(source, 0), axis=-4)
        chosen = (source >= 0).reshape(-1, 1, 1, 1)
        return jnp.where(chosen, taken, old)

    if isinstance(cache.keys, tuple):
        new = Cache(*(tuple(part[i] for i in range(part.shape[0])) for part in new))
    return jax.tree.map(replace, cache, new)


def layers_apart(params: Params) -> Params:
    """The parameters with a tuple of layers in place of stacked ones: XLA's CPU code copies what a scan slices."""
    layers = params["layers"]
    count = jax.tree.leaves(layers)[0].shape[0]
    return {**params, "layers": tuple(jax.tree.map(lambda x, i=i: x[i], layers) for i in range(count))}
