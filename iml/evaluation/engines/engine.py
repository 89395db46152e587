"""What evaluation asks of a model, whatever runs it: likelihoods of continuations, and answers."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from iml.data.checks import as_strings
from iml.errors import InputError

#: Called once for each request, with its number and what is returned for it, as soon as that is known.
Tell = Callable[[int, Any], None]


def tell_nobody(number: int, answer: Any) -> None:
    """The `Tell` that does nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-likelihood of a continuation, natural logarithm.

    Attributes:
      text: of its tokens without </s>.
      eos: of the </s> after it; NaN from an engine that cannot tell.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Generated:
    """An answer.

    Attributes:
      text: stripped of white space at both ends; what a stop string begins is not in it.
      tokens: the ids generated, without </s>; () from an engine that does not tell.
      finished: whether </s> or a stop string came within the limit.
      truncated: tokens of the prompt that did not fit.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool
    truncated: int


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedily by default.

    Attributes:
      max_new_tokens: tokens of an answer at most (arXiv 2212.12017, section 4.1: 256).
      stop: strings that end an answer, and are no part of it.
      temperature: what logits are divided by before one token is drawn; 0 takes the likeliest, always.
      top_k: draw among the so many likeliest tokens; 0 for all.
      top_p: draw among the likeliest tokens that together reach this probability; 1 for all.
      seed: of the draws. Those of a prompt depend on it and the prompt's text alone.
      beams: hypotheses kept by beam search; 1 for none.
      length_penalty: a hypothesis' log-likelihood is divided by its length to this power, as transformers does.
      early_stopping: end the search once `beams` hypotheses have ended, however likely others may become.
    """

    max_new_tokens: int = 256
    stop: Sequence[str] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False

    def __post_init__(self):
        as_strings(self, "stop", may_be_empty=True)
        for name, least in (("max_new_tokens", 1), ("temperature", 0), ("top_k", 0), ("beams", 1)):
            if getattr(self, name) < least:
                raise _bad(name, f"must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise _bad("top_p", f"must be above 0 and at most 1, not {self.top_p}")
        if "" in self.stop:
            raise _bad("stop", "an empty string would end every answer at once")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise _bad("temperature", "0 draws nothing, so that top_k and top_p would do nothing")
        if self.beams > 1 and self.temperature:
            raise _bad("beams", "beam search draws nothing: it needs temperature 0")
        if self.beams == 1 and (self.length_penalty != 1 or self.early_stopping):
            raise _bad("beams", "length_penalty and early_stopping need beams above 1")


class Engine(Protocol):
    """A model that evaluation may ask.

    Attributes:
      facts: what answers depend on beside the questions, JSON-able: "engine" (its kind), "bos", "dtype",
        "max_length" and what else there is. Results of unequal facts are never joined.
    """

    facts: Mapping[str, Any]

    def likelihoods(
        self, pairs: Sequence[tuple[str, Sequence[str]]], tell: Tell = tell_nobody
    ) -> list[list[Likelihood]]:
        """Likelihoods of continuations.

        Args:
          pairs: a context, and the texts that may follow it after one space.
          tell: called with each pair's number and its likelihoods.

        Returns:
          For each pair, the likelihood of each of its continuations.
        """
        ...

    def generate(
        self,
        sources: Sequence[str],
        decoding: Decoding,
        parts: Sequence[Sequence[int]] | None = None,
        tell: Tell = tell_nobody,
    ) -> list[Generated]:
        """Answers to prompts, in their order.

        Args:
          sources: the prompts; trailing spaces do not count.
          decoding: how.
          parts: for each prompt, the characters at which its demonstrations begin, in order, and last the one
            at which the question begins; () for a prompt without demonstrations. A prompt that is too long
            loses its first demonstrations, and only if that does not do, the head of what is left.
          tell: called with each prompt's number and its answer.
        """
        ...


def without_demonstrations(source: str, parts: Sequence[int], fits: Callable[[str], bool]) -> str:
    """A prompt that has lost as few of its first demonstrations as it takes to fit, or all of them.

    Args:
      parts: as of `Engine.generate`.
      fits: whether a text is short enough.
    """
    kept = source
    for start in parts[1:]:
        if fits(kept):
            break
        kept = source[: parts[0]] + source[start:]
    return kept


def stop_place(text: str, stops: Sequence[str]) -> int | None:
    """Where in a text the first stop string begins."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def until_stop(
    ids: Sequence[int], stops: Sequence[str], decode: Callable[[Sequence[int]], str]
) -> tuple[list[int], str, bool]:
    """An answer as far as its first stop string.

    Returns:
      The fewest tokens whose text holds the whole stop string, or all; the text before it; whether there is one.
    """
    text = decode(ids)
    place = stop_place(text, stops)
    if place is None:
        return list(ids), text, False
    counts = range(1, len(ids))
    count = bisect.bisect_left(counts, True, key=lambda n: stop_place(decode(ids[:n]), stops) is not None) + 1
    return list(ids[:count]), text[:place], True


def common_ending(continuations: Sequence[Sequence[Any]]) -> int:
    """In how many tokens at their ends all continuations agree."""
    count, shortest = 0, min(map(len, continuations), default=0)
    while count < shortest and len({tokens[-1 - count] for tokens in continuations}) == 1:
        count += 1
    return count


def _bad(name: str, problem: str) -> InputError:
    return InputError(problem, field=f"Decoding.{name}")
