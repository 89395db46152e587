"""The sandbox: what templates may do, what they may not, and that they render as the package renders them."""

import copy
import importlib
import sys
import threading
import types

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("yaml")

from iml.errors import InputError
from tasks.promptsource.rendering import Renderer, seeded_choice
from tasks.promptsource.rows import find_rows
from tasks.promptsource.templates import read_templates


def first(values):
    return values[0]


def render(jinja, row=None, answer_choices=None, **options):
    return Renderer(jinja, answer_choices, **options).render(row or {}, first)[0]


@pytest.mark.parametrize(
    ("jinja", "row", "parts"),
    [
        ("{{ a }} ||| {{ b }} ", {"a": " x|||y ", "b": "z"}, ["x|||y", "z"]),
        ("{{ text }}|||t", {"text": "word " * 1000}, ["word " * 408 + "word...", "t"]),
        ("{{ label + 1 }}|||{{ label - 1 }}", {"label": 1}, ["2", "0"]),
        ("{% for x in xs %}{{ loop.index }}{{ x ~ '.' }}{% endfor %}|||", {"xs": ["a", "b"]}, ["1a.2b.", ""]),
        ("{% for a, b in zip(xs, xs) %}{{ a + b }}{% endfor %}", {"xs": [1, 2]}, ["24"]),
        ("{% set ns = namespace(n=0) %}{% for x in range(9) %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
         {}, ["36"]),
        ("{% set d = {} %}{{ d.update({'k': [1]}) or '' }}{{ d }}", {}, ["{'k': [1]}"]),
        ("{{ ['b', 'a', 'b'] | most_frequent | join(', ') }}", {}, ["b"]),
        ("{{ xs | map('upper') | reject('equalto', 'A') | list | length }}", {"xs": ["a", "b"]}, ["1"]),
        ("{{ '%s of %d' | format('a', 3) }} {{ 2.567 | round(1) }} {{ nothing | default('d') }}", {},
         ["a of 3 2.6 d"]),
    ],
)  # fmt: skip
def test_renders(jinja, row, parts):
    assert render(jinja, row) == parts


def test_answer_choices_are_fixed_or_made_from_the_row():
    row = {"c": ["x", "y|||z"], "label": 1}
    parts, choices = Renderer("q|||{{ answer_choices[label] }}", "{{ c[0] }} ||| no").render(row, first)
    assert (parts, choices) == (["q", "no"], ("x", "no"))
    parts, choices = Renderer("q|||{{ answer_choices }}").render(row, first)
    assert (parts, choices) == (["q", "None"], None)
    with pytest.raises(InputError, match="answer_choices"):
        render("q", {"answer_choices": 1})


def test_a_template_changes_only_its_own_copy_of_the_row():
    row = {"xs": [1, [2]]}
    assert render("{{ xs.append(3) or '' }}{{ xs[1].append(4) or '' }}{{ xs }}", row) == ["[1, [2, 4], 3]"]
    assert row == {"xs": [1, [2]]}


def test_choices_are_drawn_for_each_example_and_again_the_same():
    renderer = Renderer("{{ ['a', 'b', 'c'] | choice }}{{ ['a', 'b', 'c'] | random }}")
    drawn = [renderer.render({}, seeded_choice(f"train-{n}", "id"))[0][0] for n in range(100)]
    assert drawn == [renderer.render({}, seeded_choice(f"train-{n}", "id"))[0][0] for n in range(100)]
    assert len(set(drawn)) == 9


HOSTILE = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [1] * 10**9 }}",
    "{{ 9 ** 9 ** 9 }}{{ 9 ** 99999 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ a }}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=1) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set x = [] %}{{ x.append(x) }}{{ x }}",
    "{{ 'a' if [[1] * 9999] * 9999 == [[1] * 9999] * 9999 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ 'x'.ljust(10**9) }}",
    "{{ 'x' | center(10**9) }}",
    "{{ a | replace('', a) }}",
    "{{ a.replace('', a) }}",
    "{{ range(99999) | join(a) }}",
    "{{ a.join(range(99999) | map('string') | list) }}",
    "{{ 2 | round(10**9, 'ceil') }}",
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ range.__globals__ }}",
    "{{ self.__init__ }}",
    "{{ a['__class__'] }}",
    "{{ [a] | map(attribute='__class__') | list }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ a | attr('__class__') }}",
    "{{ (1).to_bytes(10**9) }}",
    "{{ lipsum(n=10**9) }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if %}",
]


@pytest.mark.parametrize("jinja", HOSTILE)
@pytest.mark.parametrize("truncate", [True, False])
def test_hostile_templates_are_refused_for_what_they_ask_for(jinja, truncate, monkeypatch):
    """On any machine at the same place: the deadline, which stands behind that, is far."""
    monkeypatch.setattr("tasks.promptsource.rendering.TIME_LIMIT", float("inf"))
    with pytest.raises(InputError):
        render(jinja, {"a": "x" * 100_000}, truncate=truncate)


def test_a_rendering_that_takes_too_long_is_stopped_off_the_main_thread(monkeypatch):
    monkeypatch.setattr("tasks.promptsource.rendering.TIME_LIMIT", 0.0)
    raised = []

    def work():
        try:
            render("{% for x in range(9) %}{{ x }}{% endfor %}")
        except InputError as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == ["refused: the template takes more than 0 s"]


def _package(monkeypatch) -> types.ModuleType:
    """`promptsource.templates` with its draws fixed; it imports pandas and pkg_resources for other things."""
    pytest.importorskip("promptsource", reason="compares with the promptsource package: make peers")
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda *_: ""
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = object
    monkeypatch.setitem(sys.modules, "pkg_resources", resources)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    module = importlib.import_module("promptsource.templates")
    monkeypatch.setitem(module.env.filters, "choice", first)
    monkeypatch.setitem(module.env.filters, "random", first)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("truncate", [True, False])
def test_every_template_with_rows_renders_as_the_package_renders_it(real_data, monkeypatch, truncate):
    package = _package(monkeypatch)
    home, compared = real_data / "promptsource" / "templates", 0
    for path in sorted(home.rglob("templates.yaml")):
        for files in find_rows(real_data, path.parent.relative_to(home).as_posix()).values():
            rows = [row for row, _ in zip(files.rows(), range(10), strict=False)]
            for template in read_templates(path):
                theirs = package.Template(template.name, template.jinja, "", None, template.answer_choices)
                ours = Renderer(template.jinja, template.answer_choices, truncate=truncate)
                for row in rows:
                    parts, choices = ours.render(row, first)
                    assert parts == theirs.apply(copy.deepcopy(row), truncate=truncate), template
                    assert choices == (
                        None
                        if template.answer_choices is None
                        else tuple(theirs.get_answer_choices_list(row))
                    )
                    compared += 1
    assert compared > 2800


def test_every_genuine_template_compiles(real_data):
    count = 0
    for path in (real_data / "promptsource" / "templates").rglob("templates.yaml"):
        for template in read_templates(path):
            Renderer(template.jinja, template.answer_choices)
            count += 1
    assert count == 2001
