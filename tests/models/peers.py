"""Small OPT models of every kind, and transformers' OPT of the same shape."""

from __future__ import annotations

import pytest

from iml.models.config import OPTConfig

_SMALL = {
    "vocab_size": 96,
    "num_layers": 2,
    "embed_dim": 32,
    "num_heads": 4,
    "ffn_dim": 64,
    "max_positions": 24,
    "dtype": "float32",
}

#: Like 125M; like 350M (projections, layer norms after, none at the end); like 2.7B (heads of 80).
KINDS = {
    "pre_norm": OPTConfig(**_SMALL),
    "post_norm": OPTConfig(**_SMALL, word_embed_dim=16, pre_norm=False, final_norm=False),
    "head_80": OPTConfig(**{**_SMALL, "embed_dim": 160, "num_heads": 2}),
}


def transformers_model(config: OPTConfig, seed: int = 0):
    """transformers' OPT with random weights, biases and scales included."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.OPTConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.embed_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        ffn_dim=config.ffn_dim,
        max_position_embeddings=config.max_positions,
        word_embed_proj_dim=config.word_dim,
        do_layer_norm_before=config.pre_norm,
    )
    torch.manual_seed(seed)
    model = transformers.OPTForCausalLM(theirs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
