"""Settings of low-rank adapters, as gin binds them; kept apart from JAX, which is slow to import."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from iml.errors import InputError
from iml.models.config import OPTConfig

#: The projections of a layer.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_BASES = ("float32", "bfloat16", "nf4")
#: Weights that share a scale in NF4 (arXiv 2305.14314, section 4).
NF4_BLOCK = 64


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Low-rank adapters beside frozen projections (arXiv 2106.09685): x W + b + alpha / rank dropout(x) A B.

    Attributes:
      rank: columns of A [inputs, rank] and rows of B [rank, outputs].
      alpha: see above.
      dropout: rate on what A is applied to.
      targets: the projections that get an adapter, of `PROJECTIONS`.
      base: what the frozen weights are kept in. With "bfloat16" matrices and tables are in it, biases and layer
        norms in the model's `param_dtype`. With "nf4" the layers' projections are in 4 bits, with scales that are
        quantised again (QLoRA, arXiv 2305.14314), and what is left is as with "bfloat16".
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: Sequence[str] = ("q_proj", "v_proj")
    base: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise InputError(f"must be at least 1, not {self.rank}", field="LoRA.rank")
        if not 0 <= self.dropout < 1:
            raise InputError(f"must be in [0, 1), not {self.dropout}", field="LoRA.dropout")
        if not self.targets or set(self.targets) - set(PROJECTIONS):
            raise InputError(
                f"must be some of {', '.join(PROJECTIONS)}, not {list(self.targets)}", field="LoRA.targets"
            )
        if self.base not in _BASES:
            raise InputError(f"must be one of {', '.join(_BASES)}, not {self.base!r}", field="LoRA.base")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def stored_dtype(self) -> str:
        """What frozen matrices and tables that are not quantised are kept in."""
        return "float32" if self.base == "float32" else "bfloat16"

    def num_parameters(self, config: OPTConfig) -> int:
        """Parameters of all adapters."""
        widths = [
            config.embed_dim + (config.mlp_dim if name in ("fc1", "fc2") else config.embed_dim)
            for name in self.targets
        ]
        return config.num_layers * self.rank * sum(widths)

    def check(self, config: OPTConfig) -> None:
        """Refuses a model whose projections cannot be cut into blocks.

        Raises:
          InputError: says which size.
        """
        if self.base == "nf4":
            for name in ("embed_dim", "mlp_dim"):
                if getattr(config, name) % NF4_BLOCK:
                    raise InputError(
                        f"NF4 needs widths that are multiples of {NF4_BLOCK}; {name} is {getattr(config, name)}",
                        field="LoRA.base",
                    )
