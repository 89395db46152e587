"""MMLU: every genuine file, the prompt of its public evaluation, and what may be wrong with a file."""

import csv
import pickle

import pytest

pytest.importorskip("seqio")

from iml import seqio_bridge
from iml.bench import registry
from iml.data.prompts import PromptFormat, render_request
from iml.errors import InputError
from tasks import mmlu
from tasks.mmlu import text
from tests.stores import make_store
from tests.tasks.evaluation_only import empty_registries, lm_eval_tasks, manifest, read, splits  # noqa: F401

AS_WRITTEN = PromptFormat(separator="\n\n", delimiters=[""], definition_prefixes=[""], input_prefixes=[""])


def write(tmp_path, rows, folder="test"):
    path = tmp_path / "mmlu" / "data" / folder / f"virology_{folder}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows.encode())
    return path


def test_every_genuine_file_is_read(real_data):
    mmlu.register(str(real_data))
    whole, _ = manifest(real_data, "mmlu")
    names = registry.names()
    assert len(names) == whole["tasks"] == 57
    counts = dict.fromkeys(mmlu.SPLITS, 0)
    for name in names:
        card = registry.card(name)
        assert card.parent == "mmlu" and card.metrics == ("accuracy",) and "train" not in splits(name)
        for split in splits(name):
            examples = read(name, split)
            counts[split] += len(examples)
            for example in examples:
                assert example.candidates == ("A", "B", "C", "D") and example.target in example.candidates
                assert example.source.endswith("\nAnswer:") and "\nD. " in example.source
    assert counts["exemplars"] == 5 * 57
    assert sum(counts.values()) == whole["examples"]


def test_prompts_are_those_of_lm_evaluation_harness(real_data, tmp_path):
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")
    home = lm_eval_tasks() / "mmlu" / "default"
    ask = jinja2.Template(yaml.safe_load((home / "_default_template_yaml").read_text())["doc_to_text"])
    mmlu.register(str(real_data))
    for name in registry.names()[::8]:
        subject = name.removeprefix("mmlu.")

        def rows(split, subject=subject):
            path = real_data / "mmlu" / "data" / split / f"{subject}_{split}.csv"
            with path.open(newline="", encoding="utf-8") as file:
                return [{"question": q, "choices": c, "answer": a} for q, *c, a in csv.reader(file)]

        test = rows("test")
        own = make_store(
            tmp_path / subject,
            {name: {"card": registry.card(name).to_json(), **{s: read(name, s) for s in splits(name)}}},
        )
        description = yaml.safe_load((home / f"mmlu_{subject}.yaml").read_text())["description"]
        shown = [f"{ask.render(row)} {row['answer']}\n\n" for row in rows("dev")]
        for row in (0, len(test) - 1):
            prompt = render_request(own, name, "test", row, AS_WRITTEN, shots=5, seed=row)
            assert prompt.source == "".join([description, *shown, ask.render(test[row])])
            assert prompt.target == test[row]["answer"]
            assert prompt.provenance["demonstrations"] == [f"dev-{number}" for number in range(5)]


def test_the_variant_with_a_header_and_numbers(real_data):
    mmlu.register(str(real_data / "mmlu" / "variant_with_header"))
    assert set(registry.names()) == {"mmlu.anatomy", "mmlu.astronomy"}
    test = read("mmlu.anatomy", "test")
    assert len(test) == 40 and test[0].target == "D"
    assert test[0].source.startswith("Primary motor cortex activity results in\nA. bilateral")


def test_texts_as_candidates_and_fields_with_line_breaks(tmp_path):
    write(tmp_path, '"Which\r\nis red?",blue,"red,\nthen",grey,black,B\r\n')
    text.register(str(tmp_path))
    [example] = read("mmlu.virology", "test")
    assert example.candidates == ("blue", "red,\nthen", "grey", "black")
    assert example.target == "red,\nthen"
    assert splits("mmlu.virology") == ("test",)
    source = pickle.loads(pickle.dumps(seqio_bridge.seqio.TaskRegistry.get("mmlu.virology").source.read))
    assert next(source("test"))["target"] == example.target


@pytest.mark.parametrize(
    ("rows", "line", "field"),
    [("q,a,b,c,d,A\nq,a,b,c,d,E\n", 2, "answer"), ("q,a,b,c,d,4\n", 1, "answer"), ("q,a,b,c,A\n", 1, None)],
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path, rows, line, field):
    path = write(tmp_path, rows)
    mmlu.register(str(tmp_path))
    with pytest.raises(InputError) as caught:
        read("mmlu.virology", "test")
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), line, field)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"mmlu/data.*Unpack"):
        mmlu.register(str(tmp_path))
