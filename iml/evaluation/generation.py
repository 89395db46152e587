"""Greedy decoding in batches, with a cache of keys and values."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iml.errors import InputError
from iml.evaluation.engine import Decoding, Generated, Progress, no_progress
from iml.evaluation.loading import LoadedModel, bucket, left_padded


class Generator:
    """Generates with one model; compiled once for each prompt width."""

    def __init__(self, model: LoadedModel, decoding: Decoding):
        """
        Args:
          decoding: how; only greedily for now.

        Raises:
          InputError: there is no room for a prompt.
        """
        max_new_tokens = decoding.max_new_tokens
        if max_new_tokens >= model.max_length:
            raise InputError(
                f"must be below the {model.max_length} positions, to leave room for a prompt",
                field="Decoding.max_new_tokens",
            )
        self._model, self._limit = model, max_new_tokens
        self._decode = jax.jit(functools.partial(_greedy, model.opt, max_new_tokens, model.vocabulary.EOS))

    def generate(self, sources: Sequence[str], progress: Progress = no_progress) -> list[Generated]:
        """Answers to prompts, in their order.

        A prompt loses its trailing spaces, as in training; the answer's first token brings the space that
        follows. What does not fit beside `max_new_tokens` is cut off the prompt's head.

        Args:
          progress: called with the number of prompts done since the last call.
        """
        model, head = self._model, self._model.head
        room = model.max_length - self._limit - len(head)
        encoded = model.vocabulary.encode_batch([source.rstrip(" ") for source in sources])
        prompts = [[*head, *ids[max(0, len(ids) - room) :]] for ids in encoded]
        truncated = [max(0, len(ids) - room) for ids in encoded]
        results: list[Generated | None] = [None] * len(sources)
        widths: dict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(prompts):
            # A prompt of no tokens begins a document, as text that follows </s> does.
            prompts[i] = ids or [model.vocabulary.EOS]
            widths[bucket(len(prompts[i]), 32, model.max_length - self._limit)].append(i)
        for width, members in sorted(widths.items()):
            count = model.rows(width + self._limit)
            # Prompts of like length are together, so that a batch of short answers stops early.
            for start in range(0, len(members), count):
                batch = members[start : start + count]
                tokens = left_padded([prompts[i] for i in batch], count, width)
                lengths = np.zeros(count, np.int32)
                lengths[: len(batch)] = [len(prompts[i]) for i in batch]
                answers = np.asarray(self._decode(model.params, *model.place(tokens, lengths)))
                for i, answer in zip(batch, answers[: len(batch)], strict=True):
                    results[i] = self._answer(answer.tolist(), truncated[i])
                progress(len(batch))
        return results

    def _answer(self, ids: list[int], truncated: int) -> Generated:
        eos = self._model.vocabulary.EOS
        finished = eos in ids
        ids = ids[: ids.index(eos)] if finished else ids
        return Generated(self._model.vocabulary.decode(ids).strip(), tuple(ids), finished, truncated)


def _greedy(opt, limit, eos, params, prompts, lengths):
    """Tokens [b, limit] that follow prompts, </s> and all after it being </s>.

    Args:
      prompts: [b, p], padded on the left.
      lengths: [b], tokens of each; rows of 0 are not answered.
    """
    batch, width = prompts.shape
    slots = jnp.arange(width + limit)
    key_mask = slots >= (width - lengths)[:, None]
    positions = jnp.maximum(0, slots[:width] - (width - lengths)[:, None])
    cache = opt.init_cache(batch, width + limit)
    # The last token is left to the loop: so no logits of the prompt are ever computed.
    _, cache = opt.decode(params, prompts[:, :-1], positions[:, :-1], cache, start=0, key_mask=key_mask)

    def unfinished(state):
        step, _, done, _, _ = state
        return (step < limit) & ~done.all()

    def advance(state):
        step, last, done, answers, cache = state
        # Slots to come are masked by their order.
        logits, cache = opt.decode(
            params,
            last[:, None],
            (lengths - 1 + step)[:, None],
            cache,
            start=width - 1 + step,
            key_mask=key_mask,
        )
        token = jnp.where(done, eos, jnp.argmax(logits[:, 0], axis=-1).astype(jnp.int32))
        answers = jax.lax.dynamic_update_slice_in_dim(answers, token[:, None], step, axis=1)
        return step + 1, token, done | (token == eos), answers, cache

    answers = jnp.full((batch, limit), eos, jnp.int32)
    state = (jnp.int32(0), prompts[:, -1], lengths == 0, answers, cache)
    return jax.lax.while_loop(unfinished, advance, state)[3]
