"""The embedded benchmark: reproducible, well formed, and read through readers that hold on genuine files."""

import collections
import gzip
import importlib
import pathlib
import shutil

import pytest

from iml.bench.card import BENCHMARKS, TaskCard
from iml.bench.levels import LEVELS, load_split_scheme
from iml.bench.mixing import EXTRA_SOURCES
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from tasks import pocket
from tasks.pocket import family_readers, generate, readers

HOME = pathlib.Path(generate.__file__).parent
CATALOGUE = pocket.catalogue()
OWN = [entry for entry in CATALOGUE if entry["format"] in readers.READERS]
TEXT = [entry for entry in CATALOGUE if entry["card"]["benchmark"] in EXTRA_SOURCES]
TASKS = [entry for entry in CATALOGUE if entry not in TEXT]


def test_the_committed_files_are_what_the_generator_writes():
    files = generate.all_files()
    assert generate.differences(files, HOME) == []
    assert sum(len(text.encode("utf-8")) for text in files.values()) < 2_000_000


def test_another_seed_gives_other_data_and_check_notices(tmp_path):
    files = generate.benchmark_files(seed=7)
    assert files.keys() == generate.benchmark_files().keys()
    assert files != generate.benchmark_files()
    assert generate.main(["--output", str(tmp_path)]) == 0
    assert generate.main(["--check", "--output", str(tmp_path)]) == 0
    changed = tmp_path / "data" / "catalogue.json"
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert generate.main(["--check", "--output", str(tmp_path)]) == 1


def test_it_covers_families_categories_levels_and_kinds():
    cards = [TaskCard.from_json(entry["card"]) for entry in CATALOGUE]
    assert len({card.name for card in cards}) == len(cards) >= 40
    assert {card.benchmark for card in cards} == {*BENCHMARKS, *EXTRA_SOURCES}
    assert len({card.category for card in cards}) >= 12
    scheme = load_split_scheme("pocket")
    by_level = collections.defaultdict(list)
    for card in cards:
        by_level[scheme.level(card)].append(card)
    assert set(by_level) == set(LEVELS)
    assert len({card.category for card in by_level["fully_held_out"]}) >= 3
    assert len(by_level["partially_held_out"]) >= 6
    # A partially held-out task is one whose category is trained on, a fully held-out one is not.
    trained = {card.category for card in by_level["supervised"]}
    assert {card.category for card in by_level["partially_held_out"]} <= trained
    assert not {card.category for card in by_level["fully_held_out"]} & trained
    # Every pattern of the scheme names a task that exists.
    assert set(scheme.levels_by_task) <= {card.name for card in cards}


@pytest.mark.parametrize("entry", TASKS, ids=lambda entry: entry["card"]["name"])
def test_examples_are_well_formed_and_the_splits_disjoint(entry):
    if entry["format"] in ("promptsource", "super_ni"):
        pytest.importorskip("seqio")
    splits = {name: list(family_readers.examples(pocket.DATA, entry, name)) for name in entry["files"]}
    assert len(splits["validation"]) >= 24
    assert len(splits["train"]) >= 40
    for examples in splits.values():
        assert len({(example.uid, example.template) for example in examples}) == len(examples)
        for example in examples:
            assert example.source
            assert example.target
            assert example.target in example.references
            assert not example.candidates or example.target in example.candidates
            assert bool(example.candidates) == (entry["card"]["metrics"][0] == "accuracy")
    seen = {example.source for example in splits["train"]}
    assert not seen & {example.source for example in splits["validation"]}


@pytest.mark.parametrize("entry", TEXT, ids=lambda entry: entry["card"]["name"])
def test_text_is_trained_on_and_never_evaluated(entry):
    pytest.importorskip("seqio")
    assert list(entry["files"]) == ["train"]
    assert load_split_scheme("pocket").sets(TaskCard.from_json(entry["card"])) == ("train",)
    texts = [example.target for example in family_readers.examples(pocket.DATA, entry, "train")]
    assert len(set(texts)) == len(texts) >= 200
    assert not any(example.source for example in family_readers.examples(pocket.DATA, entry, "train"))
    if entry["card"]["benchmark"] == "dialogue":
        assert all(4 <= len(text.split("\n")) <= 10 for text in texts)
    # The vocabulary, which is made of the tasks' text, cuts it into words too.
    vocabulary = Vocabulary(str(HOME / "vocabulary"))
    tokens = [len(vocabulary.encode(text)) for text in texts]
    assert sum(tokens) < 2 * sum(len(text.split()) for text in texts) and max(tokens) <= 110


@pytest.mark.parametrize(("family", "name"), [("pretraining", "pocket_stories"), ("dialogue", "convai2")])
def test_text_lies_as_its_family_finds_it(family, name, tmp_path):
    """The families' modules find the same files by themselves, the dialogues under the name of their format."""
    pytest.importorskip("seqio")
    from tests.tasks import registered

    (entry,) = (entry for entry in TEXT if entry["card"]["benchmark"] == family)
    (folder,) = (HOME / "data" / family).iterdir()
    shutil.copytree(folder, tmp_path / family / name)
    registered.clear()
    importlib.import_module(f"tasks.{family}").register(str(tmp_path))
    found = registered.read(f"{family}.{name}")
    registered.clear()
    assert found == {"train": list(family_readers.examples(pocket.DATA, entry, "train"))}


def test_some_tasks_have_several_references():
    several = {
        entry["format"]
        for entry in OWN
        if any(
            len(example.references) > 1 for example in readers.examples(HOME / "data", entry, "validation")
        )
    }
    assert {"crossfit", "dart", "e2e"} <= several


def test_answers_stand_in_the_passage_and_are_not_given_away_by_position():
    """The extraction tasks test reading: the right one of two things is the first about half of the time."""
    (entry,) = (entry for entry in CATALOGUE if entry["card"]["name"] == "unified_skg.pocket_table")
    places = collections.Counter()
    for example in readers.examples(HOME / "data", entry, "train"):
        row = example.source.split("row 2")[0]
        places[example.target in row] += 1
    assert 0.4 < places[True] / sum(places.values()) < 0.6


def test_the_vocabulary_holds_every_byte_and_cuts_the_tasks_into_whole_words():
    vocabulary = Vocabulary(str(HOME / "vocabulary"))
    assert 1000 <= vocabulary.size <= 2000
    text = "naïve 漢字 \x00 😀 </s>"
    assert vocabulary.decode(vocabulary.encode(text)) == text
    words = tokens = 0
    for entry in OWN:
        for example in readers.examples(HOME / "data", entry, "validation"):
            ids = vocabulary.encode(f"{example.source} {example.target}")
            assert min(ids) > Vocabulary.UNK
            assert len(ids) <= 110
            words += len(f"{example.source} {example.target}".split())
            tokens += len(ids)
    assert tokens < 1.7 * words


BAD = {
    "flan": (b'{"inputs": "a"}\n', "targets"),
    "crossfit": (b"input\toutput\nno tab here\n", "1 of 2"),
    "cogs": (b"a\tb\n", "2 of 3"),
    "boolq": (b'{"question": "a", "passage": "b", "label": "yes"}\n', "true or false"),
    "news": (b'{"article": "cut off', "not JSON"),
    "wmt": (b'{"translation": ["a", "b"]}\n', "an object"),
    "dart": (b'[{"tripleset": [["a", "b", "c"]], "annotations": []}]', "no annotation"),
    "e2e": (b"meaning,text\na,b\n", "columns mr and ref"),
    "fetaqa": (b'{"table_array": "none"}\n', "a list"),
    "cot": (b"question\tanswer\n", "2 of 3"),
    "gsm8k": (b'{"question": "a", "answer": "2"}\n', "####"),
    "aqua": (b'{"question": "q", "options": ["A)1"], "rationale": "r", "correct": "C"}\n', "letter 'C'"),
}


@pytest.mark.parametrize("form", BAD)
def test_a_bad_file_is_told_by_name(form, tmp_path):
    content, problem = BAD[form]
    path = tmp_path / "file"
    path.write_bytes(content)
    entry = {"format": form, "files": {"train": "file"}, "options": {"from": "en", "to": "es"}}
    with pytest.raises(InputError, match=problem) as caught:
        list(readers.examples(tmp_path, entry, "train"))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("form", sorted(BAD))
@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00", b"[1, 2]"], ids=["absent", "empty", "binary", "list"]
)
def test_hostile_files_raise_nothing_else(form, content, tmp_path):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    entry = {"format": form, "files": {"train": "file"}, "options": {"from": "en", "to": "es"}}
    with pytest.raises(InputError):
        list(readers.examples(tmp_path, entry, "train"))


def test_genuine_files_read(real_data, tmp_path):
    """Each format's reader on a file of the data set that the format comes from."""
    spider = real_data / "unifiedskg" / "spider"
    (tmp_path / "dev.json").write_bytes(gzip.decompress((spider / "dev.json.gz").read_bytes()))
    (tmp_path / "tables.json").write_bytes((spider / "tables.json").read_bytes())
    rows = {
        ("crossfit", real_data / "crossfit/tsv/piqa/piqa_16_100_train.tsv"): 16,
        ("cot", real_data / "flan2022/cot_data/gsm8k_train.tsv"): 800,
        ("gsm8k", real_data / "reasoning/gsm8k/test.jsonl"): 1319,
        ("aqua", real_data / "reasoning/aqua/dev.json"): 254,
        ("boolq", real_data / "t5/superglue/BoolQ/train.jsonl"): 32,
        ("dart", real_data / "unifiedskg/dart/dart-v1.1.1-full-dev.json"): 300,
        ("fetaqa", real_data / "unifiedskg/fetaqa/fetaQA-v1_dev.jsonl"): 120,
        ("spider", tmp_path / "dev.json"): 150,
    }
    for (form, path), count in rows.items():
        examples = list(readers.READERS[form](path, {}))
        assert len(examples) == count, form
        assert all(example.source and example.target for example in examples), form
    e2e = list(readers.e2e(real_data / "unifiedskg/e2e/testset_w_refs.csv", {}))
    assert max(len(example.references) for example in e2e) > 1


def test_registration_needs_a_catalogue(tmp_path):
    with pytest.raises(InputError, match="no catalogue"):
        pocket.catalogue(tmp_path)
    (tmp_path / "catalogue.json").write_text("[{")
    with pytest.raises(InputError, match="not JSON"):
        pocket.catalogue(tmp_path)


def test_a_damaged_task_file_is_told_by_name(tmp_path):
    entry = {"format": "super_ni", "files": {"train": "task.json"}, "options": {"validation": 1}}
    for content in (
        "[1]",
        '{"Instances": [',
        '{"Instances": [{"id": "a"}, {"id": "b"}], "Definition": ["d"]}',
    ):
        (tmp_path / "task.json").write_text(content)
        with pytest.raises(InputError, match=r"task\.json"):
            list(family_readers.examples(tmp_path, entry, "train"))
