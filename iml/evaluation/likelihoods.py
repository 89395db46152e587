"""Likelihoods of continuations by an OPT model: a context is read once, its continuations share it."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.evaluation.engine import Likelihood, Progress, no_progress
from iml.evaluation.loading import LoadedModel, bucket, left_padded

#: Candidates that continue a prompt in one row of a batch; a prompt with more takes several rows.
_TAILS = 4


class Scorer:
    """Scores with one model; compiled once for each of a few shapes."""

    def __init__(self, model: LoadedModel):
        self._model = model
        self._score = jax.jit(functools.partial(_score_tails, model.opt))

    def likelihoods(
        self,
        pairs: Sequence[tuple[str, Sequence[str]]],
        progress: Progress = no_progress,
    ) -> list[list[Likelihood]]:
        """Likelihoods of continuations.

        Args:
          pairs: a context and the texts that may follow it after one space.

        Returns:
          For each pair, the likelihood of each of its continuations.
        """
        model = self._model
        results: list[list[Likelihood | None]] = [[None] * len(texts) for _, texts in pairs]
        shapes: dict[tuple[int, int], list[_Row]] = defaultdict(list)
        for index, tails in enumerate(self._encode(pairs)):
            for first in range(0, len(tails), _TAILS):
                row = _make_row(index, first, tails[first : first + _TAILS])
                width = bucket(max(len(tail.inputs) for tail in row.tails), 8, model.max_length)
                shapes[bucket(len(row.prefix), 32, model.max_length), width].append(row)
        for (prefix_width, width), rows in sorted(shapes.items()):
            count = model.rows(prefix_width + _TAILS * width)
            for start in range(0, len(rows), count):
                batch = rows[start : start + count]
                found = self._run(batch, count, prefix_width, width)[: len(batch)]
                for row, values in zip(batch, found, strict=True):
                    for k, tail in enumerate(row.tails):
                        results[row.index][row.first + k] = tail.likelihood(values[k])
                progress(sum(row.first == 0 for row in batch))
        return results

    def _encode(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[_Tail]]:
        """Every continuation with its context; those of one pair share the context that fits the longest."""
        model, head = self._model, self._model.head
        prompts = [Prompt(source, text, {}) for source, texts in pairs for text in texts]
        documents = iter(encode_prompts(model.vocabulary, prompts, max_length=2**30))
        room = model.max_length - len(head)
        encoded = []
        for _, texts in pairs:
            group = [next(documents) for _ in texts]
            cut = max([0, *(document.positions - room for document in group)])
            tails = []
            for document in group:
                start = document.target_start
                # The longest candidate does not fit: shorter ones still keep a token of context.
                own = max(document.positions - room, min(cut, max(0, start - 1)), 0)
                ids = [*head, *document.tokens[own:].tolist()]
                scored = max(1, start - own + len(head))
                tails.append(_Tail(ids, scored, min(own, start), own > start))
            ending = _common_ending([tail.ids[tail.scored : -1] for tail in tails])
            for tail in tails:
                tail.ending = ending
            encoded.append(tails)
        return encoded

    def _run(self, rows: Sequence[_Row], count: int, prefix_width: int, width: int) -> np.ndarray:
        """Log-probabilities float32 [rows, tails, width] of the tails' tokens after their first."""
        pad = self._model.vocabulary.PAD
        inputs = np.full((count, _TAILS, width), pad, np.int32)
        targets = inputs.copy()
        lengths = np.zeros(count, np.int32)
        for i, row in enumerate(rows):
            lengths[i] = len(row.prefix)
            for k, tail in enumerate(row.tails):
                ids = tail.ids[len(row.prefix) :]
                inputs[i, k, : len(ids) - 1], targets[i, k, : len(ids) - 1] = ids[:-1], ids[1:]
        prefixes = left_padded([row.prefix for row in rows], count, prefix_width)
        arrays = self._model.place(prefixes, lengths, inputs, targets)
        return np.asarray(self._score(self._model.params, *arrays))


@dataclasses.dataclass
class _Tail:
    """A continuation with its context: its tokens, </s> last, of which those from `scored` on count.

    `ending` is the number of tokens before </s> in which it agrees with the context's other continuations.
    """

    ids: list[int]
    scored: int
    truncated: int
    cut: bool
    shared: int = 0
    ending: int = 0

    @property
    def inputs(self) -> list[int]:
        return self.ids[self.shared : -1]

    def likelihood(self, values: np.ndarray) -> Likelihood:
        """Of the log-probabilities of all tokens after the first that is not shared."""
        found = values[self.scored - self.shared - 1 : len(self.ids) - self.shared - 1].astype(np.float64)
        text = found[:-1]
        ending = text[-self.ending :].sum()  # -0: the whole
        return Likelihood(
            float(text.sum()), float(found[-1]), float(ending), len(text), self.truncated, self.cut
        )


@dataclasses.dataclass(frozen=True)
class _Row:
    """Some continuations of pair `index`, from the one numbered `first` on, after their common tokens."""

    index: int
    first: int
    prefix: list[int]
    tails: list[_Tail]


def _common_ending(continuations: Sequence[Sequence[int]]) -> int:
    """In how many tokens at their ends all continuations agree."""
    count, shortest = 0, min(map(len, continuations), default=0)
    while count < shortest and len({ids[-1 - count] for ids in continuations}) == 1:
        count += 1
    return count


def _make_row(index: int, first: int, tails: list[_Tail]) -> _Row:
    # The last token of the context is read with each candidate, whose first token it predicts.
    shared = min(tail.scored for tail in tails) - 1
    prefix = tails[0].ids[:shared]
    if any(tail.ids[:shared] != prefix for tail in tails):
        shared, prefix = 0, []
    for tail in tails:
        tail.shared = shared
    return _Row(index, first, prefix, tails)


def _score_tails(opt, params, prefixes, lengths, inputs, targets):
    """Log-probabilities of targets [b, k, t], every tail read after its row's prefix.

    Args:
      prefixes: [b, p], padded on the left.
      lengths: [b], tokens of each prefix.
      inputs, targets: [b, k, t], padded on the right.
    """
    (batch, width), tail = prefixes.shape, inputs.shape[-1]
    slots = jnp.arange(width + tail)
    key_mask = slots >= (width - lengths)[:, None]
    positions = jnp.maximum(0, slots[:width] - (width - lengths)[:, None])
    cache = opt.init_cache(batch, width + tail)
    _, cache = opt.decode(params, prefixes, positions, cache, start=0, key_mask=key_mask)
    # Padding on the right may lie beyond the last position; nothing reads it.
    positions = jnp.minimum(lengths[:, None] + jnp.arange(tail), opt.config.max_positions - 1)

    def score(pair):
        tokens, wanted = pair
        logits, _ = opt.decode(params, tokens, positions, cache, start=width, key_mask=key_mask)
        picked = jnp.take_along_axis(logits, wanted[..., None], axis=-1)[..., 0]
        return picked - jax.nn.logsumexp(logits, axis=-1)

    values = jax.lax.map(score, (jnp.moveaxis(inputs, 1, 0), jnp.moveaxis(targets, 1, 0)))
    return jnp.moveaxis(values, 0, 1)
