"""The shape of an OPT model, and how it computes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from iml.errors import InputError

#: Rows of the position table that come before position 0: fairseq counts from padding_idx + 1.
POSITION_OFFSET = 2

_DTYPES = ("float32", "bfloat16", "float16")
_PARAM_DTYPES = ("float32", "bfloat16")
#: What a backward pass may recompute, the most saved first; see `OPTConfig.remat`.
REMAT = ("none", "dots", "attention", "full")
#: The name under which attention's results are saved.
SAVED = "attention"


@dataclasses.dataclass(frozen=True)
class OPTConfig:
    """An OPT decoder (arXiv 2205.01068, table 1); the defaults are OPT-125M's.

    Attributes:
      vocab_size: rows of the token table, padding rows included.
      num_layers: decoder layers.
      embed_dim: width of the residual stream.
      num_heads: attention heads; divides `embed_dim`.
      ffn_dim: width of the feed-forward layer; None stands for four times `embed_dim`.
      max_positions: the longest document; the position table has two rows more.
      word_embed_dim: width of the token table where it differs from `embed_dim` (350M), else None.
      pre_norm: layer norms stand before attention and feed-forward (all sizes but 350M), else after.
      final_norm: a layer norm follows the last layer (all sizes but 350M).
      dropout: rate after attention, after feed-forward and, with `embed_dropout`, on the embeddings.
      embed_dropout: OPT-IML's tuning drops embeddings (arXiv 2212.12017, section 3.3); pre-training did not.
      attention_dropout: rate on the attention probabilities.
      dtype: what activations and matrix products are in; layer norms, softmax and logits are float32.
        Training in float16 needs loss scaling.
      param_dtype: what the parameters are kept in.
      remat: what the backward pass recomputes: "none", "attention" (all but attention's result and its normaliser's
        logarithm), "dots" (all but these and the products) or "full" (each layer).
      attention: the attention implementation, a name of `iml.models.attention.IMPLEMENTATIONS`, or "auto" for
        the best one where it runs.
      init_std: standard deviation of fresh weights.
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
    attention: str = "auto"
    init_std: float = 0.02

    def __post_init__(self):
        if self.ffn_dim is None:
            object.__setattr__(self, "ffn_dim", 4 * self.embed_dim)
        for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "ffn_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise _bad(name, f"must be at least 1, not {getattr(self, name)}")
        if self.word_embed_dim is not None and self.word_embed_dim < 1:
            raise _bad("word_embed_dim", f"must be at least 1, not {self.word_embed_dim}")
        if self.embed_dim % self.num_heads:
            raise _bad("num_heads", f"{self.num_heads} heads do not divide embed_dim {self.embed_dim}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise _bad(name, f"must be in [0, 1), not {getattr(self, name)}")
        for name, allowed in (("dtype", _DTYPES), ("param_dtype", _PARAM_DTYPES), ("remat", REMAT)):
            if getattr(self, name) not in allowed:
                raise _bad(name, f"must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if self.word_embed_dim == self.embed_dim:
            object.__setattr__(self, "word_embed_dim", None)  # one way to say that nothing is projected

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def mlp_dim(self) -> int:
        """Width of the feed-forward layer."""
        return self.ffn_dim or 4 * self.embed_dim

    @property
    def word_dim(self) -> int:
        """Width of the token table."""
        return self.word_embed_dim or self.embed_dim

    def num_parameters(self) -> int:
        """Exact number of parameters; the tied output table counts once."""
        width, ffn = self.embed_dim, self.mlp_dim
        attention = 4 * (width * width + width)
        layer = attention + (width * ffn + ffn) + (ffn * width + width) + 2 * 2 * width
        tables = self.vocab_size * self.word_dim + (self.max_positions + POSITION_OFFSET) * width
        projections = 2 * self.word_dim * width if self.word_embed_dim else 0
        return tables + projections + self.num_layers * layer + (2 * width if self.final_norm else 0)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return dataclasses.asdict(self)

    def dumps(self) -> str:
        """The fields as JSON text."""
        return json.dumps(self.to_json(), indent=2) + "\n"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], *, path: str | None = None) -> OPTConfig:
        """The inverse of `to_json`.

        Raises:
          InputError: an unknown field or an impossible value; `path` says where it was read.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise InputError("no such field of OPTConfig", path=path, field=name)
        return cls(**fields)


def _bad(name: str, problem: str) -> InputError:
    return InputError(problem, field=f"OPTConfig.{name}")
