"""The book-keeping of beam search for one prompt, as transformers 5 does it (`GenerationMixin._beam_search`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from iml.evaluation.engines.engine import Decoding

#: What stands for the score of nothing, as in transformers.
NOTHING = np.float32(-1e9)


@dataclasses.dataclass
class Beams:
    """Hypotheses of one prompt.

    Attributes:
      decoding: what the search is to do.
      ends: whether a hypothesis with these tokens has ended, its length aside.
      running: tokens of the hypotheses that go on, best first.
      scores: their log-likelihoods, float32 [beams].
      ended: tokens of those that have ended, best first.
      ended_scores: their log-likelihoods over length to the power of the penalty; `NOTHING` where there is none.
      done: whether the search is over.
    """

    decoding: Decoding
    ends: Callable[[list[int]], bool]
    running: list[list[int]] = dataclasses.field(default_factory=list)
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    ended: list[list[int]] = dataclasses.field(default_factory=list)
    ended_scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    done: bool = False

    def __post_init__(self):
        count = self.decoding.beams
        self.running, self.ended = [[] for _ in range(count)], [[] for _ in range(count)]
        self.scores = np.full(count, NOTHING)
        self.scores[0] = 0.0
        self.ended_scores = np.full(count, NOTHING)

    def advance(self, scores: np.ndarray, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Takes the best continuations; of a hypothesis that ends, twice as many as beams leave enough others.

        Args:
          scores: log-likelihoods of the best 2 * beams continuations, best first.
          parents: the running hypothesis that each continues.
          tokens: the token that each adds.

        Returns:
          The parents of the hypotheses that go on from here.
        """
        count, decoding = self.decoding.beams, self.decoding
        grown = [[*self.running[p], int(t)] for p, t in zip(parents, tokens, strict=True)]
        length = len(grown[0])
        ends = np.array([length >= decoding.max_new_tokens or self.ends(ids) for ids in grown])
        scores = scores.astype(np.float32)
        full = decoding.early_stopping and bool((self.ended_scores > NOTHING / 2).all())
        penalised = scores / np.float32(length**decoding.length_penalty)
        penalised = np.where(ends & (np.arange(len(grown)) < count) & (not full), penalised, NOTHING)
        every = np.concatenate([self.ended_scores, penalised])
        best = np.argsort(-every, kind="stable")[:count]
        self.ended, self.ended_scores = [[*self.ended, *grown][i] for i in best], every[best]
        going = np.where(ends, scores + NOTHING, scores)
        kept = np.argsort(-going, kind="stable")[:count]
        self.running, self.scores = [grown[i] for i in kept], going[kept]
        filled = self.ended_scores > NOTHING / 2
        # The best that runs, were it to end here, against the worst that has ended.
        possible = self.scores[0] / np.float32(length**decoding.length_penalty)
        hopeless = bool(filled.all()) and possible <= self.ended_scores.min()
        self.done = hopeless or bool(ends.all()) or (decoding.early_stopping and bool(filled.all()))
        return parents[kept]
