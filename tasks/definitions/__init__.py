"""What the families' data sets are called, where their files lie and how they are asked: tables, as data."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any


@functools.cache
def load(name: str) -> Any:
    """The JSON file of this name; shared by all who ask, so not to be changed."""
    return json.loads(importlib.resources.files(__name__).joinpath(name).read_text(encoding="utf-8"))
