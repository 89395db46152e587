"""From the command line to a call of an entry point: strict gin, in the manner of T5X.

An entry point is a plain function whose arguments are values or plain dataclasses. This module, and no
other, makes them known to gin; whoever uses `iml` as a library calls the same functions without it.

    python -m iml.train --gin_file=runs/finetune.gin --gin.TRAIN_STEPS=100 --gin.train.batch_size=8

Strict means: an unknown name, a wrong type, a required value that is missing and a binding that nothing
uses are errors, each told with the nearest right name.
"""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import difflib
import errno
import functools
import inspect
import itertools
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gin
from gin import config as gin_config

from iml.errors import InputError

#: Where the gin files of the project lie, searched after the working directory.
CONFIG_DIR = pathlib.Path(__file__).resolve().parents[1] / "gin_configs"

_COMMON_FLAGS = {
    "gin_file": "a gin file; may be given several times, later ones win",
    "gin.NAME": "one binding, e.g. --gin.TRAIN_STEPS=100 or --gin.train.batch_size=8; wins over files",
    "gin_search_paths": "folders, parted by commas, in which gin files and their includes are looked for",
    "dry_run": "print the operative configuration and what would be done, and do nothing",
    "help": "print this page",
}
#: Errors of the system that are a path's or a disk's, which a user can mend.
_OF_A_PATH = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
}
#: What a switch may be given.
_TRUTH = {"true": True, "false": False}


def run(
    entry: Callable[..., Any],
    *,
    doc: str,
    configurables: Sequence[Callable[..., Any]] = (),
    flags: Mapping[str, str | Flag] | None = None,
    presets: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> Any:
    """Configures `entry` from the command line and calls it; ends the process on a user's mistake.

    Args:
      entry: the entry point; it takes the keyword `dry_run` and one for each name of `flags`.
      doc: the text that `--help` begins with.
      configurables: constructors that gin files may name; `entry` need not be among them.
      flags: extra flags `--name[=value]` and what they mean. The entry gets the string given, True for
        a bare flag, and its own default where the flag is absent. One whose default is True or False is a
        switch, which takes true or false.
      presets: extra flags whose value names a gin file in one of the project's folders: with
        {"suite": "evals"} `--suite=mmlu` stands for `--gin_file=evals/mmlu.gin`.
      argv: the arguments, without the program's name; `sys.argv[1:]` by default.

    Returns:
      What `entry` returns. Exits with status 2 after an `InputError`, or an `OSError` of a path or a full
      disk, told in one line.
    """
    flags, presets = dict(flags or {}), dict(presets or {})
    known = (entry, *configurables)
    try:
        parameters = inspect.signature(entry).parameters
        switches = [name for name in flags if isinstance(parameters[name].default, bool)]
        arguments = _parse_arguments(sys.argv[1:] if argv is None else argv, flags, switches, presets)
        if arguments.help:
            print(_help_page(entry, doc, known, flags, presets))
            return None
        configured = configure(
            entry, configurables, arguments.files, arguments.bindings, arguments.search_paths, tuple(flags)
        )
        return configured(dry_run=arguments.dry_run, **arguments.flags)
    except InputError as error:
        _end(_without_gin(error))
    except OSError as error:
        # gin's copy of an error has its text alone.
        told = re.match(r"\[Errno (\d+)\] (.*)", _without_gin(error), re.DOTALL)
        if not told or int(told[1]) not in _OF_A_PATH:
            raise
        _end(f"{told[2]}. See that the path is right and may be written, and that there is room")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _without_gin(error: Exception) -> str:
    """An error's text less the line that gin adds for each constructor on the way."""
    return str(error).partition("\n  In call to")[0]


def _end(text: str) -> typing.NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def configure(
    entry: Callable[..., Any],
    configurables: Sequence[Callable[..., Any]],
    files: Sequence[str] = (),
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    flags: Iterable[str] = (),
) -> Callable[..., Any]:
    """Reads gin files and bindings strictly.

    Args:
      entry: the entry point.
      configurables: constructors that gin files may name.
      files: gin files, later ones winning.
      bindings: single bindings `NAME = VALUE`, which win over the files.
      search_paths: folders in which gin files and their includes are looked for.
      flags: arguments of `entry` that come from the command line alone.

    Returns:
      `entry` with the bindings applied; what it is called with wins over them.

    Raises:
      InputError: an unknown file, name or parameter, a value of the wrong type, a required value that is
        missing, or a binding that nothing uses.
    """
    known = (entry, *configurables)
    flags = ("dry_run", *flags)
    gin.clear_config(clear_constants=True)
    registered = {
        function.__name__: _register(function, flags if function is entry else ()) for function in known
    }
    gin_config._LOCATION_PREFIXES[:] = ["", *search_paths, os.fspath(CONFIG_DIR)]
    # Files only: gin would also take a folder of the working directory for a Python package, and fail on it.
    gin_config._FILE_READERS[:] = [(open, os.path.isfile)]
    _parse(files, bindings, known)
    _check_reachable(entry.__name__, known)
    return registered[entry.__name__]


def arguments(
    entry: Callable[..., Any],
    configurables: Sequence[Callable[..., Any]],
    files: Sequence[str] = (),
    bindings: Sequence[str] = (),
    flags: Iterable[str] = (),
) -> dict[str, Any]:
    """What an entry point would be called with, its defaults included; it is not called.

    Args:
      entry, configurables, files, bindings, flags: as `configure`.

    Raises:
      InputError: as `configure`, or a setting that a constructor refuses.
    """
    signature = inspect.signature(entry)

    @functools.wraps(entry)
    def record(**given: Any) -> dict[str, Any]:
        bound = signature.bind(**given)
        bound.apply_defaults()
        return dict(bound.arguments)

    return configure(record, configurables, files, bindings, flags=flags)()


def operative() -> str:
    """The bindings in force, defaults included, as text that gin can read again."""
    return gin.operative_config_str()


# ---------------------------------------------------------------------------------- the command line


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag that takes words after it, as `--compare A B`.

    Attributes:
      meaning: for the help.
      words: how many.
    """

    meaning: str
    words: int

    def __str__(self) -> str:
        return self.meaning


@dataclasses.dataclass(frozen=True)
class _Arguments:
    files: list[str]
    bindings: list[str]
    search_paths: list[str]
    flags: dict[str, Any]
    dry_run: bool
    help: bool


def _preset_names(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / folder).glob("*.gin"))


def _preset_file(flag: str, folder: str, name: str) -> str:
    if name not in (names := _preset_names(folder)):
        raise InputError(
            f"there is no {flag} {name!r}" if name else "needs a value",
            field=f"--{flag}",
            remedy=f"{_nearest(name, names)}Known: {', '.join(names)}; --gin_file takes any other file",
        )
    return f"{folder}/{name}.gin"


def _parse_arguments(
    argv: Sequence[str],
    flags: Mapping[str, str | Flag],
    switches: Sequence[str],
    presets: Mapping[str, str],
) -> _Arguments:
    files: list[str] = []
    bindings: list[str] = []
    search_paths: list[str] = []
    given: dict[str, Any] = {}
    common = {"dry_run": False, "help": False}
    words = iter(argv)
    for word in words:
        if word in ("-h", "--help"):
            common["help"] = True
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise InputError(
                f"unexpected argument {word!r}", remedy="Flags are written --name=value; see --help"
            )
        if name.startswith("gin."):
            if not equals:
                raise InputError("a gin binding needs a value", field=word, remedy=f"Write {word}=VALUE")
            bindings.append(f"{name.removeprefix('gin.')} = {_gin_literal(value)}")
        elif name in ("gin_file", "gin_search_paths"):
            value = value if equals else next(words, "")
            if not value:
                raise InputError("needs a value", field=f"--{name}", remedy=f"Write --{name}=VALUE")
            (files if name == "gin_file" else search_paths).extend(
                [value] if name == "gin_file" else value.split(",")
            )
        elif name in presets:
            files.append(_preset_file(name, presets[name], value if equals else next(words, "")))
        elif name in common or name in switches:
            truth = _TRUTH.get(value.lower()) if equals else True
            if truth is None:
                raise InputError(f"is true or false, not {value!r}", field=f"--{name}")
            (common if name in common else given)[name] = truth
        elif isinstance(flag := flags.get(name), Flag):
            taken = ([value] if equals else []) + list(
                itertools.islice(words, flag.words - equals.count("="))
            )
            if len(taken) < flag.words or any(word.startswith("--") for word in taken):
                raise InputError(f"takes {flag.words} words", field=f"--{name}")
            given[name] = tuple(taken)
        elif name in flags:
            given[name] = value if equals else True
        else:
            names = ["gin_file", "gin_search_paths", "dry_run", "help", *flags, *presets]
            raise InputError(
                f"unknown flag --{name}",
                remedy=f"{_nearest(name, names, '--')}Settings are given as --gin.NAME=value; see --help",
            )
    return _Arguments(files, bindings, search_paths, given, **common)


def _gin_literal(text: str) -> str:
    """The text as a gin value; what is no literal, reference or macro is taken for a string."""
    if text.startswith(("@", "%")):
        return text
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        # A container may hold references (`[@Suite()]`), which only gin itself can read.
        return text if text.startswith(("[", "(", "{")) else repr(text)
    return text


# ------------------------------------------------------------------------------------- gin, strictly


def _register(function: Callable[..., Any], flags: tuple[str, ...]) -> Callable[..., Any]:
    """Makes a constructor or entry point known to gin, with its arguments checked against their types.

    A plain function stands in for a class: gin would subclass it, and instances of such subclasses cannot
    be sent to another process.
    """
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)

    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if name in hints and not _is_of_type(value, hints[name]):
                uncalled = getattr(value, "__name__", "") if inspect.isroutine(value) else ""
                raise InputError(
                    f"must be {_type_name(hints[name])}, not {uncalled or repr(value)[:80]}",
                    field=f"{function.__name__}.{name}",
                    remedy=f"Write @{uncalled}(), with brackets" if uncalled else None,
                )
        return function(*args, **kwargs)

    checked.__name__ = checked.__qualname__ = function.__name__
    checked.__module__ = function.__module__
    checked.__doc__ = function.__doc__
    signature = inspect.signature(function)
    checked.__signature__ = signature.replace(  # what gin validates names against and records as operative
        parameters=[parameter for name, parameter in signature.parameters.items() if name not in flags]
    )
    with gin_config.interactive_mode():  # one process may configure several entry points, one after another
        return gin.external_configurable(checked, name=function.__name__, module="iml")


def _parse(files: Sequence[str], bindings: Sequence[str], known: Sequence[Callable[..., Any]]) -> None:
    for path in files:
        if not any((pathlib.Path(folder) / path).is_file() for folder in gin_config._LOCATION_PREFIXES):
            candidates = [str(file.relative_to(CONFIG_DIR)) for file in CONFIG_DIR.rglob("*.gin")]
            raise InputError("no such gin file", path=path, remedy=_nearest(path, candidates) or "See --help")
    try:
        gin.parse_config_files_and_bindings(list(files), list(bindings), finalize_config=False)
    except Exception as error:
        raise _as_input_error(error, known) from error


def _as_input_error(error: Exception, known: Sequence[Callable[..., Any]]) -> InputError:
    """gin's complaint with its place and the nearest right name."""
    message = str(error)
    place = re.search(r'In (?:file "(?P<path>[^"]+)", line|bindings string line) (?P<line>\d+)', message)
    where = {}
    if place and place["path"]:
        where = {"path": place["path"], "line": int(place["line"])}
    if unknown := re.search(r"No configurable matching (?:reference )?'@?(?P<name>[^'(]+)", message):
        name = unknown["name"].rpartition("/")[-1]
        names = [function.__name__ for function in known]
        return InputError(
            f"nothing named {name!r} can be configured here",
            **where,
            remedy=f"{_nearest(name, names)}Known here: {', '.join(sorted(names))}",
        )
    if unknown := re.search(
        r"Configurable '(?P<owner>[^']+)' doesn't have a parameter named '(?P<name>[^']+)'", message
    ):
        owner = unknown["owner"].rpartition(".")[-1]
        parameters = _parameters(next(function for function in known if function.__name__ == owner))
        return InputError(
            f"{owner} has no setting {unknown['name']!r}",
            **where,
            remedy=_nearest(unknown["name"], parameters, f"{owner}.")
            + f"Its settings: {', '.join(parameters)}",
        )
    return InputError(" ".join(message.split()), **where, remedy="See --help for what can be configured")


def _check_reachable(entry: str, known: Sequence[Callable[..., Any]]) -> None:
    """Every binding must be used by the entry point, and every required value given.

    Walks from the entry's bindings through references and macros: what lies outside is a setting that the
    user believes to be in force and is not.
    """
    settings = {
        (scope, selector.rpartition(".")[-1]): parameters
        for (scope, selector), parameters in gin_config._CONFIG.items()
    }
    names = {function.__name__ for function in known}
    pending: list[tuple[str, str]] = [("", entry)]
    reached: set[tuple[str, str]] = set()
    required: list[str] = []
    while pending:
        key = pending.pop()
        if key in reached:
            continue
        reached.add(key)
        if key[1] == "macro" and key not in settings:
            required.append(key[0])
        for parameter, value in settings.get(key, {}).items():
            if _is_required(value):
                required.append(key[0] if key[1] == "macro" else f"{key[1]}.{parameter}")
                continue
            for scope, name in _references(value):
                # An unscoped binding also holds for scoped references.
                pending += [(scope, name), *([] if name == "macro" else [("", name)])]
    for scope, name in settings:
        if (scope, name) not in reached:
            what = scope if name == "macro" else "/".join(part for part in (scope, name) if part)
            others = (
                [macro for macro, kind in reached if kind == "macro"]
                if name == "macro"
                else [*names - {what}]
            )
            use = f"{entry}.x = {'%' + what if name == 'macro' else '@' + what + '()'}"
            raise InputError(
                f"{what!r} is bound but nothing uses it",
                remedy=_nearest(what, others).strip()
                or f"Refer to it (for example {use}), or take the binding out",
            )
    bound = settings.get(("", entry), {})
    parameters = inspect.signature(next(f for f in known if f.__name__ == entry)).parameters.values()
    required += [
        f"{entry}.{parameter.name}"
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.name not in bound
    ]
    if required:
        name = sorted(set(required))[0]
        raise InputError(
            "must be given", field=name, remedy=f"Add --gin.{name}=VALUE, or bind it in a gin file"
        )


def _references(value: Any) -> Iterator[tuple[str, str]]:
    """The (scope, name) of every configurable and macro that a bound value refers to."""
    if isinstance(value, gin_config.ConfigurableReference):
        yield value.scoped_selector.rpartition("/")[0], value.selector.rpartition(".")[-1]
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            yield from _references(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _references(item)


def _is_required(value: Any) -> bool:
    return isinstance(value, gin_config.ConfigurableReference) and value.scoped_selector.startswith(
        "gin.REQUIRED/"
    )


# --------------------------------------------------------------------------- types, names and help


def _is_of_type(value: Any, hint: Any) -> bool:
    """Whether a value fits a type hint, as far as the hint is one of the plain kinds; else True."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, str):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is_of_type(value, option) for option in inner)
    if origin is typing.Literal:
        return value in inner
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (hint is float or isinstance(value, int))
    if origin is tuple or (inspect.isclass(origin) and issubclass(origin, collections.abc.Sequence)):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(_is_of_type, value, inner))
        return not inner or all(_is_of_type(item, inner[0]) for item in value)
    if inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping):
        return isinstance(value, Mapping)
    if hint is str:
        return isinstance(value, (str, os.PathLike))
    return isinstance(value, hint) if inspect.isclass(hint) else True


def _type_name(hint: Any) -> str:
    if inspect.isclass(hint) and not typing.get_args(hint):
        return hint.__name__
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(hint))


def _nearest(name: str, options: Iterable[str], prefix: str = "") -> str:
    matches = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f"Did you mean {prefix}{matches[0]}? " if matches else ""


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _help_page(
    entry: Callable[..., Any],
    doc: str,
    known: Sequence[Callable[..., Any]],
    flags: Mapping[str, str | Flag],
    presets: Mapping[str, str],
) -> str:
    short = {
        flag: f"NAME, short for --gin_file={folder}/NAME.gin: {', '.join(_preset_names(folder))}"
        for flag, folder in presets.items()
    }
    lines = [inspect.cleandoc(doc), "", "flags:"]
    lines += [f"  --{name:<22} {meaning}" for name, meaning in {**_COMMON_FLAGS, **short, **flags}.items()]
    if CONFIG_DIR.is_dir():
        files = sorted(str(path.relative_to(CONFIG_DIR)) for path in CONFIG_DIR.rglob("*.gin"))
        lines += ["", f"gin files that come with iml (in {CONFIG_DIR}):", *(f"  {file}" for file in files)]
    lines += ["", "settings, to be bound in a gin file or as --gin.NAME=value:"]
    for function in known:
        described = _described_parameters(inspect.getdoc(function) or "")
        lines += ["", f"  {function.__name__}"]
        for name, parameter in inspect.signature(function).parameters.items():
            if name == "dry_run" or (function is entry and name in flags):
                continue
            default = "required" if parameter.default is parameter.empty else f"= {_shown(parameter.default)}"
            lines.append(f"    {function.__name__}.{name} {default}")
            if name in described:
                lines.append(f"        {described[name]}")
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        return "(built by its constructor)"
    return repr(default) if len(repr(default)) <= 100 else f"{repr(default)[:97]}..."


def _described_parameters(doc: str) -> dict[str, str]:
    """Parameter descriptions out of a docstring's `Args:` or `Attributes:` section."""
    described: dict[str, str] = {}
    section, name = False, ""
    for line in doc.splitlines():
        if re.fullmatch(r"\s*(Args|Attributes):\s*", line):
            section = True
        elif section and (start := re.match(r"^ {2,4}(\w+)(?: \([^)]*\))?: (.*)", line)):
            name = start[1]
            described[name] = start[2].strip()
        elif section and name and re.match(r"^ {4,}\S", line):
            described[name] += f" {line.strip()}"
        elif section and line.strip():
            section = False
    return described
