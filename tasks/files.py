"""Reads the text formats that data sets come in; what is wrong with a file is told with its line and field.

Paths may be local or remote (`gs://`). A name that ends in `.gz` is unpacked, a byte-order mark dropped.
Line numbers count from 1. Lines end with a line feed; a carriage return before it is dropped, and blank lines
are passed over.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from etils import epath

from iml.errors import InputError

Path = str | os.PathLike[str]
Record = dict[str, Any]

#: A line after a table's last, which no text ends with: a quoted field that is not closed takes it in.
_END = "\ue000end of the table"
_KINDS = {
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def text(path: Path) -> str:
    """A whole file.

    Raises:
      InputError: it cannot be read, or is not UTF-8.
    """
    try:
        with _open(path) as file:
            return file.read().decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", path=path) from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) one by one.

    Raises:
      InputError: the file cannot be read, or a line is not UTF-8.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                decoded = line.decode("utf-8-sig" if number == 1 else "utf-8")
                decoded = decoded.removesuffix("\n").removesuffix("\r")
                if decoded.strip():
                    yield number, decoded
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error, number + 1) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 at byte {error.start}", path=path, line=number) from error


def json_value(path: Path) -> Any:
    """The one JSON value of a file.

    Raises:
      InputError: the file cannot be read or is not JSON.
    """
    return _load(text(path), path)


def json_records(path: Path) -> list[Record]:
    """The objects of a file that holds a JSON list of objects.

    Raises:
      InputError: the file cannot be read or holds something else.
    """
    records = json_value(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError("must hold a JSON list of objects", path=path)
    return records


def json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """(line number, object) of a file with one JSON object a line.

    Raises:
      InputError: the file cannot be read, or a line is something else.
    """
    for number, line in lines(path):
        record = _load(line, path, number)
        if not isinstance(record, dict):
            raise InputError("is not a JSON object", path=path, line=number)
        yield number, record


def columns(path: Path, least: int, delimiter: str = "\t") -> Iterator[tuple[int, list[str]]]:
    """(line number, columns) of a table without header and without quoting.

    Raises:
      InputError: the file cannot be read, or a line has fewer than `least` columns.
    """
    for number, line in lines(path):
        parts = line.split(delimiter)
        if len(parts) < least:
            raise InputError(f"has {len(parts)} of {least} columns", path=path, line=number)
        yield number, parts


def table(
    path: Path, names: Sequence[str] = (), delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL
) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of its last line, row) of a CSV file; quoted fields may hold line breaks.

    Args:
      names: the columns' names where the file has no header; a file with a header must have none missing.

    Raises:
      InputError: the file cannot be read, a row has too few or too many columns, or quotes are left open, which
        would make one field of all the rows that follow.
    """
    with io.StringIO(text(path), newline="") as file:
        closed = itertools.chain(file, [_END])
        reader = csv.DictReader(closed, list(names) or None, delimiter=delimiter, quoting=quoting)
        begins = 1
        try:
            if reader.fieldnames == [_END]:
                return
            for row in reader:
                first, *others = row.values()
                if first == _END:
                    return
                if any(isinstance(value, str) and value.endswith(_END) for value in (first, *others)):
                    break
                if None in row or None in others:
                    problem = f"has not {len(reader.fieldnames or ())} columns"
                    raise InputError(problem, path=path, line=reader.line_num)
                yield reader.line_num, row
                begins = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"is not a table: {error}", path=path, line=reader.line_num) from error
    raise InputError("the row that begins here has quotes that do not end", path=path, line=begins)


def field(record: Any, name: str, kind: type | tuple[type, ...], path: Path, line: int | None = None) -> Any:
    """A field of a JSON object, checked for its type.

    Raises:
      InputError: it is missing or of another type.
    """
    if not isinstance(record, Mapping) or name not in record:
        raise InputError("a record lacks this field", path=path, line=line, field=name)
    value = record[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(_KINDS.get(option, option.__name__) for option in kinds)
        raise InputError(f"must be {wanted}, not {value!r:.60}", path=path, line=line, field=name)
    return value


def strings(record: Any, name: str, path: Path, line: int | None = None) -> list[str]:
    """A field that is a list of strings and not empty.

    Raises:
      InputError: it is missing or something else.
    """
    values = field(record, name, list, path, line)
    if not values or not all(isinstance(value, str) for value in values):
        raise InputError(f"must be a list of strings, not {values!r:.60}", path=path, line=line, field=name)
    return values


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with epath.Path(path).open("rb") as file:
        if not os.fspath(path).endswith(".gz"):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield unpacked


def _load(content: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg}" if content.strip() else "is empty"
        raise InputError(problem, path=path, line=line or error.lineno) from error
    except RecursionError as error:
        raise InputError("is nested too deeply", path=path, line=line) from error


def _unreadable(path: Path, error: Exception, line: int | None = None) -> InputError:
    return InputError(f"cannot be read ({getattr(error, 'strerror', None) or error})", path=path, line=line)
