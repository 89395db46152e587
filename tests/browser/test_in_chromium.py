"""The pages in a real browser, served and from disk; skipped where there is no Chromium."""

import dataclasses
import itertools
import pathlib
from urllib.parse import quote

import pytest

from iml.browser.catalogue import Catalogue
from iml.browser.export import export
from tests.browser import chromium
from tests.browser.pages import EVIL, PLAIN, RANKED, SHOWN
from tests.stores import make_store


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.MISSING:
        pytest.skip(chromium.MISSING)
    with chromium.chromium(str(tmp_path_factory.mktemp("profile"))) as browser:
        yield browser


@pytest.fixture(params=["served", "exported"])
def root(request):
    if request.param == "served":
        return request.getfixturevalue("server").url
    return f"{request.getfixturevalue('exported').as_uri()}/"


def test_hostile_data_do_nothing_in_a_browser(browser, site, root):
    for path in site.addresses():
        browser.open(root + quote(path, safe="/"))
        state = browser.run(
            "return {owned: window.owned ?? null, title: document.title, url: location.href, "
            "scripts: document.scripts.length, hidden: getComputedStyle(document.body).display, "
            "foreign: document.querySelectorAll('img, iframe, pre svg, style, [onerror], [onload]').length, "
            "loaded: performance.getEntriesByType('resource').map((entry) => entry.name)}"
        )
        assert state["owned"] is None and state["title"].endswith("· iml") and state["url"].startswith(root)
        assert state["scripts"] == (2 if path == "tasks.html" else 0) and state["foreign"] == 0
        assert state["hidden"] == "block"
        assert all(name.startswith(root) for name in state["loaded"])
        # Not even refused: nothing asked to run or to be loaded.
        assert [error for error in browser.errors() if "favicon" not in error] == []
    browser.open(f"{root}task/{EVIL}.html")
    assert SHOWN in browser.run("return document.querySelector('pre').textContent")


def test_search_and_filters_in_a_browser(browser, root):
    shown = "return Array.from(document.querySelectorAll('#tasks tbody tr:not([hidden]) a'), (a) => a.textContent)"
    browser.open(f"{root}tasks.html")
    assert browser.run(shown) == [EVIL, PLAIN, RANKED]
    browser.type("#q", "PARITY tell")
    chromium.wait_until(lambda: browser.run(shown) == [RANKED])
    assert (
        browser.run("return document.querySelector('tr:not([hidden]) .snippet mark').textContent") == "parity"
    )
    assert browser.run("return document.getElementById('count').textContent") == "1 of 3 tasks"
    browser.open(f"{root}tasks.html?q=owned&length=1&level=none&__proto__=x")
    assert browser.run(shown) == [EVIL]
    assert "<script>" in browser.run("return document.querySelector('tr:not([hidden]) .snippet').textContent")
    assert browser.run("return window.owned ?? null") is None
    browser.open(f"{root}index.html")
    browser.type("#q", "flan\ue007")
    chromium.wait_until(lambda: "tasks.html" in browser.run("return location.href"))
    chromium.wait_until(lambda: browser.run(shown) == [PLAIN])
    browser.open(f"{root}index.html")
    browser.click("main a[href*='level=supervised'][href*='scheme=opt_iml_max']")
    assert browser.run(shown) == [EVIL, PLAIN, RANKED]
    assert (
        browser.run("return document.querySelector('#tasks tbody td:nth-child(4)').textContent")
        == "supervised"
    )
    browser.open(f"{root}task/{EVIL}.html")
    browser.click("main a[href*='category=']")
    assert browser.run(shown) == [EVIL]
    assert [error for error in browser.errors() if "favicon" not in error] == []


def test_token_boundaries_by_keyboard(browser, root):
    browser.open(f"{root}task/{PLAIN}.html")
    first = "return getComputedStyle(document.querySelector('pre i')).boxShadow"
    assert browser.run(first) == "none"
    browser.run("document.getElementById('boundaries').focus()")
    browser.press(" ")
    assert browser.run(first) != "none"
    browser.open(f"{root}index.html")
    browser.press("\ue004", "\ue007")
    assert browser.run("return document.activeElement.id") == "main"


def test_pages_fit_narrow_and_wide_light_and_dark(browser, root):
    for width, scheme, background in (
        (360, "dark", "rgb(20, 23, 27)"),
        (1280, "light", "rgb(255, 255, 255)"),
    ):
        browser.emulate(width, scheme)
        for path in ("index.html", "tasks.html", "packing.html", f"task/{PLAIN}.html", f"task/{EVIL}.html"):
            browser.open(root + path)
            state = browser.run(
                "return {width: document.documentElement.scrollWidth, unnamed: Array.from("
                "document.querySelectorAll('input, select'), (e) => e.labels.length).includes(0), "
                "background: getComputedStyle(document.body).backgroundColor, "
                "headings: Array.from(document.querySelectorAll('h1,h2,h3,h4,h5'), (h) => +h.tagName[1])}"
            )
            assert state["width"] <= width and state["background"] == background and not state["unnamed"]
            assert state["headings"].count(1) == 1 and state["headings"][0] == 1
            assert all(after <= before + 1 for before, after in itertools.pairwise(state["headings"]))


@pytest.mark.slow
def test_many_tasks_are_exported_and_searched_quickly(browser, site, tmp_path):
    rows = [(f"What is {i}?", f"It is {i}") for i in range(12)]
    tasks = {f"flan.task_{i}": {"train": rows, "test": rows} for i in range(1700)}
    many = dataclasses.replace(site, catalogue=Catalogue(make_store(tmp_path, tasks), "opt_iml"))
    size = export(many, tmp_path / "pages")
    assert size < 60e6 and len(list(pathlib.Path(tmp_path / "pages" / "task").iterdir())) == 1700
    browser.open(f"{(tmp_path / 'pages').as_uri()}/tasks.html")
    visible = "return document.querySelectorAll('#tasks tbody tr:not([hidden])').length"
    assert browser.run(visible) == 200
    browser.click("#more")
    assert browser.run(visible) == 1700
    assert browser.run("return document.activeElement.textContent") == sorted(tasks)[200]
    looks = browser.run(
        chromium.COUNT_LOOKS + "form.elements.q.value = 'task_169'; form.dispatchEvent(new Event('input')); "
        "return looks"
    )
    assert browser.run("return document.getElementById('count').textContent") == "11 of 1,700 tasks"
    assert looks <= 1700 + 11  # once at each task, and for the words around what is found
