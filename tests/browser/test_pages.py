"""What the browser shows is what training and evaluation see, and data stay data."""

import dataclasses
import json
import re
import shutil
from urllib.parse import unquote

import numpy as np
import pytest

from iml.browser.catalogue import Catalogue
from iml.browser.export import export
from iml.browser.instances import shorten, token_pieces
from iml.browser.packed import read_rows
from iml.browser.site import NotFound
from iml.data.prompts import PromptFormat, render_request
from iml.data.stream import TrainStream
from iml.errors import InputError
from tests.browser.pages import EVIL, PLAIN, RANKED, SHOWN, Page


def test_prompts_are_those_of_evaluation_and_marks_are_what_the_loss_counts(site, store):
    page = Page(site.page(f"task/{PLAIN}.html", {"shots": "3", "seed": "5", "first": "2", "count": "4"}))
    requests = [
        render_request(store, PLAIN, "test", row, PromptFormat(), shots=3, seed=5) for row in range(2, 6)
    ]
    # A parser of HTML drops the line break after the start tag; this one does not.
    assert page.prompts[:4] == [f"\n{prompt.source.rstrip(' ')} {prompt.target}</s>" for prompt in requests]
    assert page.marks[:4] == [f" {prompt.target}</s>" for prompt in requests]
    assert all(prompt.source.count("Where is") == 4 for prompt in requests)


def test_training_is_shown_as_the_stream_draws_it(site):
    varied = PromptFormat(shots=2, separators=("\n\n", "\n###\n"), suffix_loss=True)
    trained = dataclasses.replace(site, prompt_format=varied, instances=4)
    page = Page(trained.page(f"task/{PLAIN}.html", {"count": "1"}))
    stream = trained.stream
    numbers = [n for n in range(200) if stream.tasks[stream.plan.draw(n).task] == PLAIN][:4]
    documents = [placed.document for placed in stream.make_documents(numbers)]
    assert page.prompts[1:] == [f"\n{doc.prompt.source} {doc.prompt.target}</s>" for doc in documents]
    assert page.marks[1:] == [f" {doc.prompt.target}</s>" for doc in documents]
    assert all(mark.count("There") == 3 for mark in page.marks[1:]) and page.marks[0].count("There") == 1
    assert all(f"draw {number}" in page.text for number in numbers)
    settings = dataclasses.replace(site.stream_settings, target_budget=5)
    short = Page(dataclasses.replace(trained, stream_settings=settings).page(f"task/{PLAIN}.html", None))
    assert "5 learnt" in short.text and all(len(mark) < 12 for mark in short.marks)
    assert "Training" not in Page(trained.page(f"task/{RANKED}.html", {})).text


def test_a_delimiter_can_be_chosen(site):
    for place, delimiter in enumerate(PromptFormat().delimiters[:3]):
        page = Page(site.page(f"task/{PLAIN}.html", {"delimiter": str(place), "count": "1"}))
        assert page.prompts[0].endswith(f"é{delimiter} There 0 \U0001f600</s>")


def test_without_a_vocabulary_there_is_text_but_no_token(site):
    bare = dataclasses.replace(site, vocabulary=None)
    page = Page(bare.page(f"task/{PLAIN}.html", None))
    assert page.marks[0] == " There 0 \U0001f600" and not page.all("i")
    assert "VOCABULARY_DIR" in Page(bare.page("packing.html", {})).text


def test_every_token_has_its_place_and_no_character_is_torn(site):
    text = "the thé 漢字\U0001f600 an"
    tokens = np.array([*site.vocabulary.encode(text), 2])
    for split in range(len(tokens) + 1):
        learnt = np.arange(len(tokens)) >= split
        pieces = list(token_pieces(site.vocabulary, tokens, learnt))
        assert [token for piece in pieces for token in piece.tokens] == tokens.tolist()
        assert [piece.learnt for piece in pieces for _ in piece.tokens] == learnt.tolist()
    assert "".join(piece.text for piece in pieces) == text + "</s>"


@pytest.mark.parametrize("with_tokens", [True, False])
def test_long_prompts_lose_their_middle_alone(site, with_tokens):
    text = " ".join(map(str, range(3000)))
    tokens = np.array(site.vocabulary.encode(text))
    pieces = list(token_pieces(site.vocabulary, tokens, np.zeros(len(tokens), bool)))
    if not with_tokens:
        pieces = [dataclasses.replace(pieces[0], text=text, tokens=())]
    parts = shorten(pieces, 1000)
    (gap,) = [place for place, part in enumerate(parts) if part.kind == "gap"]
    head, tail = ("".join(part.text for part in some) for some in (parts[:gap], parts[gap + 1 :]))
    assert text.startswith(head) and text.endswith(tail) and 990 <= len(head + tail) <= 1010
    left_out = int(parts[gap].text.split()[0].replace(",", ""))
    assert len(head) + left_out + len(tail) == len(text)


def test_packed_rows_are_those_of_the_stream(site, store):
    settings = site.stream_settings
    stream = TrainStream(store, site.vocabulary, settings.mixture, PromptFormat(), 2, 512, 1234, segments=8)
    batches = stream.batches(stream.initial_state(), threads=0)
    taken = [next(batches)[0] for _ in range(4)]
    page = Page(site.page("packing.html", {"step": "2", "lane": "1"}))
    marks = iter(page.marks)
    for step, row in zip((2, 3), read_rows(stream, 1, 2, 2), strict=True):
        batch = {name: values[1] for name, values in taken[step].items()}
        for name in ("segment_ids", "positions", "loss_weights"):
            np.testing.assert_array_equal(getattr(row, name), batch[name])
        drawn = batch["example_ids"][batch["example_ids"] >= 0]
        assert [segment.draw for segment in row.segments] == drawn.tolist()
        assert f"Step {step}, lane 1" in page.text
        for number in range(1, len(row.segments) + 1):
            learnt = batch["targets"][(batch["segment_ids"] == number) & (batch["loss_weights"] > 0)]
            text = site.vocabulary.decode(learnt)
            assert next(marks).removesuffix("</s>") in (
                text,
                text.translate({0x1B: "␛", 0: "␀", 0x202E: "\ufffd"}),
            )
    triangles = [shape["points"] for shape in page.all("polygon") if "saw" not in shape["class"]]
    first = read_rows(stream, 1, 2, 1)[0].segments[0]
    assert triangles[0] == f"0,0 {first.end},{first.end} 0,{first.end}"
    assert next(marks, None) is None


def test_a_row_that_ends_early_shows_what_stays_empty(site, store):
    settings = dataclasses.replace(site.stream_settings, segments=1)
    page = site.page("packing.html", None)
    short = dataclasses.replace(site, stream_settings=settings).page("packing.html", None)
    assert "8 documents in" in page and "1 document in" in short


def test_counts_and_levels(site):
    text = Page(site.page("index.html", {})).text
    assert "3 tasks in 3 categories" in text
    for scheme in site.catalogue.schemes:
        assert sum(site.catalogue.levels(scheme, list(site.catalogue.tasks.values())).values()) == 3
        assert "Question Answering" in site.page(f"categories/{scheme}.html", {})
    assert site.catalogue.tasks[RANKED].levels["opt_iml_max"] == "supervised"


def test_the_chosen_split_scheme_stands_first(site, tmp_path):
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"name": "own", "levels_by_task": {PLAIN: "partially_held_out"}}))
    for scheme, name in (("flan_leave_one_out:sentiment", "flan_leave_one_out:sentiment"), (file, "own")):
        other = dataclasses.replace(site, catalogue=Catalogue(site.catalogue.store, str(scheme)))
        assert next(iter(other.catalogue.schemes)) == name and f"categories/{name}.html" in other.addresses()
        assert name in Page(other.page(f"categories/{name}.html", {})).text
    cells = Page(other.page(f"task/{PLAIN}.html", {})).text
    assert "ownpartially held outvalidation, test" in cells
    (tmp_path / "bad.json").write_text(json.dumps({"name": "../own"}))
    with pytest.raises(InputError, match="cannot be the name of a page"):
        bad = Catalogue(site.catalogue.store, str(tmp_path / "bad.json"))
        bad.search_index()


def test_the_search_index_survives_its_place_in_a_page(site):
    page = site.page("tasks.html", {})
    record = json.loads(re.search(r'type="application/json" id="index">(.*?)</script>', page, re.S)[1])
    names = list(site.catalogue.tasks)
    assert record["tasks"][names.index(EVIL)][:2] == [SHOWN[:600], SHOWN]
    assert record["tasks"][names.index(RANKED)][0] == "Tell the parity."


def test_data_never_becomes_markup(exported):
    pages = sorted(exported.rglob("*.html"))
    assert len(pages) >= 3 + 3 + 2
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        assert not page.open
        scripts = [{key: script[key] for key in script if key != "defer"} for script in page.all("script")]
        allowed = [{"type": "application/json", "id": "index"}, {"src": "tasks.js"}]
        assert scripts == (allowed if path.name == "tasks.html" else [])
        for tag, attributes in page.elements:
            assert tag not in ("img", "iframe", "object", "embed", "base", "style")
            assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
            if "href" in attributes:
                assert re.match(r"https://example\.org/|#main$|[./a-z]", attributes["href"])
                assert ":" not in attributes["href"] or attributes["href"].startswith("https://example.org/")
        (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    text = Page((exported / "task" / f"{EVIL}.html").read_text(encoding="utf-8")).text
    assert SHOWN in text and "javascript:window.owned=6" in text


def test_the_export_is_bounded_and_replaces_itself_alone(site, exported, tmp_path):
    page = Page((exported / "task" / f"{PLAIN}.html").read_text(encoding="utf-8"))
    assert len(page.prompts) == site.instances * (len(site.shots) + 1) and not page.all("form")
    for path in exported.rglob("*.html"):
        for name, attributes in Page(path.read_text(encoding="utf-8")).elements:
            address = attributes.get("href" if name in ("a", "link") else "src", "").partition("?")[0]
            if address and not address.startswith(("https:", "#")):
                assert (path.parent / unquote(address)).exists(), (path, address)
    copy = shutil.copytree(exported, tmp_path / "pages")
    (copy / "task" / "gone.html").touch()
    export(site, copy)
    assert not (copy / "task" / "gone.html").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(InputError, match="something else"):
        export(site, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "pages"]


def test_a_damaged_task_does_not_stop_the_others(store, site, tmp_path):
    copy = shutil.copytree(store.path, tmp_path / "store")
    for file in (copy / PLAIN).rglob("*.array_record"):
        file.write_bytes(b"")
    broken = dataclasses.replace(site, catalogue=Catalogue(type(store)(copy), "opt_iml"))
    export(broken, tmp_path / "pages")
    assert "damaged" in (tmp_path / "pages" / "task" / f"{PLAIN}.html").read_text(encoding="utf-8")
    whole = Page((tmp_path / "pages" / "task" / f"{RANKED}.html").read_text(encoding="utf-8"))
    assert "Is 0 even?" in whole.prompts[0]


def test_unknown_pages(site):
    for path in ("task/none.html", "categories/none.html", "style.css", "", "task/.html"):
        with pytest.raises(NotFound):
            site.page(path, {})
