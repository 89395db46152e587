"""The report in a real browser, from disk; skipped where there is no Chromium."""

import itertools

import pytest

from iml.evaluation.reports import curve_report, report
from iml.evaluation.reports.curve import draw
from iml.evaluation.results.result import Result
from iml.evaluation.scores.aggregation import aggregate
from tests.browser import chromium
from tests.evaluation.predictions import make_card, make_predictions
from tests.evaluation.reports.test_report import HEADER, make_result

HOSTILE = (
    "</script><script>window.owned = 1</script></style><img src=x onerror='window.owned = 2'>"
    "<details open ontoggle='window.owned = 3'>\"'`&amp; \ud800\u202e</pre>"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.MISSING:
        pytest.skip(chromium.MISSING)
    with chromium.chromium(str(tmp_path_factory.mktemp("profile"))) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of two results, and a curve; text, names and labels are hostile."""
    folder = tmp_path_factory.mktemp("report")
    hostile = {"prompt": HOSTILE, "prediction": HOSTILE, "references": [HOSTILE], "category": HOSTILE}
    results = [
        Result(f"{title} {HOSTILE}", *make_result(scores, {**HEADER, "model": HOSTILE}, **hostile))
        for title, scores in (("first", [20, 100]), ("second", [100, 100]))
    ]
    report.write_report(folder, results)
    curve_report.write_curve(folder, draw(dict(enumerate(results))))
    return folder


def test_hostile_data_do_nothing_and_are_shown(browser, folder):
    for name, scripts in ((report.PAGE, 1), (curve_report.PAGE, 0)):
        browser.open((folder / name).as_uri())
        state = browser.run(
            "return {owned: window.owned ?? null, scripts: document.scripts.length, "
            "foreign: document.querySelectorAll('img, iframe, pre *, [onerror], [ontoggle]').length, "
            "loaded: performance.getEntriesByType('resource').length}"
        )
        assert state == {"owned": None, "scripts": scripts, "foreign": 0, "loaded": 0}
        assert browser.errors() == []
    browser.open((folder / report.PAGE).as_uri())
    assert "</script><script>window.owned" in browser.run("return document.querySelector('pre').textContent")


def test_tasks_are_narrowed_down(browser, folder):
    shown = (
        "return Array.from(document.querySelectorAll('details.task:not([hidden]) > summary'), "
        "(summary) => summary.firstChild.data)"
    )
    browser.open((folder / report.PAGE).as_uri())
    assert browser.run(shown) == ["a.held", "a.known"]
    browser.type("#filter input", "HELD window.owned")
    chromium.wait_until(lambda: browser.run(shown) == ["a.held"])
    assert browser.run("return document.getElementById('count').textContent") == "1 of 2 tasks"
    browser.open((folder / report.PAGE).as_uri())
    choose = (
        "const e = document.getElementById('filter').elements[arguments[0]]; e.value = arguments[1]; "
        "e.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    browser.run(choose, "level", "supervised")
    assert browser.run(shown) == ["a.known"]
    browser.run(choose, "level", "")
    browser.run(choose, "answers", "right")
    hidden = browser.run("return document.querySelectorAll('.task .sample[hidden]').length")
    assert hidden and browser.run("return document.querySelectorAll('.task .sample:not([hidden])').length")


def test_pages_fit_narrow_and_wide_light_and_dark(browser, folder):
    for width, scheme, background in (
        (390, "dark", "rgb(20, 23, 27)"),
        (1400, "light", "rgb(255, 255, 255)"),
    ):
        browser.emulate(width, scheme)
        for name in (report.PAGE, curve_report.PAGE):
            browser.open((folder / name).as_uri())
            browser.run("for (const e of document.querySelectorAll('details')) e.open = true")
            state = browser.run(
                "return {width: document.documentElement.scrollWidth, unnamed: Array.from("
                "document.querySelectorAll('input, select'), (e) => e.labels.length).includes(0), "
                "silent: document.querySelectorAll('svg:not([aria-label]):not([aria-hidden])').length, "
                "background: getComputedStyle(document.body).backgroundColor, "
                "dead: Array.from(document.querySelectorAll('a'), (a) => a.hash).filter("
                "(hash) => !document.getElementById(decodeURIComponent(hash.slice(1)))), "
                "headings: Array.from(document.querySelectorAll('h1,h2,h3,h4,h5'), (h) => +h.tagName[1])}"
            )
            assert state["width"] <= width and state["background"] == background
            assert not state["unnamed"] and not state["silent"] and not state["dead"]
            assert state["headings"].count(1) == 1 and state["headings"][0] == 1
            assert all(after <= before + 1 for before, after in itertools.pairwise(state["headings"]))


def test_the_keyboard_reaches_scores_and_tasks(browser, folder):
    browser.open((folder / report.PAGE).as_uri())
    browser.press("\ue004", "\ue007")
    assert browser.run("return location.hash") == "#levels"
    browser.run("document.querySelector('details.task summary').focus()")
    browser.press("\ue007")
    assert browser.run("return document.querySelector('details.task').open")


@pytest.mark.slow
def test_many_tasks_make_a_small_page_that_is_searched_quickly(browser, tmp_path):
    names = [f"flan.task_{i}" for i in range(1500)]
    cards = {name: make_card(name, category=f"Category {i % 90}") for i, name in enumerate(names)}
    levels = {name: ("supervised", "fully_held_out")[i % 2] for i, name in enumerate(names)}
    shots = {number: [0, 100] * 10 for number in (0, 5)}
    lines = [line for name in names for line in make_predictions(name, shots, prompt="word " * 1500)]
    result = Result("many", aggregate(lines, cards, levels, HEADER, resamples=10), lines)
    _, page = report.write_report(tmp_path, [result])
    assert page.stat().st_size < 8e6
    browser.open(page.as_uri())
    looks = browser.run(
        chromium.COUNT_LOOKS + "const words = document.getElementById('filter').elements.words; "
        "words.value = 'task_149'; words.dispatchEvent(new Event('input', {bubbles: true})); return looks"
    )
    assert browser.run("return document.getElementById('count').textContent") == "11 of 1500 tasks"
    assert looks <= 1500  # once at each task
