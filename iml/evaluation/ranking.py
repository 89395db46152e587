"""Rank classification: the candidate that the model finds likeliest, by several scorers at once.

The paper scores "each candidate based on their likelihood" (section 4.1) as GPT-3 does.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from iml.errors import InputError
from iml.evaluation.engines.engine import Engine, Likelihood, Tell, tell_nobody
from iml.evaluation.requests import Request

#: How a candidate's log-likelihood becomes its score.
SCORERS = ("sum", "mean", "char", "unconditional", "partial")
#: What a candidate follows when its unconditional likelihood is measured (GPT-3, section 2.4).
UNCONDITIONAL_CONTEXT = "Answer:"


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The model's choice for one request.

    Attributes:
      scores: by scorer, one score for each candidate.
      picks: by scorer, the index of the best candidate, the first among equals.
      truncated: tokens of the prompt that did not fit.
      flags: what was odd: "tie" (of the primary scorer), "duplicate", "empty", "cut" candidates, "nonfinite"
        scores, which are never picked before finite ones.
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


def rank(
    engine: Engine,
    requests: Sequence[Request],
    scorers: Sequence[str],
    primary: str,
    tell: Tell = tell_nobody,
) -> list[Ranking]:
    """The rankings of requests, in their order.

    Args:
      scorers: names as of `scorer_names`.
      primary: the scorer whose ties are flagged.
      tell: called with each request's number and its ranking, as soon as that is known.

    Raises:
      InputError: a scorer counts </s>, whose likelihood the engine cannot tell.
    """
    distinct = tuple(dict.fromkeys(text for r in requests for text in r.candidates))
    plain: dict[str, Likelihood | None] = dict.fromkeys(distinct)
    if distinct and any(name.startswith("unconditional") for name in scorers):
        plain = dict(zip(distinct, _unconditional(engine, distinct), strict=True))
    with_eos = any(name.endswith("_eos") for name in scorers)
    rankings: list[Ranking | None] = [None] * len(requests)

    def collect(number: int, found: Sequence[Likelihood]) -> None:
        if with_eos and any(math.isnan(likelihood.eos) for likelihood in found):
            raise InputError(
                "this engine cannot tell how likely an answer ends",
                field="Suite.with_eos",
                remedy="Set it to [False]",
            )
        candidates = requests[number].candidates
        alone = [plain[text] for text in candidates]
        rankings[number] = _ranking(candidates, found, alone, scorers, primary)
        tell(number, rankings[number])

    engine.likelihoods([(r.prompt.source, r.candidates) for r in requests], collect)
    return rankings


def _unconditional(engine: Engine, texts: Sequence[str]) -> list[Likelihood]:
    """Likelihoods of texts that follow nothing but `UNCONDITIONAL_CONTEXT`, whatever the others are."""
    [found] = engine.likelihoods([(UNCONDITIONAL_CONTEXT, texts)])
    if any(likelihood.truncated for likelihood in found):
        # The longest has taken the context of all.
        found = [one for [one] in engine.likelihoods([(UNCONDITIONAL_CONTEXT, [text]) for text in texts])]
    return found


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
    picks = {name: int(np.argmax(np.nan_to_num(values, nan=-np.inf))) for name, values in scores.items()}
    flags = {
        "tie": list(scores[primary]).count(max(scores[primary])) > 1,
        "duplicate": len(set(candidates)) < len(candidates),
        "empty": any(not text.strip() for text in candidates),
        "cut": any(likelihood.cut for likelihood in conditional),
        "nonfinite": not all(math.isfinite(score) for values in scores.values() for score in values),
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
