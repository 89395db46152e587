"""How much arithmetic a training step is, and how much of the chip a run uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iml.models.adapters import LoRA
from iml.training.chips import find_chip

if TYPE_CHECKING:
    from iml.models.config import OPTConfig
    from iml.training.tunings import Settings


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of one device; None where the chip is not known."""
    chip = find_chip(device_kind)
    return chip and chip.peak


def flops_per_token(config: OPTConfig, length: float, learnt: float = 1.0, tuning: Settings = None) -> float:
    """Floating-point operations of a training step per position, without recomputation.

    6 for each parameter that is multiplied: position embeddings are only added, and the word embedding, which
    is the output layer too, is multiplied where the loss is taken. Attention adds 12 * layers * width for each
    key that a query sees (PaLM, appendix B), which is half of the document it stands in on average.

    Args:
      length: positions of a document, averaged over tokens; the row's length counts attention for rows of one
        document each.
      learnt: share of the positions that the loss is taken at.
      tuning: what is trained. A frozen matrix gets no gradient, so 4 operations for each of its parameters, and 6
        for each of an adapter's; unpacking 4 bits is not counted.
    """
    tables = (config.max_positions + 2) * config.embed_dim
    output = config.vocab_size * config.word_dim
    multiplied = config.num_parameters() - tables - output
    each = 6.0 if tuning is None else 4.0
    adapters = tuning.num_parameters(config) if isinstance(tuning, LoRA) else 0
    attention = 6.0 * config.num_layers * config.embed_dim * length
    return each * (multiplied + learnt * output) + 6.0 * adapters + attention
