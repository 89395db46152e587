"""PromptSource where a data set without a train split trains on four fifths of its validation split.

The rows are dealt by a hash of their number; each such task's card says so in its `source`.
"""

from __future__ import annotations

from tasks import promptsource


def register(data_dir: str) -> None:
    """`tasks.promptsource.register` with 0.8 of such validation splits as train splits."""
    promptsource.register(data_dir, train_fraction_of_validation=0.8)
