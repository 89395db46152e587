"""The one exception for what a user can mend."""

from __future__ import annotations

import os


class InputError(ValueError):
    """Bad input, told in one line: what is wrong, where, and what to do about it.

    Attributes:
      problem: what is wrong, without a full stop.
      path: the file at fault, if there is one.
      line: its line, counted from 1.
      field: the field, gin binding or flag at fault.
      remedy: what the user can do.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | os.PathLike[str] | None = None,
        line: int | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ):
        self.problem, self.line, self.field, self.remedy = problem, line, field, remedy
        self.path = None if path is None else os.fspath(path)
        super().__init__(str(self))

    def __reduce__(self):
        # Keyword-only arguments: pickling by `args` (a process pool returning the error) would lose them.
        return _rebuild, (self.problem, self.path, self.line, self.field, self.remedy)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.path, self.line) if part is not None)
        field = f"field {self.field!r}" if self.field else ""
        where = ", ".join(part for part in (place, field) if part)
        text = f"{where}: {self.problem}" if where else self.problem
        return f"{text}. {self.remedy}" if self.remedy else text


def _rebuild(problem, path, line, field, remedy) -> InputError:
    return InputError(problem, path=path, line=line, field=field, remedy=remedy)
