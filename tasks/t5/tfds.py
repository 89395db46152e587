"""T5's sets as `tasks.t5` has them; those without files are taken from TFDS."""

from __future__ import annotations

from tasks import t5


def register(data_dir: str, papers_seven: bool = False) -> None:
    """Registers every set; opens no file and downloads nothing.

    Args:
      data_dir: as for `tasks.t5.register`; TFDS keeps its sets in `data_dir/tfds/` if that folder is there.
      papers_seven: only the seven sets that OPT-IML keeps.
    """
    t5.register(data_dir, papers_seven, tfds=True)
