"""From prompts to token ids, as metaseq's fine-tuning task makes them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from iml.data.prompts import Prompt
from iml.data.vocabulary import Vocabulary

_NOTHING = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One prompt as token ids.

    Attributes:
      tokens: int32 [n], n >= 2, the last one EOS.
      target_start: index of the first token to be learnt; 0 if all are.
      prompt: what it was made of, None if its ids were kept from an earlier time.
      truncated: tokens cut off its head.
    """

    tokens: np.ndarray
    target_start: int
    prompt: Prompt | None
    truncated: int = 0

    @property
    def positions(self) -> int:
        """Places that it takes in a row: its last token is only ever a target."""
        return len(self.tokens) - 1

    @property
    def targets(self) -> int:
        """Tokens to be learnt; the first of a row has nothing before it that could predict it."""
        return len(self.tokens) - max(1, self.target_start)

    def learn_at_most(self, targets: int) -> Document:
        """This document, of whose targets only the last so many are learnt."""
        if self.targets <= targets:
            return self
        return dataclasses.replace(self, target_start=len(self.tokens) - targets)


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
    heads: list[np.ndarray] = []
    wholes: list[bool] = []
    for prompt in prompts:
        source, target = prompt.source.rstrip(" "), " " + prompt.target.rstrip()
        # GPT-2's pre-tokeniser starts a new word at white space after a visible character. At such places
        # the parts encode as the whole does, in half the time; after other white space they may not.
        whole = bool(source) and not _is_word_end(source, len(source))
        head = 0
        if not whole and prompt.head < len(source) and _is_word_end(source, prompt.head):
            head = prompt.head
        heads.append(_encode_head(vocabulary, source[:head]) if head else _NOTHING)
        wholes.append(whole)
        texts += (source, source + target) if whole else (source[head:], target)
    encoded = vocabulary.encode_batch(texts)
    documents = []
    for i, prompt in enumerate(prompts):
        source, rest = encoded[2 * i], encoded[2 * i + 1]
        ids = rest if wholes[i] else source + rest
        ids.append(vocabulary.EOS)
        tokens = np.concatenate([heads[i], np.array(ids, np.int32)])
        cut = max(0, len(tokens) - max_length - 1)
        start = max(0, len(heads[i]) + len(source) - cut)
        documents.append(Document(tokens[cut:], start, prompt, cut))
    return documents


def _is_word_end(text: str, end: int) -> bool:
    """Whether a visible character stands before `end`, and white space or nothing at it."""
    return end > 0 and not text[end - 1].isspace() and (end == len(text) or text[end].isspace())


@functools.lru_cache(maxsize=8192)
def _encode_head(vocabulary: Vocabulary, head: str) -> np.ndarray:
    return np.array(vocabulary.encode(head), np.int32)
