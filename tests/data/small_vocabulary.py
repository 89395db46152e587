"""A small byte-level BPE for tests that have no real data."""

from __future__ import annotations

import json
import pathlib

from iml.data.vocabulary import Vocabulary

_MERGES = (("t", "h"), ("Ġ", "th"), ("Ġth", "e"), ("a", "n"), ("Ġ", "a"), ("e", "r"), ("i", "n"), ("o", "n"))


def write_vocabulary(folder: pathlib.Path, names=("vocab.json", "merges.txt")) -> Vocabulary:
    """Writes special tokens, the byte alphabet and a few merges under the given file names."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *("".join(pair) for pair in _MERGES)]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(tokens)}
    (folder / names[0]).write_text(json.dumps(ids), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in _MERGES)
    (folder / names[1]).write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return Vocabulary(str(folder))
