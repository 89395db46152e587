"""Renders PromptSource's Jinja in a sandbox, as the `promptsource` package does, under limits.

Templates come from files that others wrote, so they reach no attribute that begins with an underscore, only the
filters and methods listed below, and they have a budget of work: every loop step, call, filter and operator
pays for the size of what it takes and gives. The budget is counted rather than timed, so it holds in any
thread and trips at the same place on any machine; the deadline stands behind it. Lists and dictionaries may
be changed (a tenth of the genuine templates call `append` or `update`), hence each rendering works on its own
copy of the row.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.filters import do_truncate
from jinja2.runtime import Undefined
from jinja2.sandbox import SandboxedEnvironment, SecurityError
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from iml.errors import InputError

#: Units of work in one rendering: a character is one unit, an element or a step of a loop `_STEP` of them.
WORK_LIMIT = 10_000_000
#: Characters of a rendered prompt and its target.
OUTPUT_LIMIT = 1_000_000
#: Seconds for one rendering.
TIME_LIMIT = 10.0
#: The package cuts each printed value to so many characters (300 words).
VALUE_LENGTH = 2048

_STEP = 10
_CALL = 100
_INTEGER_BITS = 4096
_SEPARATOR = "|||"
_PROTECTED = "3ed2dface8203c4c9dfb1a5dc58e41e0"  # stands for the separator inside values, as in the package
_FILTERS = frozenset((
    "abs", "capitalize", "count", "d", "default", "first", "float", "format", "int", "join", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse",
    "round", "select", "selectattr", "sort", "string", "title", "trim", "truncate", "unique",
    "upper",
))  # fmt: skip
_METHODS = frozenset((
    "append", "capitalize", "count", "endswith", "extend", "find", "get", "index", "insert",
    "isdigit", "items", "join", "keys", "lower", "lstrip", "pop", "remove", "replace", "rfind",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "update", "upper",
    "values",
))  # fmt: skip
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{4})")


class _LimitError(RuntimeError):
    """A template asked for too much."""


@dataclasses.dataclass
class _Budget:
    """What one rendering may still spend, how it draws at random, and whether it cuts what it prints."""

    choose: Callable[[Sequence[Any]], Any]
    truncate: bool = False
    left: int = WORK_LIMIT
    deadline: float = dataclasses.field(default_factory=lambda: time.monotonic() + TIME_LIMIT)

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise _LimitError(f"the template does more than {WORK_LIMIT:,} units of work")
        if time.monotonic() > self.deadline:
            raise _LimitError(f"the template takes more than {TIME_LIMIT:g} s")

    def pay(self, value: Any) -> Any:
        """Spends the size of a value, nested ones included, and returns it."""
        pending, size = [value], 0
        while pending:
            item = pending.pop()
            size += _STEP
            if isinstance(item, str | bytes):
                size += len(item)
            elif isinstance(item, range):
                size += _STEP * len(item)
            elif isinstance(item, int):
                size += item.bit_length() >> 3
            elif isinstance(item, Namespace) and item is not value:
                raise _LimitError("a namespace inside another value")
            elif isinstance(item, Mapping):
                pending.extend(item)
                pending.extend(item.values())
            elif isinstance(item, Collection) and not isinstance(item, Undefined):
                pending.extend(item)
            if size + _STEP * len(pending) > self.left:
                self.spend(size + _STEP * len(pending))
        self.spend(size)
        return value


_running = threading.local()


def _budget() -> _Budget:
    return _running.budget


def _each(values: Iterable[Any]) -> Iterator[Any]:
    """The loop's items, each of them paid for."""
    for value in values:
        _budget().spend(_STEP)
        yield value


def _concatenate(values: Sequence[Any]) -> str:
    return "".join(str(_printable(value)) for value in values)


def _choice(values: Sequence[Any]) -> Any:
    return _budget().choose(values)


def _most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """All items of the highest count, in order of appearance; None for no items, as in the package."""
    if not items:
        return None
    counts = collections.Counter(items)
    most = max(counts.values())
    return [item for item, count in counts.items() if count == most]


def _printable(value: Any) -> Any:
    if isinstance(value, Namespace):
        raise _LimitError("a namespace cannot be printed")
    return _budget().pay(value)


@pass_context
def _print(context: jinja2.runtime.Context, value: Any) -> Any:
    _printable(value)
    return do_truncate(context.environment, str(value), VALUE_LENGTH) if _budget().truncate else value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it takes and gives, with the attributes that tell Jinja what to pass."""

    passed = int(hasattr(function, "jinja_pass_arg"))  # The context or environment comes first.

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        budget = _budget()
        values = (*args[passed:], *kwargs.values())
        for value in values:
            _printable(value)
            if name == "round" and isinstance(value, int) and abs(value) > 100 and value is not args[0]:
                raise _LimitError("rounding to more than 100 places")
            if name == "format" and isinstance(value, str) and _WIDE_FORMAT.search(value):
                raise _LimitError("a format wider than 999")
        strings = [value for value in values if isinstance(value, str)]
        if name == "replace" and len(strings) >= 3:
            _pay_replace(budget, *strings[:3])
        if name == "join" and strings:
            args = tuple(list(_each(value)) if isinstance(value, Iterator) else value for value in args)
            longest = max(map(len, strings))
            budget.spend(sum(len(value) * longest for value in args if isinstance(value, Collection)))
        return budget.pay(function(*args, **kwargs))

    return guarded


def _pay_replace(budget: _Budget, text: str, old: str, new: str) -> None:
    budget.spend(text.count(old) * len(new))


class _Guard(NodeTransformer):
    """Puts the budget where the sandbox has no hook: loops, `~`, comparisons, and literal lists and dicts."""

    def _through(self, node: nodes.Expr, filter_name: str) -> nodes.Filter:
        return nodes.Filter(node, filter_name, [], [], None, None, lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.For:
        node = self.generic_visit(node)
        node.iter = self._through(node.iter, "each__")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        node = self.generic_visit(node)
        return self._through(nodes.List(node.nodes, lineno=node.lineno), "concatenate__")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        node = self.generic_visit(node)
        node.expr = self._through(node.expr, "pay__")
        for operand in node.ops:
            operand.expr = self._through(operand.expr, "pay__")
        return node

    def _literal(self, node: nodes.Expr) -> nodes.Expr:
        node = self.generic_visit(node)
        return node if getattr(node, "ctx", "load") == "store" else self._through(node, "pay__")

    visit_List = visit_Tuple = visit_Dict = _literal


class _Environment(SandboxedEnvironment):
    """Jinja with PromptSource's filters and functions, and no way to run away."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        # No optimiser and a `finalize` that wants the context, so that nothing is computed while compiling: a
        # constant `["a", "b"] | choice` must be drawn for each example.
        super().__init__(optimized=False, finalize=_print)
        filters = {name: self.filters[name] for name in _FILTERS}
        filters |= {"choice": _choice, "random": _choice, "most_frequent": _most_frequent}
        self.filters = {name: _guarded(name, function) for name, function in filters.items()}
        self.filters |= {
            "each__": _each,
            "pay__": lambda value: _budget().pay(value),
            "concatenate__": _concatenate,
        }
        self.globals = {
            "range": self.globals["range"],
            "namespace": Namespace,
            "zip": zip,
            "dict": dict,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = _Guard().visit(super()._parse(source, name, filename))
        return tree.set_environment(self)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        plain = isinstance(obj, str | bytes | int | float | list | tuple | dict | set | range)
        return not (plain and callable(value)) or attr in _METHODS

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is refused")

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is refused like any other method that is not listed."""
        return None

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _budget()
        budget.spend(_CALL)
        budget.pay([*args, *kwargs.values()])
        receiver = getattr(__obj, "__self__", None)
        if isinstance(receiver, str):
            budget.spend(len(receiver))
            method = getattr(__obj, "__name__", "")
            if method == "replace" and len(args) >= 2 and all(isinstance(value, str) for value in args[:2]):
                _pay_replace(budget, receiver, *args[:2])
            if method == "join" and args and isinstance(args[0], Collection):
                budget.spend(len(receiver) * len(args[0]))
        result = budget.pay(super().call(__context, __obj, *args, **kwargs))
        if isinstance(receiver, list | dict):
            budget.pay(receiver)
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget()
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | bytes | list | tuple) and isinstance(times, int):
                    unit = 1 if isinstance(many, str | bytes) else _STEP
                    budget.spend(unit * len(many) * max(times, 0))
        if operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise _LimitError("a format wider than 999")
        if isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * max(right, 1)
                if operator == "**"
                else left.bit_length() + right.bit_length()
            )
            if bits > _INTEGER_BITS:
                raise _LimitError(f"an integer of more than {_INTEGER_BITS} bits")
        budget.pay([left, right])
        return budget.pay(super().call_binop(context, operator, left, right))


_ENVIRONMENT = _Environment()


def seeded_choice(*keys: str) -> Callable[[Sequence[Any]], Any]:
    """A choice that depends on the keys and on how often it was asked, and on nothing else."""
    count = 0

    def choose(values: Sequence[Any]) -> Any:
        nonlocal count
        digest = hashlib.blake2b("\0".join((*keys, str(count))).encode(), digest_size=8).digest()
        count += 1
        return values[int.from_bytes(digest, "big") % len(values)]

    return choose


class Renderer:
    """One template, compiled once.

    Args:
      jinja: the template, prompt and target parted by `|||`.
      answer_choices: a template of the answers parted by `|||`, or None.
      truncate: cut every printed value to `VALUE_LENGTH` characters, the package's default. The package does
        it by writing a filter behind each expression's last operand, so that `{{ label + 1 }}` adds a string
        and fails; here the whole value is cut.

    Raises:
      InputError: it is not valid Jinja, or it asks for a filter that is not there.
    """

    def __init__(self, jinja: str, answer_choices: str | None = None, *, truncate: bool = True):
        self._template, self._truncate = _compile(jinja), truncate
        self._choices = None if answer_choices is None else _compile(answer_choices)

    def render(
        self, row: Mapping[str, Any], choose: Callable[[Sequence[Any]], Any]
    ) -> tuple[list[str], tuple[str, ...] | None]:
        """The rendered parts (prompt and target, or another number of them), and the answer choices.

        Raises:
          InputError: the template fails on this row, is not permitted what it does, or exceeds its limits.
        """
        if "answer_choices" in row:
            raise InputError("a row must not have this field", field="answer_choices")
        variables = {
            name: value.replace(_SEPARATOR, _PROTECTED) if isinstance(value, str) else copy.deepcopy(value)
            for name, value in row.items()
        }
        _running.budget = _Budget(choose)
        try:
            choices = None if self._choices is None else _parts(self._choices, variables)
            _running.budget.truncate = self._truncate
            parts = _parts(self._template, {**variables, "answer_choices": choices})
            return parts, None if choices is None else tuple(choices)
        except _LimitError as error:
            raise InputError(f"refused: {error}") from None
        except SecurityError as error:
            raise InputError(f"refused by the sandbox: {error}") from None
        except (OverflowError, RecursionError, MemoryError) as error:
            raise InputError(f"refused: the template asks for too much: {error}") from None
        except Exception as error:
            raise InputError(f"the template fails: {type(error).__name__}: {error}") from error
        finally:
            del _running.budget


def _compile(source: str) -> jinja2.Template:
    try:
        return _ENVIRONMENT.from_string(source)
    except jinja2.TemplateError as error:
        raise InputError(f"not valid Jinja: {error}") from error
    except (RecursionError, SyntaxError, MemoryError) as error:
        raise InputError(f"the template is nested too deeply ({type(error).__name__})") from None


def _parts(template: jinja2.Template, variables: Mapping[str, Any]) -> list[str]:
    pieces, length = [], 0
    for piece in template.generate(**variables):
        length += len(piece)
        if length > OUTPUT_LIMIT:
            raise _LimitError(f"the template writes more than {OUTPUT_LIMIT:,} characters")
        pieces.append(piece)
    return [part.replace(_PROTECTED, _SEPARATOR).strip() for part in "".join(pieces).split(_SEPARATOR)]
