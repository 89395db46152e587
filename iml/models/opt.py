"""OPT: Flax NNX modules inside, pure functions of a plain parameter tree outside.

One `DecoderLayer` is an NNX module; its graph is made once, without arrays, and the layers' parameters are
stacked and scanned, so that compile time does not grow with depth. Trainer and evaluator see nested dicts of
arrays. Architecture after transformers' `modeling_opt` and metaseq's decoder (arXiv 2205.01068).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from iml.errors import InputError
from iml.models import attention, nf4
from iml.models.adapters import LoRA
from iml.models.attention import document_attention, dropout
from iml.models.config import POSITION_OFFSET, SAVED, OPTConfig
from iml.models.linear import FrozenLinear, Linear

#: A nested dict; leaves are arrays, shapes or tuples of axis names.
Params = dict[str, Any]
#: (query, key, value), each [batch, length, heads, head_dim], to the attention's result and something extra.
Attend = Callable[[Array, Array, Array], tuple[Array, Any]]
#: (an array, the names of its axes) to the same array, placed where it is used.
Gather = Callable[[Array, Sequence[str | None]], Array]

_LAYER_NORM_EPSILON = 1e-5
#: What is saved under each of `OPTConfig.remat`'s names but "none".
_POLICIES = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(SAVED),
    # Attention's own products are in kernels or have batch dimensions, so its results are saved by name.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(SAVED),
    ),
}


class LayerNorm(nnx.LayerNorm):
    """Layer norm in float32 whatever the compute dtype, which the result is cast back to."""

    def __init__(self, config: OPTConfig, rngs: nnx.Rngs):
        super().__init__(
            config.embed_dim,
            epsilon=_LAYER_NORM_EPSILON,
            dtype=jnp.float32,
            param_dtype=jnp.dtype(config.param_dtype),
            use_fast_variance=False,
            rngs=rngs,
        )

    def __call__(self, x: Array) -> Array:
        return super().__call__(x).astype(x.dtype)


def _projection(
    config: OPTConfig, lora: LoRA | None, rngs: nnx.Rngs, gather: Gather
) -> Callable[..., nnx.Module]:
    """Makes a layer's projections, by name."""
    if lora is None:
        return lambda name, *sizes, std: Linear(config, *sizes, rngs, std=std)

    def frozen(name: str, *sizes: int, std: float) -> FrozenLinear:
        def gathered(kernel: nf4.Quantised) -> nf4.Quantised:
            axes = _AXES[name, "kernel"]
            return {part: gather(array, nf4.AXES[part](*axes)) for part, array in kernel.items()}

        return FrozenLinear(config, lora, name in lora.targets, *sizes, rngs, std=std, gather=gathered)

    return frozen


class SelfAttention(nnx.Module):
    """Multi-head attention; how the heads attend is the caller's."""

    def __init__(
        self, config: OPTConfig, rngs: nnx.Rngs, output_std: float, lora: LoRA | None, gather: Gather
    ):
        self.num_heads = config.num_heads
        linear, width = _projection(config, lora, rngs, gather), config.embed_dim
        self.q_proj = linear("q_proj", width, width, std=config.init_std)
        self.k_proj = linear("k_proj", width, width, std=config.init_std)
        self.v_proj = linear("v_proj", width, width, std=config.init_std)
        self.out_proj = linear("out_proj", width, width, std=output_std)

    def __call__(self, x: Array, attend: Attend, dropout_key: jax.Array | None) -> tuple[Array, Any]:
        keys = _adapter_keys(dropout_key, range(4))
        heads = (*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)
        projections = zip((self.q_proj, self.k_proj, self.v_proj), keys, strict=False)
        query, key, value = (project(x, key).reshape(heads) for project, key in projections)
        mixed, extra = attend(query, key, value)
        return self.out_proj(mixed.reshape(x.shape), keys[3]), extra


def _adapter_keys(dropout_key: jax.Array | None, numbers: Sequence[int]) -> list[jax.Array | None]:
    """Keys for the dropout of a layer's adapters, apart from the two that `jax.random.split` gives the layer."""
    return [None if dropout_key is None else jax.random.fold_in(dropout_key, 2 + each) for each in numbers]


class DecoderLayer(nnx.Module):
    """Attention and feed-forward, with layer norms before (`pre_norm`) or after the residual sums."""

    def __init__(
        self,
        config: OPTConfig,
        rngs: nnx.Rngs,
        lora: LoRA | None = None,
        gather: Gather = lambda array, axes: array,
    ):
        self.pre_norm, self.dropout = config.pre_norm, config.dropout
        # What adds to the residual stream starts smaller with depth (arXiv 2205.01068, section 2.2).
        output_std = config.init_std / (2 * config.num_layers) ** 0.5
        linear = _projection(config, lora, rngs, gather)
        self.self_attn = SelfAttention(config, rngs, output_std, lora, gather)
        self.self_attn_layer_norm = LayerNorm(config, rngs)
        self.fc1 = linear("fc1", config.embed_dim, config.mlp_dim, std=config.init_std)
        self.fc2 = linear("fc2", config.mlp_dim, config.embed_dim, std=output_std)
        self.final_layer_norm = LayerNorm(config, rngs)

    def __call__(self, x: Array, attend: Attend, dropout_key: jax.Array | None = None) -> tuple[Array, Any]:
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        normed = self.self_attn_layer_norm(x) if self.pre_norm else x
        mixed, extra = self.self_attn(normed, attend, dropout_key)
        x = x + dropout(mixed, self.dropout, keys[0])
        x = x if self.pre_norm else self.self_attn_layer_norm(x)
        first, second = _adapter_keys(dropout_key, (4, 5))
        hidden = self.fc1(self.final_layer_norm(x) if self.pre_norm else x, first)
        x = x + dropout(self.fc2(jax.nn.relu(hidden), second), self.dropout, keys[1])
        return (x if self.pre_norm else self.final_layer_norm(x)), extra


class Ends(nnx.Module):
    """What stands before and after the layers."""

    def __init__(self, config: OPTConfig, rngs: nnx.Rngs, lora: LoRA | None = None):
        stored = dataclasses.replace(config, param_dtype=lora.stored_dtype) if lora else config

        def table(rows: int, width: int) -> nnx.Embed:
            return nnx.Embed(
                rows,
                width,
                dtype=jnp.dtype(config.dtype),
                param_dtype=jnp.dtype(stored.param_dtype),
                embedding_init=nnx.initializers.normal(config.init_std),
                rngs=rngs,
            )

        self.embed_tokens = table(config.vocab_size, config.word_dim)
        self.embed_positions = table(config.max_positions + POSITION_OFFSET, config.embed_dim)
        if config.word_embed_dim:
            project = functools.partial(Linear, stored, rngs=rngs, std=config.init_std, bias=False)
            self.project_in = project(config.word_dim, config.embed_dim)
            self.project_out = project(config.embed_dim, config.word_dim)
        if config.final_norm:
            self.final_layer_norm = LayerNorm(config, rngs)


class OPT:
    """The model as pure functions of its parameters.

    Attributes:
      config: the model's shape, its `attention` resolved.

    Args:
      config: the model's shape.
      constrain: applied to the hidden states [batch, length, embed] after the embeddings and after each
        layer; the place for a sharding constraint.
      spread: makes of an attention kernel, which needs whole arrays, one for arrays on a mesh.
      platform: where it is to run, "cpu", "gpu" or "tpu"; None for where JAX runs by default.
      lora: its projections are frozen, some of them with low-rank adapters; the parameters then are as
        `iml.models.lora` describes them.
      gather: applied to the arrays of a quantised kernel before it is unpacked; the place for a sharding
        constraint, without which XLA sends unpacked weights between devices.

    Raises:
      InputError: the configuration's attention does not run there.
    """

    def __init__(
        self,
        config: OPTConfig,
        constrain: Callable[[Array], Array] | None = None,
        spread: Callable[[attention.DocumentAttention], attention.DocumentAttention] | None = None,
        platform: str | None = None,
        lora: LoRA | None = None,
        gather: Gather = lambda array, axes: array,
    ):
        if lora is not None:
            lora.check(config)
        resolved = attention.resolve(
            config.attention, platform or jax.default_backend(), config.attention_dropout, config.dtype
        )
        if config.remat == "attention" and not attention.IMPLEMENTATIONS[resolved].saves:
            raise InputError(
                f"attention {resolved!r} cannot save its results by name",
                field="OPTConfig.remat",
                remedy='Choose "full", "dots" or "none"',
            )
        self.config = dataclasses.replace(config, attention=resolved)
        self._constrain = constrain or (lambda x: x)
        self._spread = spread or (lambda attend: attend)
        # Graphs without arrays: merged with parameters they are modules again.
        self.lora = lora
        self._ends_graph, _ = nnx.split(nnx.eval_shape(lambda: Ends(config, nnx.Rngs(0), lora)))
        self._layer_graph, _ = nnx.split(
            nnx.eval_shape(lambda: DecoderLayer(config, nnx.Rngs(0), lora, gather))
        )

    @property
    def drops(self) -> bool:
        """Whether it needs a key where it is trained."""
        config = self.config
        return bool(config.dropout or config.attention_dropout or (self.lora and self.lora.dropout))

    def abstract_params(self) -> Params:
        """The parameters' shapes and dtypes; allocates nothing."""
        return jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))

    def logical_axes(self) -> Params:
        """The parameters' axis names, as tuples in the tree of the parameters."""
        return jax.tree_util.tree_map_with_path(_axes, self.abstract_params())

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters: normal weights, zero biases, unit scales."""
        ends_key, layers_key = jax.random.split(key)

        def arrays(module: type[nnx.Module], key: jax.Array) -> Params:
            rngs = nnx.Rngs(key, lora=jax.random.fold_in(key, 1))
            return nnx.to_pure_dict(nnx.state(module(self.config, rngs, self.lora), nnx.Param))

        layer_keys = jax.random.split(layers_key, self.config.num_layers)
        # Layers that are quantised are made one after the other: never all of them in float32.
        over_layers = jax.vmap if self.lora is None else lambda make: functools.partial(jax.lax.map, make)
        layers = over_layers(functools.partial(arrays, DecoderLayer))(layer_keys)
        return {**arrays(Ends, ends_key), "layers": layers}

    def apply(
        self,
        params: Params,
        tokens: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        *,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "batch length vocab"]:
        """Next-token logits, float32; see `hidden`."""
        return self.logits(
            params, self.hidden(params, tokens, segment_ids, positions, dropout_key=dropout_key)
        )

    def hidden(
        self,
        params: Params,
        tokens: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        *,
        dropout_key: jax.Array | None = None,
        documents: int = attention.DOCUMENTS,
    ) -> Float[Array, "batch length word_embed"]:
        """The states that the logits are made of.

        Args:
          params: as `init` gives them.
          tokens: ids below `vocab_size`; an id outside makes the result NaN.
          segment_ids: the document of each position, from 1; 0 is padding.
          positions: position within the document, from 0; one of `max_positions` or more gives NaN.
          dropout_key: deterministic without one.
          documents: the most that a row holds.
        """
        config, keys = self.config, self.dropout_keys(dropout_key)

        def body(x: Array, scanned: tuple[Params, jax.Array | None]) -> tuple[Array, None]:
            layer_params, key = scanned
            return self.layer(layer_params, x, segment_ids, key, documents), None

        if config.remat != "none":
            # A scan keeps the copies apart.
            body = jax.checkpoint(body, policy=_POLICIES[config.remat], prevent_cse=False)
        x = self.enter(params, tokens, positions, None if keys is None else keys[-1])
        x, _ = jax.lax.scan(body, x, (params["layers"], None if keys is None else keys[:-1]))
        return self.leave(params, x)

    def dropout_keys(self, key: jax.Array | None) -> jax.Array | None:
        """A key for each layer, and at last one for the embeddings."""
        return None if key is None else jax.random.split(key, self.config.num_layers + 1)

    def enter(
        self,
        params: Params,
        tokens: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        key: jax.Array | None,
    ) -> Float[Array, "batch length embed"]:
        """What the first layer is given; of `params` only those outside the layers are used."""
        x = self._embed(self._ends(params), tokens, positions)
        return dropout(x, self.config.dropout, key) if self.config.embed_dropout else x

    def layer(
        self,
        layer_params: Params,
        x: Float[Array, "batch length embed"],
        segment_ids: Int[Array, "batch length"],
        key: jax.Array | None,
        documents: int = attention.DOCUMENTS,
    ) -> Float[Array, "batch length embed"]:
        """One layer, whose parameters are no longer stacked."""
        config = self.config
        layer_key, attention_key = (None, None) if key is None else jax.random.split(key)

        def attend(query: Array, key: Array, value: Array) -> tuple[Array, None]:
            mixed = document_attention(
                query,
                key,
                value,
                segment_ids,
                implementation=config.attention,
                dropout_rate=config.attention_dropout,
                dropout_key=attention_key,
                documents=documents,
                spread=self._spread,
            )
            return mixed, None

        x, _ = self._layer(layer_params)(x, attend, layer_key)
        return self._constrain(x)

    def leave(
        self, params: Params, x: Float[Array, "batch length embed"]
    ) -> Float[Array, "batch length word_embed"]:
        """What follows the last layer; of `params` only those outside the layers are used."""
        return self._leave(self._ends(params), x)

    def logits(
        self, params: Params, hidden: Float[Array, "*batch word_embed"]
    ) -> Float[Array, "*batch vocab"]:
        """Scores of the next token by the tied token table, float32."""
        table = params["embed_tokens"]["embedding"].astype(hidden.dtype)
        return jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)

    def run(
        self,
        params: Params,
        tokens: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        attend: Callable[[Array, Array, Array, Any], tuple[Array, Any]],
        past: Any = None,
    ) -> tuple[Float[Array, "batch length word_embed"], Any]:
        """The states that the logits are made of, with an attention that keeps things from layer to layer.

        Args:
          params: as `init` gives them, or with a tuple of layers in place of the stacked ones.
          positions: as for `hidden`.
          attend: of query, key, value and what `past` holds for the layer, the result and what to keep.
          past: arrays stacked as the layers are, or tuples of one array a layer where the layers are a tuple.

        Returns:
          The states, and what the layers kept, in the shape of `past`.
        """
        ends, layers = self._ends(params), params["layers"]
        x = self._embed(ends, tokens, positions)

        def body(x: Array, scanned: tuple[Params, Any]) -> tuple[Array, Any]:
            layer_params, before = scanned
            x, kept = self._layer(layer_params)(x, lambda *args: attend(*args, before))
            return self._constrain(x), kept

        if not isinstance(layers, tuple):
            x, kept = jax.lax.scan(body, x, (layers, past))
            return self._leave(ends, x), kept
        each = []
        for number, layer in enumerate(layers):
            before = jax.tree.map(lambda part, n=number: part[n], past, is_leaf=_is_layers)
            x, kept = body(x, (layer, before))
            each.append(kept)
        return self._leave(ends, x), jax.tree.map(lambda *parts: parts, *each)

    def _ends(self, params: Params) -> Ends:
        return nnx.merge(self._ends_graph, _state({k: v for k, v in params.items() if k != "layers"}))

    def _layer(self, params: Params) -> DecoderLayer:
        return nnx.merge(self._layer_graph, _state(params))

    def _embed(self, ends: Ends, tokens: Array, positions: Array) -> Array:
        dtype = jnp.dtype(self.config.dtype)
        # `take` fills with NaN where an index is outside: a wrong vocabulary is noticed at once.
        x = jnp.take(ends.embed_tokens.embedding[...], tokens, axis=0).astype(dtype)
        if self.config.word_embed_dim:
            x = ends.project_in(x)
        places = jnp.take(ends.embed_positions.embedding[...], positions + POSITION_OFFSET, axis=0)
        return self._constrain(x + places.astype(dtype))

    def _leave(self, ends: Ends, x: Array) -> Array:
        x = ends.final_layer_norm(x) if self.config.final_norm else x
        return ends.project_out(x) if self.config.word_embed_dim else x


def _is_layers(node: Any) -> bool:
    return type(node) is tuple


def _state(params: Params) -> nnx.State:
    return nnx.State(jax.tree.map(nnx.Param, params))


#: Axis names of the kernels and tables; heads and head size share one axis, as do their biases.
_AXES = {
    ("embed_tokens", "embedding"): ("vocab", "word_embed"),
    ("embed_positions", "embedding"): ("positions", "embed"),
    ("project_in", "kernel"): ("word_embed", "embed"),
    ("project_out", "kernel"): ("embed", "word_embed"),
    **{(name, "kernel"): ("embed", "heads") for name in ("q_proj", "k_proj", "v_proj")},
    **{(name, "bias"): ("heads",) for name in ("q_proj", "k_proj", "v_proj")},
    ("out_proj", "kernel"): ("heads", "embed"),
    ("fc1", "kernel"): ("embed", "mlp"),
    ("fc1", "bias"): ("mlp",),
    ("fc2", "kernel"): ("mlp", "embed"),
}


def _axes(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> tuple[str | None, ...]:
    names = tuple(part.key for part in path)
    if "kernel" in names[:-1]:  # a quantised one
        axes = nf4.AXES[names[-1]](*_AXES[names[-3:-1]])
    elif names[-1] in ("lora_a", "lora_b"):
        inputs, outputs = _AXES[names[-2], "kernel"]
        axes = (inputs, "lora") if names[-1] == "lora_a" else ("lora", outputs)
    else:
        axes = _AXES.get(names[-2:], ("embed",))  # layer norms and the other biases
    return ("layers", *axes) if names[0] == "layers" else axes
