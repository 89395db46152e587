"""Exact set match and execution accuracy, held against the verdicts of Spider's own scorer."""

import itertools
import json
import pathlib
import sqlite3

import pytest
from etils import epath

from iml.errors import InputError
from iml.evaluation import metrics
from iml.evaluation.engines.engine import Generated, tell_nobody
from iml.evaluation.metrics import METRICS, Answer, NotComputable, measure, score
from iml.evaluation.metrics.sql.execution import same_results, same_rows
from iml.evaluation.requests import select
from iml.evaluation.runner import Runner
from iml.evaluation.scores.aggregation import aggregate
from iml.evaluation.suites import Suite
from tests.evaluation.predictions import make_card, make_prediction
from tests.stores import make_store

SPIDER = json.loads((pathlib.Path(__file__).parent / "spider_verdicts.json").read_text())
METRIC_DATA = json.dumps(
    {"database": "shop", "columns": SPIDER["columns"], "foreign_keys": SPIDER["foreign_keys"]}
)


@pytest.fixture
def databases(tmp_path):
    """A folder with the one database of the verdicts."""
    path = tmp_path / "shop" / "shop.sqlite"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    for table, columns in SPIDER["columns"].items():
        connection.execute(f"create table {table} ({', '.join(columns)})")
        places = ", ".join("?" * len(columns))
        connection.executemany(f"insert into {table} values ({places})", SPIDER["rows"][table])
    connection.commit()
    connection.close()
    return tmp_path


def answer(prediction, reference, databases=""):
    return Answer(prediction, [reference], metric_data=METRIC_DATA, databases=str(databases))


def test_verdicts_are_those_of_spiders_scorer(databases):
    answers = [answer(found, right, databases) for found, right, *_ in SPIDER["verdicts"]]
    for name, place in (("exact_set_match", 2), ("execution", 3)):
        values = METRICS[name].values(answers)
        wrong = [
            (verdict[0], verdict[1])
            for verdict, value in zip(SPIDER["verdicts"], values, strict=True)
            if value != 100 * verdict[place]
        ]
        assert wrong == []


def test_real_queries_match_as_often_as_spiders_scorer_says(real_data):
    from tasks.unified_skg import queries

    home = epath.Path(real_data) / "unifiedskg" / "spider"
    records = list(queries.spider(home, home / "dev.json.gz", {}))
    same = itertools.groupby(sorted(records, key=lambda r: r.metric_data), key=lambda r: r.metric_data)
    answers = [
        Answer(one.references[0], other.references, metric_data=data)
        for data, group in same
        for one, other in itertools.product(list(group), repeat=2)
    ]
    # Of test-suite-sql-eval, commit e97acc5, on the same rows.
    assert len(answers) == 1586 and sum(METRICS["exact_set_match"].values(answers)) == 17800
    right = [Answer(r.references[0], r.references, metric_data=r.metric_data) for r in records]
    assert score("exact_set_match", right) == 100


def test_what_is_missing_is_told_and_never_scored(databases):
    answers = [answer("select 1", "SELECT count(*) FROM Orders")]
    found = measure(("exact_set_match", "execution", "rouge_l"), answers)
    assert found.values.keys() == {"exact_set_match", "rouge_l"}
    uncomputed = found.missing
    assert uncomputed.keys() == {"execution"} and "Suite.databases" in uncomputed["execution"]
    with pytest.raises(NotComputable, match="no databases"):
        measure(("execution", "rouge_l"), answers)
    lines = [make_prediction("t", 0, 0, 0, uncomputed=uncomputed)]
    card = make_card("t", metrics=("rouge_l", "execution"))
    [task] = aggregate(lines, {"t": card}, {"t": "supervised"}, resamples=5)["tasks"].values()
    assert task["uncomputed"] == uncomputed and task["metrics"].keys() == {"rouge_l"}
    (databases / "shop" / "shop.sqlite").unlink()
    for changed, problem in (
        ({"databases": str(databases)}, "no .sqlite"),
        ({"metric_data": ""}, "Prepare the task again"),
        ({"metric_data": METRIC_DATA.replace('"shop"', '"../shop"'), "databases": str(databases)}, "sqlite"),
    ):
        fields = {"metric_data": METRIC_DATA, **changed}
        with pytest.raises(InputError, match=problem):
            METRICS["execution"].values([Answer("select 1", ["select 1"], **fields)])
    with pytest.raises(NotComputable, match="cannot be read"):
        METRICS["exact_set_match"].values([answer("select 1", "no query")])


class Fixed:
    """Always gives one answer."""

    facts = {"engine": "fixed"}  # noqa: RUF012

    def generate(self, sources, decoding, parts=None, tell=tell_nobody):
        answers = [Generated("SELECT count(Id) FROM Orders", (), True, 0)] * len(sources)
        for number, told in enumerate(answers):
            tell(number, told)
        return answers


def test_an_evaluation_runs_queries_where_its_suite_names_databases(databases):
    card = {"metrics": ["rouge_l", "execution"]}
    row = {"source": "how many?", "target": "SELECT count(*) FROM Orders", "metric_data": METRIC_DATA}
    store = make_store(databases, {"t.shop": {"card": card, "validation": [row]}})
    for folder, told in (("", {}), (str(databases), {"execution": 100.0})):
        suite = Suite(shots=(0,), split_scheme="pocket", databases=folder)
        chosen = select(store, suite, 0)
        ran = Runner(Fixed(), store, suite, 0, "fixed").run(chosen, databases / f"out{len(told)}", {})
        [line] = ran.predictions
        assert line["metrics"].keys() == {"rouge_l", *told} and not ran.failures
        assert line["metrics"].get("execution") == told.get("execution")
        assert ("uncomputed" in line) == (not told)


def test_a_right_query_that_fails_is_no_verdict(databases):
    with pytest.raises(NotComputable, match="fails"):
        score("execution", [answer("SELECT 1", "SELECT Nothing FROM Orders", databases)])


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM Orders",
        "DROP TABLE Orders",
        "PRAGMA writable_schema = 1",
        "ATTACH DATABASE '{folder}/other.sqlite' AS other",
        "VACUUM INTO '{folder}/other.sqlite'",
        "SELECT zeroblob(1000000000)",
        "SELECT load_extension('x')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT '\x00'",
        "\udc80",
    ],
)
def test_a_query_may_only_read_and_only_so_long(databases, query):
    path = databases / "shop" / "shop.sqlite"
    before = path.read_bytes()
    # The recursive one would never come to its end.
    assert not same_results(query.format(folder=databases), "SELECT 4", [path], seconds=0.2)
    assert path.read_bytes() == before and sorted(p.name for p in databases.rglob("*.sqlite")) == [path.name]


def test_results_must_agree_in_every_database_of_a_suite(databases):
    path = databases / "shop" / "second.sqlite"
    path.write_bytes((databases / "shop" / "shop.sqlite").read_bytes())
    with sqlite3.connect(path) as connection:
        connection.execute("insert into Orders values (5, 4, 1, 'fri')")
    answers = [answer("SELECT 4", "SELECT count(*) FROM Orders", databases)]
    assert METRICS["execution"].values(answers) == [0]


@pytest.mark.parametrize(
    ("found", "right", "unordered", "ordered"),
    [
        ([(1, "a"), (2, "b")], [("b", 2), ("a", 1)], True, False),
        ([(1, "a"), (2, "b")], [("a", 1), ("b", 2)], True, True),
        ([(1, "a"), (2, "b")], [("b", 1), ("a", 2)], False, False),
        ([(1, 2), (2, 1)], [(1, 1), (2, 2)], False, False),
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False, False),
        ([(1, 1)], [(1,)], False, False),
        ([], [], True, True),
        # Sixteen equal columns have a single order worth a try.
        ([(0,) * 16 + (1, 2), (0,) * 16 + (2, 1)], [(0,) * 16 + (1, 1), (0,) * 16 + (2, 2)], False, False),
    ],
)
def test_columns_may_stand_in_any_order(found, right, unordered, ordered):
    assert (same_rows(found, right, False), same_rows(found, right, True)) == (unordered, ordered)


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("SELECT COUNT Away team FROM table WHERE Home team = richmond AND Week > 3", True),
        ("select count away team from table where week > 3 and home team = Richmond", True),
        ("SELECT COUNT Away team FROM table WHERE Week > 3", False),
        ("SELECT MAX Away team FROM table WHERE Week > 3 AND Home team = Richmond", False),
        ("SELECT COUNT Away team FROM table WHERE Week < 3 AND Home team = Richmond", False),
    ],
)
def test_logical_forms_have_their_conditions_in_any_order(prediction, right):
    reference = "SELECT COUNT Away team FROM table WHERE Week > 3 AND Home team = Richmond"
    assert metrics.score("logical_form", [Answer(prediction, [reference])]) == 100 * right
