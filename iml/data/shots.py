"""How many demonstrations prompts have: distributions for `PromptFormat.shots_distribution`."""

from __future__ import annotations

from collections.abc import Sequence

from iml.errors import InputError


def zipf_shots(exponent: float = 2.0, most: int = 5) -> tuple[float, ...]:
    """The Zipf law of OPT-IML's MetaICL (section 4.7): P(k) is proportional to (k + 1) ** -exponent, k <= most.

    The paper says that greater k are set to `most`. Its figures, 67.1 % of prompts without demonstrations at
    exponent 2 and 92.5 % at exponent 4, are those of a law that ends at `most` and is normalised; so is this.

    Args:
      exponent: how fast it falls; 0 is uniform.
      most: the greatest number of demonstrations.

    Returns:
      The probabilities of 0, 1, ..., most.

    Raises:
      InputError: a setting is negative.
    """
    for name, value in (("exponent", exponent), ("most", most)):
        if value < 0:
            raise InputError(f"must not be negative, but is {value}", field=f"zipf_shots.{name}")
    weights = [(count + 1) ** -float(exponent) for count in range(most + 1)]
    return tuple(weight / sum(weights) for weight in weights)


def mixed_shots(few_shot: float = 0.5, counts: Sequence[int] = (2, 3, 5)) -> tuple[float, ...]:
    """The Flan Collection's mixed prompt settings: some prompts with demonstrations, the others without.

    Args:
      few_shot: share of the prompts that have demonstrations.
      counts: numbers of demonstrations, equally often.

    Returns:
      The probabilities of 0, 1, ..., max(counts).

    Raises:
      InputError: the share is none, or a count is below 1.
    """
    if not 0 <= few_shot <= 1:
        raise InputError(f"must be from 0 to 1, not {few_shot}", field="mixed_shots.few_shot")
    if not counts or min(counts) < 1:
        raise InputError("needs numbers of at least 1", field="mixed_shots.counts")
    shares = [0.0] * (max(counts) + 1)
    shares[0] = 1.0 - few_shot
    for count in counts:
        shares[count] += few_shot / len(counts)
    return tuple(shares)
