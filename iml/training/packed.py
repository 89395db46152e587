"""What the model is told of the documents that share a row, as gin binds it; kept apart from JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Packing:
    """Whether documents of a packed row are kept apart; off for studies of what that is worth (section 3.2).

    Only what the model sees changes: the batch keeps its segments, by which losses are counted.

    Attributes:
      document_mask: a token sees its own document alone; else all that stands before it in the row.
      reset_positions: positions begin at 0 in every document; else they count on through the row.
    """

    document_mask: bool = True
    reset_positions: bool = True

    def seen(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Segment ids and positions for the model; padding keeps those that it has.

        Args:
          batch: with `segment_ids` and `positions`, int32 [B, L], NumPy's or JAX's; documents stand from the
            left without gaps.
        """
        segment_ids, positions = batch["segment_ids"], batch["positions"]
        held = (segment_ids > 0).astype(positions.dtype)
        if not self.document_mask:
            segment_ids = held
        if not self.reset_positions:
            positions = held * (held.cumsum(axis=1, dtype=held.dtype) - 1) + (1 - held) * positions
        return segment_ids, positions

    def __str__(self) -> str:
        mask = "see only themselves" if self.document_mask else "see those before them in their row"
        return f"packed documents {mask}, positions {'begin anew' if self.reset_positions else 'count on'}"
