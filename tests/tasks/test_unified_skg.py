"""UnifiedSKG: every set in its genuine format, serialised as the paper prints it; bad files told by name."""

import gzip
import itertools
import json
import pickle
import sqlite3

import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.errors import InputError
from tasks import unified_skg
from tasks.unified_skg import descriptions
from tasks.unified_skg.serialisation import fit_rows, linear_table, normal_sql
from tests.tasks import registered


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


SCHEMA = {
    "db_id": "Pets",
    "table_names_original": ["Pet", "Owner"],
    "column_names_original": [[-1, "*"], [0, "Id"], [0, "Kind"], [1, "Name"]],
}
TURNS = [
    {"utterance": "List pets.", "query": "SELECT  * FROM Pet"},
    {"utterance": "How many?", "query": 'SELECT count(*) , Kind FROM Pet WHERE Kind = "Cat"'},
]
GRAIL_NODES = [
    {"node_type": "class", "id": "music.song", "question_node": 1},
    {"node_type": "entity", "id": "m.01", "friendly_name": "Ann Lee", "question_node": 0},
]
GRAIL = {
    "qid": 7,
    "question": "which song did ann lee write?",
    "graph_query": {"nodes": GRAIL_NODES, "edges": [{"relation": "music.song.writer"}]},
    "s_expression": "(AND music.song (JOIN music.song.writer m.01))",
}
WIKISQL_TABLE = {
    "id": "1-1",
    "header": ["Team", "Points"],
    "types": ["text", "real"],
    "rows": [["Reds", 3], ["Blues", 12], ["Greens", 7.5]],
}
TOTTO_CELL = {"column_span": 1, "row_span": 1, "is_header": False}
TOTTO = {
    "example_id": 3,
    "table_page_title": "Ann",
    "table_section_title": "Films",
    "table": [
        [
            {**TOTTO_CELL, "value": "Year", "is_header": True},
            {**TOTTO_CELL, "value": "Film", "is_header": True},
        ],
        [{**TOTTO_CELL, "value": "1999", "is_header": True}, {**TOTTO_CELL, "value": "Dusk"}],
    ],
    "highlighted_cells": [[1, 1]],
    "sentence_annotations": [
        {"final_sentence": "Ann was in Dusk in 1999."},
        {"final_sentence": "Dusk, 1999."},
    ],
}
MMQA_TABLE = {
    "id": "t1",
    "title": "Films",
    "table": {
        "table_name": "List",
        "header": [{"column_name": "Year"}, {"column_name": "Film"}],
        "table_rows": [[{"text": "1999"}, {"text": "Dusk"}]],
    },
}
MMQA = {
    "qid": "q1",
    "question": "Which film?",
    "metadata": {"type": "Compose(TextQ,TableQ)"},
    "supporting_context": [{"doc_id": "t1", "doc_part": "table"}, {"doc_id": "x1", "doc_part": "text"}],
    "answers": [{"answer": "Dusk"}],
}
HYBRID_TABLE = {
    "header": [["Year", []], ["Film", []]],
    "data": [[["1999", []], ["Dusk", ["/wiki/Dusk_(film)"]]]],
}
HYBRID = {
    "question_id": "h1",
    "question": "Who made it?",
    "table_id": "T_0",
    "answer-text": "Ann Lee",
    "answer-node": [["Ann Lee", [0, 1], "/wiki/Dusk_(film)", "passage"]],
}
WOZ_STATE = {
    "hotel": {
        "book": {"booked": [], "stay": "2", "day": ""},
        "semi": {"area": "not mentioned", "pricerange": "cheap", "internet": "do n't care"},
    }
}
WOZ = [{"text": "A cheap hotel .", "metadata": {}}, {"text": "Which area ?", "metadata": WOZ_STATE}]
WOZ_ONTOLOGY = {
    "hotel-price range": ["cheap", "dear"],
    "hotel-book stay": ["2"],
    "hotel-area": [str(number) for number in range(11)],
    "hotel-internet": ["yes"],
    "hospital-department": ["x"],
}
WOZ_SOURCE = (
    "ontology: hotel-pricerange: cheap, dear; hotel-book stay: 2; hotel-area: none; hotel-internet: yes;\n"
    "dialogue history: a cheap hotel .\ndialogue state:"
)
WOZ_TARGET = "hotel pricerange cheap, hotel book stay 2, hotel area none, hotel internet dontcare"
WEBNLG = (
    '<benchmark><entries><entry eid="1"><modifiedtripleset><mtriple>Ann_Lee | birthPlace | New_York</mtriple>'
    "</modifiedtripleset><lex><text>Ann Lee is from New York.</text></lex><lex>She is from there.</lex>"
    "</entry></entries></benchmark>"
)
TABLE = "table: col : team | points row 1 : reds | 3 row 2 : blues | 12 row 3 : greens | 7.5\n"
KG = "knowledge graph: "

#: Set, its files, the example that they make: split, source, references.
SETS = {
    "spider": (
        {
            "tables.json": json.dumps([SCHEMA]),
            "train_spider.json": json.dumps(
                [{"db_id": "Pets", "question": "How many?", "query": "SELECT Id"}]
            ),
            "train_others.json.gz": gzip.compress(
                json.dumps(
                    [{"db_id": "Pets", "question": "Names?", "query": "SELECT Name FROM Owner"}]
                ).encode()
            ),
        },
        "train",
        "database: | pets | pet : id , kind | owner : name\nquestion: Names?\nSQL query:",
        ("select name from owner",),
    ),
    "sparc": (
        {
            "tables.json": json.dumps([SCHEMA]),
            "dev.json": json.dumps([{"database_id": "Pets", "interaction": TURNS}]),
        },
        "validation",
        "database: | pets | pet : id , kind | owner : name\n"
        "question sequence: How many? || List pets.\nSQL query:",
        ('select count(*), kind from pet where kind = "Cat"',),
    ),
    "cosql": (
        {
            "tables.json": json.dumps([SCHEMA]),
            "sql_state_tracking/cosql_train.json": json.dumps(
                [{"database_id": "Pets", "interaction": TURNS[:1]}]
            ),
        },
        "train",
        "database: | pets | pet : id , kind | owner : name\nquestion sequence: List pets.\nSQL query:",
        ("select * from pet",),
    ),
    "grailqa": (
        {"grailqa_v1.0_dev.json": json.dumps([GRAIL])},
        "validation",
        f"{KG}ann lee: m.01 | music.song.writer music.song\nquestion: which song did ann lee write?\nKG query:",
        ("(AND music.song (JOIN music.song.writer m.01))",),
    ),
    "webqsp": (
        {
            "train.jsonl": lines(
                {"ID": "0", "question": "q", "s_expression": "null", "kg_tuples": [], "entities": []},
                {
                    "ID": "1",
                    "question": "who is ann?",
                    "answers": [["m.02", "Al"]],
                    "s_expression": "(JOIN people.sibling m.01)",
                    "kg_tuples": [["m.01", "people.sibling", "m.02"], ["m.02", "people.name", "Al"]],
                    "entities": [["ann", "m.01"]],
                },
            )
        },
        "train",
        f"{KG}ann: m.01 | m.01 people.sibling m.02 | m.02 people.name Al\nquestion: who is ann?\nKG query:",
        ("(JOIN people.sibling m.01)",),
    ),
    "compwebq": (
        {
            "test.jsonl": lines(
                {
                    "ID": "1",
                    "question": "who?",
                    "answers": ["Al", "Bo"],
                    "KG_tuples": [["Ann", "sibling", "Al"]],
                }
            )
        },
        "test",
        f"{KG}Ann sibling Al\nquestion: who?\nanswer:",
        ("Al, Bo",),
    ),
    "mtop": (
        {
            "en/train.txt": "1\tIN:GET_INFO\ts\tu\td\ten_XX\t[IN:GET_INFO [IN:SET_ALARM ] ]\t"
            '{"tokens": ["u"]}\n',
            "en/eval.txt": "2\tIN:GET_ALARM\ts\tWake me\talarm\ten_XX\t[IN:GET_ALARM Wake ]\t"
            '{"tokens": ["Wake", "me"]}\n',
        },
        "validation",
        "API calls: IN:GET: INFO | IN:SET: ALARM\nquestion: Wake me\nAPI query:",
        ("[IN:GET_ALARM Wake ]",),
    ),
    "wikisql": (
        {
            "train.tables.jsonl": lines(WIKISQL_TABLE),
            "train.jsonl": lines(
                {
                    "table_id": "1-1",
                    "question": "Which teams have over 5?",
                    "sql": {"sel": 0, "agg": 0, "conds": [[1, 1, "5"]]},
                }
            ),
        },
        "train",
        f"{TABLE}question: which teams have over 5?\nanswer:",
        ("blues, greens",),
    ),
    "sqa": (
        {
            "table_csv/203_1.csv": 'Team,Points\nReds,"3"\n"Blues ""B""",12\n',
            "test.tsv": "id\tannotator\tposition\tquestion\ttable_file\tanswer_coordinates\tanswer_text\n"
            "nt-1\t0\t0\twhich teams?\ttable_csv/203_1.csv\t['(0, 0)']\t['Reds', 'Blues']\n"
            "nt-1\t0\t1\tthe best?\ttable_csv/203_1.csv\t['(1, 0)']\t['Blues']\n",
        },
        "test",
        'table: col : team | points row 1 : reds | 3 row 2 : blues "b" | 12\n'
        "question: the best? || which teams?\nanswer:",
        ("blues",),
    ),
    "hybridqa": (
        {
            "WikiTables-WithLinks/tables_tok/T_0.json": json.dumps(HYBRID_TABLE),
            "WikiTables-WithLinks/request_tok/T_0.json": json.dumps(
                {"/wiki/Dusk_(film)": "It is a film . One . Made by Ann Lee in 1999 . It won . It lost ."}
            ),
            "train.traced.json": json.dumps([HYBRID]),
        },
        "train",
        "table: col : year | film row 1 : 1999 | dusk "
        "passages: dusk (film): one . made by ann lee in 1999 . it won .\n"
        "question: who made it?\nanswer:",
        ("ann lee",),
    ),
    "mmqa": (
        {
            "MMQA_tables.jsonl": lines(MMQA_TABLE),
            "MMQA_texts.jsonl": lines({"id": "x1", "title": "Dusk", "text": "A film."}),
            "MMQA_dev.jsonl": lines({**MMQA, "qid": "q0", "metadata": {"type": "ImageQ"}}, MMQA),
        },
        "validation",
        "table: films | list col : year | film row 1 : 1999 | dusk dusk. a film.\nquestion: which film?\nanswer:",
        ("dusk",),
    ),
    "totto": (
        {"totto_train_data.jsonl": lines(TOTTO)},
        "train",
        "table fact: <page_title> Ann </page_title> <section_title> Films </section_title> <table> <cell> Dusk "
        "<col_header> Film </col_header> <row_header> 1999 </row_header> </cell> </table> \ntextual description:",
        ("Ann was in Dusk in 1999.", "Dusk, 1999."),
    ),
    "multiwoz": (
        {
            "ontology.json": json.dumps(WOZ_ONTOLOGY),
            "data.json": json.dumps(
                {"A1.json": {"log": WOZ}, "A2.json": {"log": WOZ}, "A3.json": {"log": WOZ}}
            ),
            "valListFile.txt": "A2.json\n",
            "testListFile.txt": "A3.json\n",
        },
        "train",
        WOZ_SOURCE,
        (WOZ_TARGET,),
    ),
    "feverous": (
        {
            "feverous_wikiv1.db": None,
            "feverous_dev_challenges.jsonl": lines(
                {
                    "id": 1,
                    "claim": "No table.",
                    "label": "REFUTES",
                    "evidence": [{"content": ["Ann Lee_sentence_0"]}],
                },
                {
                    "id": 2,
                    "claim": "Ann made Dusk.",
                    "label": "SUPPORTS",
                    "evidence": [
                        {"content": ["Ann Lee_cell_0_1_0", "Ann Lee_sentence_0", "Ann Lee_item_1_0"]}
                    ],
                },
            ),
        },
        "validation",
        "evidence: col : film row 1 : dusk ann is a maker. the first\nstatement: ann made dusk.\n"
        "supports, refutes or not enough info:",
        ("supports",),
    ),
    "sql2text": (
        {"dev.json": json.dumps([{"query": "SELECT count(*) FROM pet", "question": "How many pets? "}])},
        "validation",
        "SQL: SELECT count(*) FROM pet\nquery in natural language:",
        ("How many pets?",),
    ),
    "logic2text": (
        {
            "valid.json": json.dumps(
                [
                    {
                        "topic": "teams",
                        "table_header": ["team", "points"],
                        "logic_str": "eq { hop { all_rows ; team } ; reds } = true",
                        "sent": "reds are a team .",
                    }
                ]
            )
        },
        "validation",
        "table: Caption: teams | team, points\nquery: eq { hop { all_rows ; team } ; reds } = true\n"
        "query description:",
        ("reds are a team .",),
    ),
    "webnlg": (
        {"en/test/testdata.xml": WEBNLG},
        "test",
        "triples: Ann Lee : birthPlace : New York\ntextual description:",
        ("Ann Lee is from New York.", "She is from there."),
    ),
}


def write(home, name, files):
    """Writes a set's files into a data directory."""
    folder = home / "unified_skg" / name
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            write_pages(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def write_pages(path):
    page = {
        "table_0": {"table": [[{"value": "Film"}], [{"value": "[[Dusk_(film)|Dusk]]"}]]},
        "sentence_0": "Ann is a [[maker]].",
        "list_1": {"list": [{"id": "item_1_0", "value": "The first"}]},
    }
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE wiki (id TEXT, data TEXT)")
        database.execute("INSERT INTO wiki VALUES (?, ?)", ("Ann Lee", json.dumps(page)))


@pytest.mark.parametrize("name", SETS)
def test_a_set_in_its_documented_format_is_serialised_as_printed(name, tmp_path):
    files, split, source, references = SETS[name]
    write(tmp_path, name, files)
    unified_skg.register(str(tmp_path))
    assert list(registry.names()) == [f"unified_skg.{name}"]
    example = registered.read_all()[f"unified_skg.{name}"][split][-1]
    assert (example.source, example.references) == (source, references)
    card = registry.card(f"unified_skg.{name}")
    assert ("accuracy" in card.metrics) == bool(example.candidates) == ("rouge_l" not in card.metrics)
    assert not example.candidates or example.target in example.candidates


def test_all_21_sets_of_the_paper_are_defined():
    names = [name for name, definition in unified_skg.definitions().items() if not definition.get("extra")]
    assert len(names) == 21
    # What the real data lack is tried on small files above.
    real = {"wikitq", "fetaqa", "dart", "kvret", "tab_fact"}
    assert set(names) - set(SETS) == real


def test_every_real_file_is_read_and_its_examples_counted(real_data):
    unified_skg.register(str(real_data))
    tasks = registered.read_all()
    examples = {
        name.removeprefix("unified_skg."): [*itertools.chain(*splits.values())]
        for name, splits in tasks.items()
    }
    counts = {name: len(found) for name, found in examples.items()}
    # The manifest counts dialogues where every turn is an example, and E2E's rows where rows with the same
    # meaning are references of one example.
    for name in ("sparc", "cosql", "multiwoz", "kvret"):
        groups = {
            (split, e.uid.rpartition("-")[0])
            for split, es in tasks[f"unified_skg.{name}"].items()
            for e in es
        }
        assert len(groups) < counts[name]
        counts[name] = len(groups)
    paths = (real_data / "unifiedskg" / "e2e").glob("*.csv")
    counts["e2e"] = sum(
        len(record.references) for path in paths for record in descriptions.e2e(path.parent, path, {})
    )
    known = registered.manifest(real_data, "unifiedskg")
    assert counts == {group.split(" ")[0]: number for group, number in known.items()}
    for name, found in examples.items():
        for example in found:
            assert example.target.strip() and example.source.endswith(":"), name


def test_real_prompts_look_as_printed(real_data):
    unified_skg.register(str(real_data))
    first = {
        name.partition(".")[2]: next(iter(registered.read(name).values()))[0] for name in registry.names()
    }
    assert first["spider"].source.startswith(
        "database: | concert_singer | stadium : stadium_id , location , name"
    )
    assert first["spider"].source.endswith("\nquestion: What is the total number of singers?\nSQL query:")
    assert first["spider"].target == "select count(*) from singer"
    assert first["dart"].source == (
        "triples: Mars Hill College : joined : 1973 | Mars Hill College : location : Mars Hill, North Carolina\n"
        "textual description:"
    )
    assert first["fetaqa"].source.startswith(
        "table: pooja ramachandran | filmography col : year | film | role |"
    )
    assert " row 1 : 2002 | yathrakarude sradhakku | - | malayalam | - row 2 : " in first["fetaqa"].source
    assert first["tab_fact"].candidates == ("entailed", "refuted")
    assert first["hybridqa"].source.startswith("question: what place was achieved")


def test_wikitq_tables_are_the_same_in_both_of_their_forms(real_data):
    """The .tsv beside each .csv escapes otherwise; both must tell the same table."""
    from tasks.unified_skg import tables

    home = real_data / "unifiedskg" / "wikitq" / "csv"
    paths = sorted(home.glob("*/*.csv"))
    for path in paths:
        rows = path.with_suffix(".tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
        told = [[tables._unescape(cell) for cell in row.split("\t")] for row in rows]
        assert tables._csv_table(path, escapechar="\\") == told, path.name
    assert len(paths) == 100


@pytest.mark.parametrize(
    ("query", "answers"),
    [
        ({"sel": 0, "agg": 0, "conds": [[0, 0, "REDS"]]}, ["Reds"]),
        ({"sel": 1, "agg": 1, "conds": []}, ["12"]),
        ({"sel": 1, "agg": 2, "conds": []}, ["3"]),
        ({"sel": 0, "agg": 3, "conds": [[1, 2, 10]]}, ["2"]),
        ({"sel": 1, "agg": 4, "conds": []}, ["22.5"]),
        ({"sel": 1, "agg": 5, "conds": []}, ["7.5"]),
        ({"sel": 1, "agg": 5, "conds": [[0, 0, "none such"]]}, ["none"]),
        ({"sel": 0, "agg": 4, "conds": []}, ["0"]),
        ({"sel": 0, "agg": 0, "conds": [[1, 0, "7.5 points"]]}, ["Greens"]),
    ],
)
def test_wikisql_queries_are_run(query, answers):
    assert unified_skg.tables.answers_of(query, WIKISQL_TABLE["types"], WIKISQL_TABLE["rows"]) == answers


def test_long_tables_lose_the_rows_with_least_in_common():
    header, rows = ["name", "town"], [[f"n{number}", "far away"] for number in range(50)]
    rows[30][1] = "in Rome"
    kept = fit_rows(header, rows, "Who is in rome?", 300)
    assert len(linear_table(header, kept)) <= 300 < len(linear_table(header, rows))
    assert ["n30", "in Rome"] in kept and kept == [row for row in rows if row in kept]
    assert rows[0] in kept and rows[49] not in kept
    assert fit_rows(header, rows, "", 0) == rows


def test_sql_keeps_quoted_values():
    assert normal_sql("SELECT Name ,  Age FROM T WHERE a = 'Big  Cat' AND b = \"X\"") == (
        "select name, age from t where a = 'Big Cat' and b = \"X\""
    )


BAD = {
    "spider": (
        {"tables.json": "[]", "dev.json": json.dumps([{"db_id": "x", "question": "q"}])},
        "unknown database",
    ),
    "dart": ({"dart-v1.1.1-full-dev.json": '[{"tripleset": [["a"]], "annotations": []}]'}, "is none"),
    "fetaqa": ({"fetaQA-v1_dev.jsonl": '{"question": "q"}\n'}, "table_array"),
    "wikitq": (
        {"data/random-split-1-dev.tsv": "id\tutterance\tcontext\ttargetValue\n1\tq\tcsv/no.csv\ta\n"},
        r"no\.csv.*cannot be read",
    ),
    "wikisql": (
        {
            "dev.tables.jsonl": lines(WIKISQL_TABLE),
            "dev.jsonl": lines(
                {"table_id": "1-1", "question": "q", "sql": {"sel": 9, "agg": 1, "conds": []}}
            ),
        },
        r"dev\.jsonl:1.*'sql'",
    ),
    "sqa": (
        {
            "table_csv/1.csv": "a\nb\n",
            "test.tsv": "id\tposition\tquestion\ttable_file\tanswer_text\n"
            "x\t0\tq\ttable_csv/1.csv\t__import__('os')\n",
        },
        r"test\.tsv:2.*no list of texts",
    ),
    "tab_fact": (
        {"tokenized_data/val_examples.json": '{"t.csv": [["a"], [2], "c"]}', "data/all_csv/t.csv": "a#b\n"},
        r"'t\.csv'",
    ),
    "kvret": ({"kvret_dev_public.json": '[{"scenario": {}}]'}, "'kb'"),
    "multiwoz": ({"ontology.json": "{}", "val.json": '{"A": {"log": [{"text": "a"}]}}'}, "'metadata'"),
    "feverous": (
        {
            "feverous_wikiv1.db": None,
            "feverous_dev_challenges.jsonl": lines(
                {"id": 1, "claim": "c", "label": "REFUTES", "evidence": [{"content": ["Bo_cell_0_0_0"]}]}
            ),
        },
        "evidence not found",
    ),
    "hybridqa": (
        {
            "WikiTables-WithLinks/a": "",
            "dev.json": json.dumps([{**HYBRID, "table_id": "../../../secret"}]),
        },
        "leads out of the set's folder",
    ),
    "mtop": ({"en/test.txt": "1\ta\tb\tc\td\te\tf\tno json\n"}, r"test\.txt:1.*tokens as JSON"),
    "webnlg": ({"en/test/a.xml": "<a><entry>"}, "is not XML"),
    "totto": (
        {"totto_dev_data.jsonl": lines({**TOTTO, "highlighted_cells": [[9, 9]]})},
        "cells that the table lacks",
    ),
    "mmqa": (
        {"MMQA_dev.jsonl": lines(MMQA), "MMQA_texts.jsonl": lines({"id": "x1"})},
        "MMQA_tables.*is missing",
    ),
    "e2e": ({"devset.csv": "meaning,text\na,b\n"}, "columns mr and ref"),
    "logic2text": ({"test.json": "[]"}, "holds no example"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_by_name(name, tmp_path):
    files, problem = BAD[name]
    folder = write(tmp_path, name, files)
    unified_skg.register(str(tmp_path))
    with pytest.raises(InputError, match=problem) as caught:
        registered.read(f"unified_skg.{name}")
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"a": ', b"[1, 2]", b'{"a": 1}', b'[{"a": [1]}]'])
def test_hostile_files_raise_nothing_else(content, tmp_path):
    for name, (files, *_) in SETS.items():
        write(tmp_path, name, {file: content for file in files if not file.endswith(".gz")})
    unified_skg.register(str(tmp_path))
    assert len(registry.names()) == len(SETS)
    for name in registry.names():
        for split in seqio_bridge.describe_source(name)[0]:
            with pytest.raises(InputError):
                list(seqio_bridge.read_fields(name, split))


def test_registration_needs_a_set_and_reads_nothing(tmp_path):
    with pytest.raises(InputError, match=r"no set of UnifiedSKG.*data_dir"):
        unified_skg.register(str(tmp_path))
    (tmp_path / "spider").mkdir()
    (tmp_path / "spider" / "dev.json").write_text("not read")
    unified_skg.register(str(tmp_path))
    task = unified_skg.StructuredTask("spider", tmp_path, {})
    assert pickle.loads(pickle.dumps(task)).name == "spider"
    assert registry.card("unified_skg.spider").instruction_level == "keywords"
