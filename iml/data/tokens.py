"""From prompts to token ids, as metaseq's fine-tuning task makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from iml.data.prompts import Prompt
from iml.data.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One prompt as token ids.

    Attributes:
      tokens: int32 [n], n >= 2, the last one EOS.
      target_start: index of the first token to be learnt; 0 if all are.
      prompt: what it was made of.
      truncated: tokens cut off its head.
    """

    tokens: np.ndarray
    target_start: int
    prompt: Prompt
    truncated: int = 0

    @property
    def positions(self) -> int:
        """Places that it takes in a row: its last token is only ever a target."""
        return len(self.tokens) - 1


def encode_prompts(vocabulary: Vocabulary, prompts: Sequence[Prompt], max_length: int) -> list[Document]:
    """Documents of prompts: source, one space, target and EOS; no BOS.

    The source loses its trailing spaces and the target its trailing white space; both are encoded as one
    text, of which as many tokens are source as the source alone has (metaseq, branch opt_instruct,
    `streaming_finetune_language_modeling.py`). Without a source the text has a leading space and is all
    target. What is longer than `max_length + 1` tokens loses its head, instruction first, as metaseq's
    `--left-truncation` does.

    Args:
      max_length: positions in a row.
    """
    texts: list[str] = []
    splits: list[bool] = []
    for prompt in prompts:
        source, target = prompt.source.rstrip(" "), " " + prompt.target.rstrip()
        # GPT-2's pre-tokeniser starts a new word at a space that follows a visible character, so there the
        # two halves encode as the whole does, in half the time. After other white space they may not.
        split = not source or not source[-1].isspace()
        splits.append(split)
        texts += (source, target) if split else (source, source + target)
    encoded = vocabulary.encode_batch(texts)
    documents = []
    for i, prompt in enumerate(prompts):
        source, other = encoded[2 * i], encoded[2 * i + 1]
        ids = source + other if splits[i] else other
        ids.append(vocabulary.EOS)
        cut = max(0, len(ids) - max_length - 1)
        start = max(0, len(source) - cut)
        documents.append(Document(np.array(ids[cut:], np.int32), start, prompt, cut))
    return documents
