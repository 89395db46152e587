"""Writes the site as files that any browser opens from disk."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable

from iml.browser.site import ASSETS, Site, asset
from iml.errors import InputError

#: Tells a folder that this module wrote, and may replace, from any other.
_MARKER = ".iml-browse"


def export(site: Site, path: str | os.PathLike[str], advance: Callable[[], None] = lambda: None) -> int:
    """Writes every page; the folder appears complete or not at all, and replaces an earlier export.

    Args:
      path: the folder; it may be absent, empty, or hold an earlier export.
      advance: called after each page.

    Returns:
      How many bytes were written.

    Raises:
      InputError: the folder holds something else.
      OSError: the disk is full or not writable; an earlier export stays.
    """
    target = pathlib.Path(path).resolve()
    if target.exists() and not (
        target.is_dir() and ((target / _MARKER).exists() or not any(target.iterdir()))
    ):
        raise InputError(
            "holds something else than an export of the browser",
            path=target,
            field="export",
            remedy="Name a new folder",
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        (temporary / "task").mkdir(parents=True)
        (temporary / "categories").mkdir()
        size = sum(_write(temporary / name, asset(name)) for name in ASSETS)
        for address in site.addresses():
            size += _write(temporary / address, site.page(address, None).encode())
            advance()
        (temporary / _MARKER).touch()
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return size


def _write(file: pathlib.Path, data: bytes) -> int:
    file.write_bytes(data)
    return len(data)
