"""The bench's Table 1: what its figures count, beside the paper's, and a page that data cannot break out of."""

import html.parser
import io
import json

import numpy as np
import pytest
from rich.console import Console

from iml.bench.card import BENCHMARKS, Example
from iml.bench.levels import SETS, SplitScheme, load_split_scheme
from iml.bench.statistics import Lengths, count_words, paper, statistics
from iml.statistics_page import page, print_statistics, write_statistics
from tests.stores import make_store


def examples(count, templates=(("", "a b c"),)):
    return [
        Example(f"u{i}", f"{words}" + " w" * i, "x", template=name, instruction="do it")
        for i in range(count)
        for name, words in templates
    ]


@pytest.fixture
def store(tmp_path):
    two = (("t1", "a b"), ("t2", "a b c d"))
    card = {"category": "Question Answering"}
    return make_store(
        tmp_path,
        {
            "flan.bool_q": {"card": card, "train": examples(4, two), "validation": examples(2, two)},
            "flan.squad_v1": {"card": card, "train": examples(3), "validation": examples(2)},
            "flan.copa": {
                "card": {"category": "Cause Effect Classification"},
                "train": examples(5),
                "validation": examples(1),
            },
            "mmlu.law": {"card": {"category": "MMLU"}, "test": examples(6)},
            "pretraining.c4": {"card": {"category": "Language Modeling"}, "train": [("", "plain text")] * 3},
        },
    )


def test_rows_count_what_their_columns_say(store):
    found = statistics(store.tasks.values(), load_split_scheme("opt_iml"))
    assert list(found.families) == ["flan", "mmlu", "pretraining"] and list(found.sets) == list(SETS)
    flan = found.families["flan"]
    assert (flan.clusters, flan.tasks, flan.examples, flan.rows) == (2, 3, 17, 23)
    assert flan.prompts == pytest.approx((2 + 1 + 1) / 3)
    lengths = [
        count_words(store.read(name, split, row))
        for name, entry in store.tasks.items()
        if name.startswith("flan.")
        for split, info in entry.splits.items()
        for row in range(info.rows)
    ]
    assert flan.mean == pytest.approx(np.mean(lengths)) and flan.deviation == pytest.approx(np.std(lengths))

    assert (found.families["pretraining"].examples, found.families["pretraining"].mean) == (3, 0)

    # BoolQ and COPA are held out, SQuAD both trains and validates, MMLU does either evaluation.
    train, validation, test = (found.sets[name] for name in SETS)
    assert (train.tasks, train.examples, train.clusters) == (1, 3, 1)
    assert (validation.tasks, validation.examples) == (3, 2 + 1 + 6)
    assert (test.tasks, test.examples, test.rows) == (2, 2 + 6, 4 + 6)
    most = statistics(store.tasks.values(), load_split_scheme("opt_iml_max"))
    assert most.sets["train"].tasks == 3, "neither MMLU nor what has no prompts"
    unlisted = statistics(store.tasks.values(), SplitScheme("own", ("MMLU",)))
    assert (unlisted.sets["train"].tasks, unlisted.sets["validation"].tasks) == (3, 1)


def test_lengths_add_up_and_are_exact_where_floats_are_not():
    values = [10**9 + i % 7 for i in range(1000)]
    parts = [Lengths(len(part), sum(part), sum(v * v for v in part)) for part in (values[:3], values[3:])]
    whole = sum(parts, Lengths())
    assert whole.mean == pytest.approx(np.mean(values)) and whole.deviation == pytest.approx(np.std(values))
    assert Lengths().mean is None and Lengths().deviation is None
    assert count_words(Example("1", " a\tb\n", "x", instruction="c  d")) == 4


def test_the_papers_rows_are_those_of_table_1():
    families, sets = paper()
    assert tuple(families) == BENCHMARKS and tuple(sets) == SETS
    assert sum(row.tasks for row in families.values()) == 2207
    assert sum(row.tasks for row in sets.values()) == 1667
    assert sum(row.clusters for row in sets.values()) == 110


class Texts(html.parser.HTMLParser):
    """Collects a page's elements and text; raises where tags do not match."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_and_the_text_show_both_tables(store, tmp_path):
    scheme = load_split_scheme("opt_iml")
    found = statistics(store.tasks.values(), scheme)
    write_statistics(tmp_path, found)
    record = json.loads((tmp_path / "statistics.json").read_text())
    assert record["families"]["flan"]["examples"] == 17
    assert record["paper"]["families"]["flan"]["examples"] == 4_400_000
    assert (record["unit"], record["split_scheme"]) == ("words", "opt_iml")
    shown = Texts((tmp_path / "statistics.html").read_text())
    assert {"FLAN", "4.4M", "17.9M", "321K", "17", "bench: train"} <= set(shown.text)
    out = io.StringIO()
    print_statistics(Console(file=out, width=80), found)
    assert all(len(line) <= 80 for line in out.getvalue().splitlines())
    assert "4.4M" in out.getvalue() and "17.9M" in out.getvalue()
    # The paper's sets are those of its own split alone.
    other = io.StringIO()
    print_statistics(Console(file=other, width=80), statistics(store.tasks.values(), SplitScheme("own")))
    assert "4.4M" in other.getvalue() and "17.9M" not in other.getvalue()


def test_names_are_text_on_the_page(tmp_path):
    entry = make_store(tmp_path, {"own.x": {"train": [("a", "b")]}}).tasks["own.x"]
    object.__setattr__(entry.card, "benchmark", "<script>alert(1)</script>")
    shown = Texts(page(statistics([entry], SplitScheme("<b>own"))))
    assert not {"script", "b"} & set(shown.tags)
    assert "<script>alert(1)</script>" in shown.text
