"""Likelihoods of continuations by an OPT model, every token of a context read once.

A pair of a context and its continuations is one row of a batch: the context's tokens, then each continuation's,
which see the context and themselves, and whose positions go on where the context ends. What the contexts of many
rows begin with (instruction, demonstrations) is read before, alone, and all of these rows attend to it.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary
from iml.evaluation.engines import trees
from iml.evaluation.engines.engine import Likelihood, Tell, common_ending, tell_nobody
from iml.evaluation.engines.loading import LoadedModel, bucket, place
from iml.models import cached
from iml.training import partition

#: Positions whose logits are held at a time, over all rows.
_LOGITS = 256
#: Batches that may wait for the device.
_AHEAD = 2


@dataclasses.dataclass
class _Tail:
    """A continuation with its context: its tokens, </s> last, of which those from `scored` on count.

    `ending` is the number of tokens before </s> in which it agrees with the context's other continuations.
    """

    ids: list[int]
    scored: int
    truncated: int
    cut: bool
    ending: int = 0

    def likelihood(self, found: np.ndarray) -> Likelihood:
        """Of the log-probabilities of its tokens from `scored` on."""
        text = found[:-1].astype(np.float64)
        ending = text[-self.ending :].sum()  # -0: the whole
        return Likelihood(
            float(text.sum()), float(found[-1]), float(ending), len(text), self.truncated, self.cut
        )


@dataclasses.dataclass(frozen=True)
class _Row:
    """Continuations `numbers` of the pair `index`, behind the tokens that they have in common."""

    index: int
    numbers: tuple[int, ...]
    tails: tuple[_Tail, ...]
    context: list[int]

    @property
    def size(self) -> int:
        return len(self.context) + sum(len(tail.ids) - 1 - len(self.context) for tail in self.tails)

    @property
    def targets(self) -> int:
        return sum(len(tail.ids) - tail.scored for tail in self.tails)

    @property
    def places(self) -> int:
        """Tokens that predict a target; the last of the context predicts one for each continuation."""
        again = sum(tail.scored == len(self.context) for tail in self.tails)
        return self.targets - max(0, again - 1)


class Scorer:
    """Scores with one model; compiled once for each of a few shapes."""

    def __init__(self, model: LoadedModel):
        self._model = model
        whole = partition.replicated(model.mesh)
        self._whole = whole
        self._read = jax.jit(functools.partial(_read_context, model.opt))
        self._score = jax.jit(functools.partial(_score_rows, model.opt), out_shardings=whole)
        #: By span of the shared context and width of the rows: places and targets that a row may have.
        self._compiled: dict[int, dict[int, tuple[int, int]]] = collections.defaultdict(dict)

    def load(self, model: LoadedModel) -> None:
        """Takes the same model with other parameters; what was compiled stays."""
        self._model = model

    def likelihoods(
        self, pairs: Sequence[tuple[str, Sequence[str]]], tell: Tell = tell_nobody
    ) -> list[list[Likelihood]]:
        """See `engine.Engine.likelihoods`; equal continuations of a context are scored once."""
        results: list[dict[str, Likelihood]] = [{} for _ in pairs]
        distinct = [(source, tuple(dict.fromkeys(texts))) for source, texts in pairs]
        rows = [row for index, tails in enumerate(self._encode(distinct)) for row in self._rows(index, tails)]
        left = collections.Counter(row.index for row in rows)
        waiting: collections.deque[tuple[list[_Row], jax.Array]] = collections.deque()

        def answer(index: int) -> list[Likelihood]:
            return [results[index][text] for text in pairs[index][1]]

        def collect(most: int) -> None:
            while len(waiting) > most:
                batch, device_values = waiting.popleft()
                for row, values in zip(batch, np.asarray(device_values), strict=False):
                    at = 0
                    for number, tail in zip(row.numbers, row.tails, strict=True):
                        count = len(tail.ids) - tail.scored
                        text = distinct[row.index][1][number]
                        results[row.index][text] = tail.likelihood(values[at : at + count])
                        at += count
                    left[row.index] -= 1
                    if not left[row.index]:
                        tell(row.index, answer(row.index))

        for batch, values in self._batches(rows):
            waiting.append((batch, values))
            collect(_AHEAD)
        collect(0)
        for index, (_, texts) in enumerate(pairs):
            if not texts:
                tell(index, [])
        return list(map(answer, range(len(pairs))))

    def _encode(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[_Tail]]:
        """Every continuation with its context; those of one pair share the context that fits the longest."""
        model, head = self._model, self._model.head
        # The context up to its last word is encoded once for all continuations.
        prompts = [
            Prompt(source, text, {}, max(0, source.rstrip(" ").rfind(" ")))
            for source, texts in pairs
            for text in texts
        ]
        documents = iter(encode_prompts(model.vocabulary, prompts, max_length=2**30))
        encoded = []
        for _, texts in pairs:
            group = [next(documents) for _ in texts]
            # What follows nothing begins a document, as text that follows </s> does.
            lead = head if any(document.target_start for document in group) else [model.vocabulary.EOS]
            room = model.max_length - len(lead)
            cut = max([0, *(document.positions - room for document in group)])
            tails = []
            for document in group:
                start = document.target_start
                # The longest candidate does not fit: shorter ones still keep a token of context.
                own = max(document.positions - room, min(cut, max(0, start - 1)), 0)
                ids = [*lead, *document.tokens[own:].tolist()]
                scored = max(1, start - own + len(lead))
                # The first token of all is not predicted.
                tails.append(_Tail(ids, scored, min(own, start), own >= start + len(lead)))
            ending = common_ending([tail.ids[tail.scored : -1] for tail in tails])
            for tail in tails:
                tail.ending = ending
            encoded.append(tails)
        return encoded

    def _rows(self, index: int, tails: Sequence[_Tail]) -> Iterator[_Row]:
        """Rows of one pair, as few as hold its continuations."""
        context = _common_start([tail.ids[: min(tail.scored, len(tail.ids) - 1)] for tail in tails])
        chosen: list[int] = []
        size = len(context)
        for number, tail in enumerate(tails):
            more = len(tail.ids) - 1 - len(context)
            if chosen and size + more > self._model.max_length:
                yield _Row(index, tuple(chosen), tuple(tails[i] for i in chosen), context)
                chosen, size = [], len(context)
            chosen.append(number)
            size += more
        if chosen:
            yield _Row(index, tuple(chosen), tuple(tails[i] for i in chosen), context)

    def _batches(self, rows: Sequence[_Row]) -> Iterator[tuple[list[_Row], jax.Array]]:
        """Batches of rows, and on the device the log-probabilities of their scored tokens."""
        model = self._model
        # The last token of a context stays with the row: it predicts the first of each continuation.
        groups = trees.group_by_prefix([row.context[:-1] for row in rows])
        spans = [bucket(group.shared, 64, model.max_length) if group.shared else 0 for group in groups]
        for span in sorted(set(spans)):
            members = [group for group, of in zip(groups, spans, strict=True) if of == span]
            sizes = {i: rows[i].size - group.shared for group in members for i in group.members}
            compiled = self._compiled[span]
            widths = trees.choose_widths(list(sizes.values()), compiled, model.max_length, model.shape_price)
            for i, size in sizes.items():
                width = trees.width_of(widths, size)
                places, targets = compiled.get(width, (0, 0))
                # Capacities only grow: a smaller one would have to be compiled for as well.
                compiled[width] = max(places, _ceil(rows[i].places)), max(targets, _ceil(rows[i].targets))
            for group in members:
                context = self._context(rows[group.members[0]].context[: group.shared], span)
                by_width: dict[int, list[_Row]] = collections.defaultdict(list)
                for i in group.members:
                    by_width[trees.width_of(widths, sizes[i])].append(rows[i])
                for width, chosen in sorted(by_width.items()):
                    most, least = model.rows_to_read(width, span), partition.batch_shards(model.mesh)
                    while chosen:
                        count = trees.choose_rows(len(chosen), most, least, width, model.shape_price)
                        batch, chosen = chosen[:count], chosen[count:]
                        arrays = _arrays(batch, group.shared, count, width, *compiled[width])
                        yield batch, self._score(model.params, context, *model.place(*arrays))

    def _context(self, ids: list[int], span: int) -> cached.Shared | None:
        if not ids:
            return None
        tokens = np.full((1, span), self._model.vocabulary.PAD, np.int32)
        tokens[0, : len(ids)] = ids
        tokens, filled = place(tokens, self._whole), place(np.array(len(ids), np.int32), self._whole)
        return cached.Shared(self._read(self._model.params, tokens), filled)


def _ceil(count: int) -> int:
    return -(-count // 8) * 8


def _common_start(rows: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all rows begin."""
    shortest = min(rows, key=len, default=[])
    count = next((i for i, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1), len(shortest))
    return list(shortest[:count])


def _arrays(
    rows: Sequence[_Row], shared: int, count: int, width: int, most_places: int, most_targets: int
) -> tuple[np.ndarray, ...]:
    """The arguments of `_score_rows` after the context."""
    tokens = np.full((count, width), Vocabulary.PAD, np.int32)
    branches = np.full((count, width), -1, np.int32)
    positions = np.zeros((count, width), np.int32)
    places = np.zeros((count, most_places), np.int32)
    sources, targets = (np.zeros((count, most_targets), np.int32) for _ in range(2))
    for i, row in enumerate(rows):
        own = len(row.context) - shared
        tokens[i, :own] = row.context[shared:]
        branches[i, :own] = 0
        positions[i, :own] = np.arange(shared, len(row.context))
        end, numbered, filled = own, {}, 0
        for branch, tail in enumerate(row.tails, start=1):
            inner = tail.ids[len(row.context) : -1]
            tokens[i, end : end + len(inner)] = inner
            branches[i, end : end + len(inner)] = branch
            positions[i, end : end + len(inner)] = np.arange(len(inner)) + len(row.context)
            for at in range(tail.scored, len(tail.ids)):
                place = at - 1 - shared if at <= len(row.context) else end + at - 1 - len(row.context)
                sources[i, filled] = numbered.setdefault(place, len(numbered))
                targets[i, filled] = tail.ids[at]
                filled += 1
            end += len(inner)
        places[i, : len(numbered)] = list(numbered)
    return tokens, branches, positions, places, sources, targets


def _read_context(opt, params, tokens):
    """The cache of a context [1, length], padded on the right."""
    length = tokens.shape[1]
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    return cached.read(opt, params, tokens, jnp.arange(length)[None], mask)[1]


def _score_rows(opt, params, context, tokens, branches, positions, places, sources, targets):
    """Log-probabilities float32 [batch, targets] of the targets.

    Args:
      context: what all rows follow, or None.
      tokens: [batch, width].
      branches: [batch, width]; 0 the row's own context, 1, 2, ... its continuations, -1 padding.
      positions: [batch, width], within the document.
      places: [batch, places], the tokens of the row whose successors are predicted, each once.
      sources: [batch, targets], for each target the entry of `places` that predicts it.
      targets: [batch, targets].
    """
    width, (batch, capacity) = tokens.shape[1], places.shape
    same = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    mask = same & jnp.tril(jnp.ones((width, width), bool))
    hidden, _ = cached.read(opt, params, tokens, positions, mask, context)
    hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)
    part = math.gcd(capacity, 1 << (max(1, _LOGITS // batch).bit_length() - 1))
    parts = jnp.moveaxis(hidden.reshape(batch, capacity // part, part, -1), 1, 0)
    totals = jax.lax.map(lambda states: jax.nn.logsumexp(opt.logits(params, states), axis=-1), parts)
    totals = jnp.moveaxis(totals, 0, 1).reshape(batch, capacity)
    states = jnp.take_along_axis(hidden, sources[..., None], axis=1)
    table = params["embed_tokens"]["embedding"].astype(hidden.dtype)
    wanted = jnp.take(table, targets, axis=0)
    scores = jnp.einsum("bsd,bsd->bs", states, wanted, preferred_element_type=jnp.float32)
    return scores - jnp.take_along_axis(totals, sources, axis=1)
