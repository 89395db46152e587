"""The papers' figures that may stand beside a study's results."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from iml.errors import InputError

_DEFINITIONS = pathlib.Path(__file__).parent / "definitions" / "published.json"


def find_tables(names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Tables by their keys in `definitions/published.json`, each with "source", "note", "head" and "rows".

    Raises:
      InputError: a name that is not known.
    """
    tables = _tables()
    for name in names:
        if name not in tables:
            remedy = f"Known: {', '.join(tables)}"
            raise InputError(f"no published table {name!r}", field="Design.published", remedy=remedy)
    return [tables[name] for name in names]


@functools.cache
def _tables() -> dict[str, Any]:
    return json.loads(_DEFINITIONS.read_text(encoding="utf-8"))
