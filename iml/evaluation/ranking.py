"""Rank classification: the candidate that the model finds likeliest, by several scorers from one pass.

The paper scores "each candidate based on their likelihood" (section 4.1) as GPT-3 does. All candidates of a
prompt share its keys and values: the prompt is read once, each candidate continues it on its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.errors import InputError
from iml.evaluation.loading import LoadedModel, bucket, left_padded
from iml.evaluation.requests import Request

#: How a candidate's log-likelihood becomes its score.
SCORERS = ("sum", "mean", "char", "unconditional", "partial")
#: What a candidate follows when its unconditional likelihood is measured (GPT-3, section 2.4).
UNCONDITIONAL_CONTEXT = "Answer:"

#: Candidates that continue a prompt in one row of a batch; a prompt with more takes several rows.
_TAILS = 4


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of a continuation, natural logarithm.

    Attributes:
      text: of its tokens without </s>.
      eos: of the </s> after it.
      ending: of the tokens at its end, without </s>, in which all continuations of its context agree; of all
        its tokens where they agree in none.
      tokens: number of tokens scored, without </s>.
      truncated: tokens of the context that did not fit.
      cut: whether tokens of the continuation itself did not fit.
    """

    text: float
    eos: float
    ending: float
    tokens: int
    truncated: int
    cut: bool


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The model's choice for one request.

    Attributes:
      scores: by scorer, one score for each candidate.
      picks: by scorer, the index of the best candidate, the first among equals.
      truncated: tokens of the prompt that did not fit.
      flags: what was odd: "tie" (of the primary scorer), "duplicate", "empty", "cut" candidates.
    """

    scores: Mapping[str, tuple[float, ...]]
    picks: Mapping[str, int]
    truncated: int
    flags: tuple[str, ...]


def scorer_names(scorers: Sequence[str], with_eos: Sequence[bool]) -> tuple[str, ...]:
    """Names of the scorers as they are reported: `sum`, `sum_eos`, ...

    Raises:
      InputError: an unknown scorer.
    """
    for scorer in scorers:
        if scorer not in SCORERS:
            raise InputError(
                f"unknown scorer {scorer!r}", field="Suite.scorers", remedy=f"Known: {', '.join(SCORERS)}"
            )
    return tuple(f"{scorer}_eos" if eos else scorer for scorer in scorers for eos in with_eos)


class Ranker:
    """Ranks candidates with one model; compiled once for each of a few shapes."""

    def __init__(self, model: LoadedModel):
        self._model = model
        self._score = jax.jit(functools.partial(_score_tails, model.opt))

    def rank(
        self,
        requests: Sequence[Request],
        scorers: Sequence[str],
        primary: str,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[Ranking]:
        """The rankings of requests, in their order.

        Args:
          scorers: names as of `scorer_names`.
          primary: the scorer whose ties are flagged.
          progress: called with the number of requests done since the last call.
        """
        found = self.likelihoods([(r.prompt.source, r.candidates) for r in requests], progress)
        plain: list[Sequence[Likelihood | None]] = [[None] * len(r.candidates) for r in requests]
        if any(name.startswith("unconditional") for name in scorers):
            distinct = tuple(dict.fromkeys(text for r in requests for text in r.candidates))
            [alone] = self.likelihoods([(UNCONDITIONAL_CONTEXT, distinct)])
            by_text = dict(zip(distinct, alone, strict=True))
            plain = [[by_text[text] for text in r.candidates] for r in requests]
        return [
            _ranking(request.candidates, conditional, unconditional, scorers, primary)
            for request, conditional, unconditional in zip(requests, found, plain, strict=True)
        ]

    def likelihoods(
        self,
        pairs: Sequence[tuple[str, Sequence[str]]],
        progress: Callable[[int], None] = lambda count: None,
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


def _ranking(
    candidates: Sequence[str],
    conditional: Sequence[Likelihood],
    unconditional: Sequence[Likelihood | None],
    scorers: Sequence[str],
    primary: str,
) -> Ranking:
    scores = {
        name: tuple(map(functools.partial(_score, name), candidates, conditional, unconditional))
        for name in scorers
    }
    picks = {name: int(np.argmax(values)) for name, values in scores.items()}
    flags = {
        "tie": list(scores[primary]).count(max(scores[primary])) > 1,
        "duplicate": len(set(candidates)) < len(candidates),
        "empty": any(not text.strip() for text in candidates),
        "cut": any(likelihood.cut for likelihood in conditional),
    }
    truncated = max(likelihood.truncated for likelihood in conditional)
    return Ranking(scores, picks, truncated, tuple(name for name, set_ in flags.items() if set_))


def _score(name: str, text: str, given: Likelihood, alone: Likelihood | None) -> float:
    eos = name.endswith("_eos")
    total = given.text + (given.eos if eos else 0.0)
    match name.removesuffix("_eos"):
        case "mean":
            return total / max(1, given.tokens + eos)
        case "char":
            return total / max(1, len(text))
        case "partial":
            return given.ending + (given.eos if eos else 0.0)
        case "unconditional":
            return total - alone.text - (alone.eos if eos else 0.0)
        case _:
            return total
