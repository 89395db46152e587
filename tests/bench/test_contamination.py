"""The contamination pass against a brute-force answer, on random texts and on genuine ones."""

import collections
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.bench import contamination, contamination_text
from iml.bench.card import Example
from iml.bench.contamination_index import Index, IndexBuilder, body
from iml.bench.contamination_text import grams, words
from iml.errors import InputError

SPLITS = ("validation", "test")


def runs(text, n):
    found = words(text)
    return [tuple(found[start : start + n]) for start in range(len(found) - n + 1)]


def own_runs(task, n, k):
    """By (uid, whether its own), the n-grams of an evaluation task, with plain sets and tuples."""
    counts, sizes = collections.Counter(), collections.Counter()
    for split, examples in zip(SPLITS, task, strict=True):
        for example in examples:
            sizes[split, example.template] += 1
            counts.update((split, example.template, run) for run in set(runs(body(example), k)))
    common = {
        run for (*group, run), count in counts.items() if sizes[*group] >= 5 and 2 * count > sizes[*group]
    }
    common |= {run for examples in task for example in examples for run in runs(example.instruction, k)}
    found = collections.defaultdict(set)
    for split, examples in zip(SPLITS, task, strict=True):
        for example in examples:
            uid = f"{split}/{example.uid}"
            tokens = words(body(example))
            template = {
                place
                for start in range(len(tokens) - k + 1)
                if tuple(tokens[start : start + k]) in common
                for place in range(start, start + k)
            }
            for start, run in enumerate(runs(body(example), n)):
                found[uid, not template & set(range(start, start + n))].add(run)
            found[uid, False].update(runs(example.instruction, n))
    return found


def brute_force(train, task, n, k):
    """(uids with an n-gram of their own in common, uids with any, training uids with an own one)."""
    learnt = {
        run for example in train for text in (body(example), example.instruction) for run in runs(text, n)
    }
    found = own_runs(task, n, k)
    own = {uid for (uid, mine), those in found.items() if mine and those & learnt}
    whole = {uid for (uid, _), those in found.items() if those & learnt}
    wanted = {run for (_, mine), those in found.items() if mine for run in those}
    uids = {
        example.uid for example in train if wanted & {*runs(body(example), n), *runs(example.instruction, n)}
    }
    return own, whole, uids


def check(tasks, train, n=13, k=5, bits=64, pieces=1):
    builder = IndexBuilder(n, template_words=k, bits=bits)
    for name, task in tasks.items():
        builder.add(name, task)
    index = builder.build()
    size = max(1, -(-len(train) // pieces))
    found = contamination.join(
        contamination.scan(index, train[first : first + size], first) for first in range(0, len(train), size)
    )
    for number, (name, task) in enumerate(tasks.items()):
        overlap = found.get(name, contamination.Overlap())
        uids = index.uids[number]
        got = ({uids[i] for i in overlap.examples}, {uids[i] for i in overlap.whole}, overlap.train_uids)
        assert got == brute_force(train, task, n, k)
        for one in overlap.evidence:
            asked, learnt = task[one.split][one.row], train[one.train_row]
            shown = contamination.common_text(body(asked), body(learnt), one.words)
            if not shown[2]:
                shown = contamination.common_text(body(asked), learnt.instruction, one.words)
            assert shown[2] >= n and words(shown[0][1]) == words(shown[1][1])
        without = {uid for uid, mine in own_runs(task, n, k) if mine}
        assert index.without[number] == len(uids) - len(without)
    return found


some_words = st.lists(st.sampled_from("a b c Ä, ß 中 x-y The".split()), max_size=9).map(" ".join)
examples = st.builds(
    lambda source, target, instruction, template: (source, target, instruction, template),
    some_words,
    some_words,
    st.sampled_from(("", "", "a b c a", "the c 中 a b")),
    st.sampled_from(("", "t")),
)


def with_uids(rows):
    return [
        Example(str(number // 2), source, target, (target,), (), instruction, f"{template}{number % 2}")
        for number, (source, target, instruction, template) in enumerate(rows)
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(examples, max_size=12), st.lists(examples, max_size=3)), min_size=1, max_size=3
    ),
    st.lists(examples, min_size=1, max_size=6),
    st.sampled_from((2, 3)),
    st.sampled_from((64, 3)),
    st.integers(1, 3),
)
def test_as_brute_force_says(tasks, train, n, bits, pieces):
    """With 3 bits nearly all hashes collide: matches are verified on the text."""
    tasks = {f"t{i}": [with_uids(rows) for rows in task] for i, task in enumerate(tasks) if any(task)}
    check(tasks, with_uids(train), n, k=2, bits=bits, pieces=pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_the_fast_words_are_the_slow_ones(texts):
    found = grams(texts, 1)
    pieces = [
        bytes(found.data[at : at + size]).decode()
        for at, size in zip(found.starts, found.lengths, strict=True)
    ]
    assert pieces == [word for text in texts for word in words(text)]
    assert found.text_ids.tolist() == [i for i, text in enumerate(texts) for _ in words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't  stop,\n«Straße» __ 3.14", "don t stop strasse 3 14"),
        ("ＦＵＬＬ ﬁne naïve", "full fine naïve"),
        ("我爱 tea 42杯", "我 爱 tea 42 杯"),
        ("हिन्दी में", "हिन्दी में"),
        ("\x00<b>\ud800ok", "b ok"),
        ("", ""),
    ],
)
def test_words(text, expected):
    assert " ".join(words(text)) == expected


def test_hashes_are_the_same_in_every_process_and_place():
    alone = grams(["one two three four"], 3)
    after = grams(["something before", "x", "one two three four"], 3)
    assert after.hashes[after.text_ids == 2].tolist() == alone.hashes.tolist()
    assert alone.hashes.tolist() == [6460331609518969188, 9973715074543429191]


def test_an_index_is_the_same_from_its_files(tmp_path):
    text = " ".join(map(str, range(30)))
    builder = IndexBuilder()
    builder.add("t", [[Example("1", text, "yes")], [Example("1", text, "no")]])
    built = builder.build()
    built.save(tmp_path)
    opened = Index.open(tmp_path)
    found = contamination.scan(opened, [Example("a", f"so: {text}", "maybe")])
    assert found == contamination.scan(built, [Example("a", f"so: {text}", "maybe")])
    assert [opened.uids[0][i] for i in found["t"].examples] == ["validation/1", "test/1"]
    assert contamination.Overlap.from_json(json.loads(json.dumps(found["t"].to_json()))) == found["t"]
    assert contamination.scan(opened, [Example("a", "nothing", "at all")]) == {}


def test_a_template_is_nobodys_own_text():
    template = "which of the following answers is the right one for this question please {} answer now"
    asked = [Example(str(i), template.format(f"word{i}"), "yes", template="t") for i in range(8)]
    passage = "a passage of more than thirteen words which stands in one of the questions and nowhere else"
    asked.append(Example("8", template.format(passage), "yes", template="t"))
    found = check(
        {"e": [asked, []]}, [Example("0", template.format("other"), "no"), Example("1", passage, "no")]
    )
    assert found["e"].examples == {8} and len(found["e"].whole) == 9 and found["e"].train_uids == {"1"}


def test_the_common_text_is_shown_as_it_is_written():
    run = " ".join(f"w{i}" for i in range(100))
    left, right, size = contamination.common_text(
        f"Before, {run}! After.", f"<b>{run.upper()}", "w40 w41 w42", context=1, longest=10
    )
    assert size == 100
    assert left == ("Before, ", "w0 w1 w2 w3 w4 […] w95 w96 w97 w98 w99", "! After.")
    assert right == ("<b>", "W0 W1 W2 W3 W4 […] W95 W96 W97 W98 W99", "")
    assert contamination.common_text("a b", "c d", "x") == (("", "", ""), ("", "", ""), 0)


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match="at least one word"):
        IndexBuilder(0)


def test_long_texts_and_batches_are_one(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 9, 200))) for _ in range(40)]
    train = [Example(str(i), text, "") for i, text in enumerate(texts[::2])]
    asked = [Example(str(i), text, "") for i, text in enumerate(texts[1::2])]
    monkeypatch.setattr("iml.bench.contamination_index._BATCH", 700)
    check({"e": [asked, train[:3]]}, train, n=5)


def test_genuine_tasks_as_brute_force_says(real_data):
    """Winograd schemas and what was made of them: the overlap that the paper's splits are known for."""
    folder = real_data / "super_natural_instructions" / "tasks"
    paths = sorted(folder.glob("task*w[is][nc]*.json")) + sorted(folder.glob("task*pawsx_*english*.json"))[:4]
    tasks = {}
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        definition = "".join(record["Definition"][:1])
        rows = enumerate(record["Instances"])
        tasks[path.stem] = [
            Example(str(i), row["input"], row["output"][0], instruction=definition) for i, row in rows
        ]
    assert len(tasks) > 10
    evaluated = {name: [rows[:14], rows[14:20]] for name, rows in tasks.items()}
    overlapping = 0
    for train in list(tasks.values())[::6]:
        found = check(evaluated, train[20:])
        overlapping += sum(bool(overlap.examples) for overlap in found.values())
    assert overlapping > 3


def test_ascii_words_are_what_a_regular_expression_finds():
    text = "It's 10%-ish: (well) A_B\tc\x7f"
    assert words(text) == re.findall("[a-z0-9]+", text.lower())
    assert contamination_text.normalise(text) == text
