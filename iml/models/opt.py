"""The OPT decoder: Flax NNX modules inside, pure functions over a tree of parameters outside."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from iml.models.attention import document_attention, masked_attention
from iml.models.config import OPTConfig

#: Nested dicts of arrays.
Params = dict[str, Any]
#: Keys and values of all layers: {"key", "value"}, each [layers, batch, length, heads, head_dim].
Cache = dict[str, Array]

#: OPT's position table begins with two rows that no document uses (fairseq's padding offset).
POSITION_OFFSET = 2
_INIT_STD = 0.02


class Linear(nnx.Module):
    """y = x W + b, computed in `dtype`."""

    def __init__(self, inputs: int, outputs: int, config: OPTConfig, rngs: nnx.Rngs, bias: bool = True):
        shape, dtype = (inputs, outputs), config.param_dtype
        self.kernel = nnx.Param(_INIT_STD * jax.random.normal(rngs.params(), shape, dtype))
        self.bias = nnx.Param(jnp.zeros(outputs, dtype)) if bias else None
        self.dtype = config.dtype

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        y = x @ self.kernel[...].astype(self.dtype)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class LayerNorm(nnx.Module):
    """Layer norm in float32, epsilon 1e-5."""

    def __init__(self, dim: int, config: OPTConfig):
        self.scale = nnx.Param(jnp.ones(dim, config.param_dtype))
        self.bias = nnx.Param(jnp.zeros(dim, config.param_dtype))

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-5)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class Attention(nnx.Module):
    """The four projections of self-attention."""

    def __init__(self, config: OPTConfig, rngs: nnx.Rngs):
        d = config.embed_dim
        self.q_proj = Linear(d, d, config, rngs)
        self.k_proj = Linear(d, d, config, rngs)
        self.v_proj = Linear(d, d, config, rngs)
        self.out_proj = Linear(d, d, config, rngs)
        self.heads = config.num_heads

    def project(self, x: Float[Array, "b t d"]) -> tuple[Array, Array, Array]:
        """Queries, keys and values, each [b, t, h, head_dim]."""
        shape = (*x.shape[:-1], self.heads, -1)
        return tuple(proj(x).reshape(shape) for proj in (self.q_proj, self.k_proj, self.v_proj))


class Layer(nnx.Module):
    """A decoder layer; `attend` says how queries meet keys, and hands on what the cache keeps."""

    def __init__(self, config: OPTConfig, rngs: nnx.Rngs):
        self.self_attn = Attention(config, rngs)
        self.self_attn_layer_norm = LayerNorm(config.embed_dim, config)
        self.fc1 = Linear(config.embed_dim, config.mlp_dim, config, rngs)
        self.fc2 = Linear(config.mlp_dim, config.embed_dim, config, rngs)
        self.final_layer_norm = LayerNorm(config.embed_dim, config)
        self.pre_norm, self.rate = config.pre_norm, config.dropout

    def __call__(self, x, attend, keys: tuple[Array, Array] | None = None):
        keys = keys or (None, None)

        def attention(y):
            heads, kept = attend(*self.self_attn.project(y))
            return self.self_attn.out_proj(heads.reshape(y.shape)), kept

        def mlp(y):
            return self.fc2(jax.nn.relu(self.fc1(y))), None

        x, kept = self._block(x, attention, self.self_attn_layer_norm, keys[0])
        x, _ = self._block(x, mlp, self.final_layer_norm, keys[1])
        return x, kept

    def _block(self, x, function, norm, key):
        y, kept = function(norm(x) if self.pre_norm else x)
        x = x + dropout(y, self.rate, key)
        return (x if self.pre_norm else norm(x)), kept


class Decoder(nnx.Module):
    """Embeddings, stacked layers (leading axis: layer) and the final norm."""

    def __init__(self, config: OPTConfig, rngs: nnx.Rngs):
        normal = functools.partial(jax.random.normal, dtype=config.param_dtype)
        w, d = config.word_dim, config.embed_dim
        self.embed_tokens = nnx.Param(_INIT_STD * normal(rngs.params(), (config.vocab_size, w)))
        table = (config.max_positions + POSITION_OFFSET, d)
        self.embed_positions = nnx.Param(_INIT_STD * normal(rngs.params(), table))
        if w != d:
            self.project_in = Linear(w, d, config, rngs, bias=False)
            self.project_out = Linear(d, w, config, rngs, bias=False)
        stack = nnx.vmap(lambda r: Layer(config, r), in_axes=0, out_axes=0)
        self.layers = stack(rngs.fork(split=config.num_layers))
        if config.final_norm:
            self.final_layer_norm = LayerNorm(d, config)


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Inverted dropout; the identity without a key."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0).astype(x.dtype)


#: Logical axes of the parameters by the end of their path; stacked layers have "layers" in front.
_AXES = {
    "embed_tokens": ("vocab", "word_embed"),
    "embed_positions": ("positions", "embed"),
    "project_in/kernel": ("word_embed", "embed"),
    "project_out/kernel": ("embed", "word_embed"),
    "q_proj/kernel": ("embed", "heads"),
    "k_proj/kernel": ("embed", "heads"),
    "v_proj/kernel": ("embed", "heads"),
    "out_proj/kernel": ("heads", "embed"),
    "q_proj/bias": ("heads",),
    "k_proj/bias": ("heads",),
    "v_proj/bias": ("heads",),
    "out_proj/bias": ("embed",),
    "fc1/kernel": ("embed", "mlp"),
    "fc1/bias": ("mlp",),
    "fc2/kernel": ("mlp", "embed"),
    "fc2/bias": ("embed",),
    "norm/scale": ("embed",),
    "norm/bias": ("embed",),
}


class OPT:
    """An OPT decoder as pure functions over a tree of parameters.

    Attributes:
      config: shape and numerics.
      attention: the implementation of document attention in use.
    """

    def __init__(self, config: OPTConfig, attention: str = "xla"):
        self.config, self.attention = config, attention

    @functools.cached_property
    def _abstract(self) -> tuple[Any, Any]:
        """The decoder's graph and its abstract state."""
        decoder = nnx.eval_shape(lambda: Decoder(self.config, nnx.Rngs(params=0)))
        graph, state = nnx.split(decoder, nnx.Param)
        return graph, state

    def abstract_params(self) -> Params:
        """The parameters' shapes and dtypes, as a tree of `jax.ShapeDtypeStruct`."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), nnx.to_pure_dict(self._abstract[1])
        )

    def logical_axes(self) -> Params:
        """The logical name of every axis of every parameter, a tree of tuples like the parameters' tree."""

        def axes(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> tuple[str, ...]:
            name = "/".join(entry.key for entry in path)
            ending = next(ending for ending in _AXES if name.replace("layer_norm", "norm").endswith(ending))
            return (("layers",) if name.startswith("layers/") else ()) + _AXES[ending]

        return jax.tree_util.tree_map_with_path(axes, self.abstract_params())

    def init(self, key: Array) -> Params:
        """Random parameters: N(0, 0.02) matrices, zero biases, unit norms."""
        return nnx.to_pure_dict(nnx.state(Decoder(self.config, nnx.Rngs(params=key)), nnx.Param))

    def hidden(
        self,
        params: Params,
        tokens: Int[Array, "b t"],
        segment_ids: Int[Array, "b t"],
        positions: Int[Array, "b t"],
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "b t w"]:
        """What the output embedding is multiplied with, in the compute dtype.

        Args:
          segment_ids: document of each token, from 1; 0 is padding.
          positions: place of each token in its document, from 0.
          dropout_key: turns dropout on.
        """

        def attend(key: Array | None, _: Any):
            def run(q, k, v):
                options = {"dropout_rate": self.config.attention_dropout, "dropout_key": key}
                heads = document_attention(q, k, v, segment_ids, implementation=self.attention, **options)
                return heads, None

            return run

        return self._forward(params, tokens, positions, attend, None, dropout_key)[0]

    def logits(self, params: Params, hidden: Float[Array, "*b w"]) -> Float[Array, "*b v"]:
        """Logits in float32; the output embedding is the input embedding."""
        table = params["embed_tokens"].astype(self.config.dtype)
        return jnp.einsum("...w,vw->...v", hidden, table, preferred_element_type=jnp.float32)

    def apply(
        self,
        params: Params,
        tokens: Int[Array, "b t"],
        segment_ids: Int[Array, "b t"],
        positions: Int[Array, "b t"],
        *,
        dropout_key: Array | None = None,
    ) -> Float[Array, "b t v"]:
        """Logits of the token after each position; see `hidden`."""
        hidden = self.hidden(params, tokens, segment_ids, positions, dropout_key=dropout_key)
        return self.logits(params, hidden)

    def init_cache(self, batch: int, length: int) -> Cache:
        """An empty cache for sequences of up to `length` tokens."""
        config = self.config
        shape = (config.num_layers, batch, length, config.num_heads, config.head_dim)
        return {name: jnp.zeros(shape, config.dtype) for name in ("key", "value")}

    def decode(
        self,
        params: Params,
        tokens: Int[Array, "b t"],
        positions: Int[Array, "b t"],
        cache: Cache,
        *,
        start: Int[Array, ""] | int,
        key_mask: Bool[Array, "b s"],
    ) -> tuple[Float[Array, "b t v"], Cache]:
        """Logits of tokens that follow those in the cache, and the cache with them in it.

        Args:
          tokens: a whole prompt, padded on the left, or one token a row.
          positions: place of each token in its document; padding may have any.
          start: slot of the cache for the first of the tokens.
          key_mask: slots that hold tokens, those of this call included; padding is False.
        """
        length, slots = tokens.shape[1], cache["key"].shape[2]
        causal = jnp.arange(slots) <= start + jnp.arange(length)[:, None]
        mask = causal & key_mask[:, None, :]

        def attend(_: Any, layer_cache: Cache):
            def run(q, k, v):
                kept = {
                    name: jax.lax.dynamic_update_slice_in_dim(layer_cache[name], new, start, axis=1)
                    for name, new in (("key", k), ("value", v))
                }
                return masked_attention(q, kept["key"], kept["value"], mask), kept

            return run

        hidden, cache = self._forward(params, tokens, positions, attend, cache, None)
        return self.logits(params, hidden), cache

    def _forward(self, params, tokens, positions, attend, cache, dropout_key):
        """Embeddings, all layers, final norm. `attend(key, layer_cache)` gives a layer its attention."""
        config = self.config
        graph, state = self._abstract
        # The state and the pure dict hold the same leaves in the same order, sorted by name.
        state = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(params))
        decoder: Decoder = nnx.merge(graph, state)
        embed_key, layers_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)

        x = decoder.embed_tokens[...][tokens].astype(config.dtype)
        if config.word_dim != config.embed_dim:
            x = decoder.project_in(x)
        x = x + decoder.embed_positions[...][positions + POSITION_OFFSET].astype(config.dtype)
        if config.embed_dropout:
            x = dropout(x, config.dropout, embed_key)

        layer_graph, layers = nnx.split(decoder.layers)
        keys = None if layers_key is None else jax.random.split(layers_key, (config.num_layers, 3))

        def step(x, scanned):
            layer_state, layer_cache, layer_keys = scanned
            layer: Layer = nnx.merge(layer_graph, layer_state)
            one, two, three = (None, None, None) if layer_keys is None else layer_keys
            return layer(x, attend(three, layer_cache), (one, two))

        x, cache = jax.lax.scan(_remat(step, config.remat), x, (layers, cache, keys))
        if config.final_norm:
            x = decoder.final_layer_norm(x)
        if config.word_dim != config.embed_dim:
            x = decoder.project_out(x)
        return x, cache


def _remat(function, policy: str):
    if policy == "none":
        return function
    kept = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if policy == "dots" else None
    return jax.checkpoint(function, policy=kept, prevent_cse=False)
