"""Settings as plain values, of which fingerprints are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

#: Metadata of a field that came later: at its default it is no part of the settings, so that those of before,
#: and the fingerprints made of them, stay what they were.
LATER: Mapping[str, Any] = {"later": True}


def plain(value: Any) -> Any:
    """As `dataclasses.asdict`, without the fields marked `LATER` that have their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata.get("later") and getattr(value, field.name) == field.default)
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value
