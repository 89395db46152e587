"""MMLU where the answer is the text of a choice in place of its letter."""

from __future__ import annotations

from tasks import mmlu


def register(data_dir: str) -> None:
    """`tasks.mmlu.register` with the choices' texts as candidates."""
    mmlu.register(data_dir, target="text")
