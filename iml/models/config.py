"""Shape and numerics of an OPT decoder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from iml.errors import InputError

_DTYPES = ("float32", "bfloat16", "float16")
_REMAT = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class OPTConfig:
    """An OPT decoder (Zhang et al., 2022, table 1).

    Attributes:
      vocab_size: rows of the embedding, padding rows included.
      num_layers: decoder layers.
      embed_dim: width of the residual stream.
      num_heads: attention heads; they divide `embed_dim`.
      ffn_dim: width of the feed-forward layer; None for 4 x `embed_dim`.
      max_positions: longest document, in tokens; the position table has two more rows.
      word_embed_dim: width of the embedding if it differs from `embed_dim` (350M: 512, with projections).
      pre_norm: layer norm before each block rather than after it (all but 350M).
      final_norm: layer norm after the last layer (all but 350M).
      dropout: rate on the embeddings and on what each block adds to the residual stream.
      embed_dropout: whether `dropout` applies to the embeddings too (OPT-IML, section 3.3).
      attention_dropout: rate on attention weights.
      dtype: computation, "float32", "bfloat16" or "float16"; softmax, layer norm and loss stay float32.
      param_dtype: the parameters.
      remat: what the backward pass computes again: "none", "dots" (all but matrix products) or "full".
    """

    vocab_size: int = 50272
    num_layers: int = 12
    embed_dim: int = 768
    num_heads: int = 12
    ffn_dim: int | None = None
    max_positions: int = 2048
    word_embed_dim: int | None = None
    pre_norm: bool = True
    final_norm: bool = True
    dropout: float = 0.1
    embed_dropout: bool = True
    attention_dropout: float = 0.0
    dtype: str = "bfloat16"
    param_dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self):
        for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "max_positions"):
            if getattr(self, name) < 1:
                raise InputError(f"must be at least 1, not {getattr(self, name)}", field=f"OPTConfig.{name}")
        if self.embed_dim % self.num_heads:
            raise InputError(
                f"{self.num_heads} heads do not divide a width of {self.embed_dim}",
                field="OPTConfig.num_heads",
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError("must lie in [0, 1)", field=f"OPTConfig.{name}")
        for name, options in (("dtype", _DTYPES), ("param_dtype", _DTYPES), ("remat", _REMAT)):
            if getattr(self, name) not in options:
                raise InputError(
                    f"unknown value {getattr(self, name)!r}",
                    field=f"OPTConfig.{name}",
                    remedy=f"Known: {', '.join(options)}",
                )

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        return self.ffn_dim or 4 * self.embed_dim

    @property
    def word_dim(self) -> int:
        return self.word_embed_dim or self.embed_dim

    def num_parameters(self) -> int:
        """Exact number of parameters; the output layer shares the embedding."""
        d, f, w = self.embed_dim, self.mlp_dim, self.word_dim
        layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
        total = self.vocab_size * w + (self.max_positions + 2) * d + self.num_layers * layer
        total += 2 * w * d if w != d else 0
        return total + (2 * d if self.final_norm else 0)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`.

        Raises:
          InputError: an unknown field.
        """
        unknown = sorted(set(record) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise InputError("unknown field of a model", field=unknown[0])
        return cls(**record)

    def dumps(self) -> str:
        return json.dumps(self.to_json(), indent=2) + "\n"
