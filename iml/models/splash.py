"""Document attention on TPUs by JAX's splash attention, which never forms the matrix of all pairs."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

from iml.errors import InputError
from iml.models.config import SAVED

#: The kernel works on blocks of positions; the largest of these that divides the length is taken.
_BLOCKS = (1024, 512, 256, 128)


def splash_attention(
    query: Float[Array, "batch length heads head_dim"],
    key: Float[Array, "batch length heads head_dim"],
    value: Float[Array, "batch length heads head_dim"],
    segment_ids: Int[Array, "batch length"],
    *,
    interpret: bool = False,
) -> Float[Array, "batch length heads head_dim"]:
    """Causal attention within segments, as `iml.models.attention.document_attention` describes it.

    Scores and sums are float32. Arrays must be whole on a device: on a mesh it is called under `shard_map`.

    Args:
      interpret: run the kernel's steps on any device, slowly, to check them.

    Raises:
      InputError: the length is no multiple of 128.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length, heads, head_dim = query.shape[1:]
    block = next((block for block in _BLOCKS if length % block == 0), None)
    if block is None:
        raise InputError(
            f"splash attention needs rows of a multiple of {_BLOCKS[-1]} positions, not {length}",
            field="OPTConfig.attention",
        )
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=min(block, 512),
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=min(block, 512),
        use_fused_bwd_kernel=True,
    )
    attend = kernel.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((length, length)) for _ in range(heads)]),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        residual_checkpoint_name=SAVED,
    )

    def row(query: Array, key: Array, value: Array, ids: Array) -> Array:
        return attend(query, key, value, segment_ids=kernel.SegmentIds(ids, ids))

    heads_first = (array.swapaxes(1, 2) for array in (query * head_dim**-0.5, key, value))
    return jax.vmap(row)(*heads_first, segment_ids).swapaxes(1, 2)
