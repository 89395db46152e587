"""Writers of the embedded benchmark's files, one a genuine file format.

A writer takes a recipe and its records by split, and returns the text of its files by path (relative to the
data directory) and what the catalogue says of them: `files` by split and the `options` of the reader.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.pocket.recipe import Recipe

Splits = Mapping[str, Sequence[Any]]
Written = tuple[dict[str, str], dict[str, Any]]

_NAMESPACE = uuid.UUID("5a3c5f0e-9d0b-4f7e-8a44-0f3f6c1d2e77")
_LICENCE = "CC0-1.0"


def _compact(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _json_lines(records: Sequence[Any]) -> str:
    return "".join(_compact(record) + "\n" for record in records)


def _json_list(records: Sequence[Any]) -> str:
    return "[\n" + ",\n".join(map(_compact, records)) + "\n]\n"


def _by_split(
    recipe: Recipe, splits: Splits, form: str, text: Callable[[Sequence[Any]], str], **options
) -> Written:
    """One file a split, its path made by `form` from family, task and split."""
    files = {split: form.format(family=recipe.benchmark, task=recipe.task, split=split) for split in splits}
    return {files[split]: text(splits[split]) for split in splits}, {"files": files, "options": options}


def super_ni(recipe: Recipe, splits: Splits) -> Written:
    """A v2 task file with all of its keys; validation instances come first, as the official test does."""
    instances = [
        {"id": f"{recipe.task}-{uuid.uuid5(_NAMESPACE, f'{recipe.task}:{split}:{row}').hex}", "input": source,
         "output": outputs}
        for split in ("validation", "train")
        for row, (source, outputs) in enumerate(splits[split])
    ]  # fmt: skip
    shown, wrong = splits["train"][:2], splits["train"][2]
    header = {
        "Contributors": ["iml"],
        "Source": ["pocket"],
        "URL": [""],
        "Categories": [recipe.category],
        "Reasoning": [],
        "Definition": [recipe.options["definition"]],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["Stories"],
        "Positive Examples": [
            {"input": source, "output": outputs[0], "explanation": "This is the right answer."}
            for source, outputs in shown
        ],
        "Negative Examples": [
            {"input": wrong[0], "output": "none", "explanation": "There is an answer to give."}
        ],
    }  # fmt: skip
    lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()]
    rows = ",\n".join(f"  {_compact(instance)}" for instance in instances)
    lines.append(f' "Instances": [\n{rows}\n ]')
    lines.append(f' "Instance License": ["{_LICENCE}"]')
    path = f"super_natural_instructions/tasks/{recipe.task}.json"
    catalogue = {"files": dict.fromkeys(splits, path), "options": {"validation": len(splits["validation"])}}
    return {path: "{\n" + ",\n".join(lines) + "\n}\n"}, catalogue


def promptsource(recipe: Recipe, splits: Splits) -> Written:
    """A templates.yaml, and rows with the features of a Hugging Face data set beside them."""
    lines = [f"dataset: {recipe.task}", "templates:"]
    for name, jinja, choices, original in recipe.options["templates"]:
        key = str(uuid.uuid5(_NAMESPACE, f"{recipe.task}:{name}"))
        accuracy = recipe.metrics[0] == "accuracy" and original
        lines += [
            f"  {key}: !Template",
            f"    answer_choices: {'null' if choices is None else json.dumps(choices)}",
            f"    id: {key}",
            f"    jinja: {json.dumps(jinja)}",
            "    metadata: !TemplateMetadata",
            f"      choices_in_prompt: {str('options' in name or 'choose' in name).lower()}",
            "      languages:",
            "      - en",
            "      metrics:",
            f"      - {'Accuracy' if accuracy else 'ROUGE'}",
            f"      original_task: {str(original).lower()}",
            f"    name: {name}",
            "    reference: ''",
        ]
    base = f"hf_raw/{recipe.task}/none"
    files = {split: f"{base}/{split}.jsonl" for split in splits}
    written = {files[split]: _json_lines(splits[split]) for split in splits}
    info = {
        "builder_name": recipe.task,
        "config_name": "default",
        "dataset_name": recipe.task,
        "features": recipe.options["features"],
        "license": _LICENCE,
    }
    for split in splits:
        written[f"{base}/{split}.dataset_info.json"] = json.dumps(info, indent=1) + "\n"
    templates = f"promptsource/templates/{recipe.task}/templates.yaml"
    written[templates] = "\n".join(lines) + "\n"
    return written, {"files": files, "more_files": [templates], "options": {"templates": templates}}


def flan(recipe: Recipe, splits: Splits) -> Written:
    """Rows of the FLAN 2022 collection as it is published rendered."""

    def text(records):
        return _json_lines(
            [
                {
                    "inputs": inputs,
                    "targets": targets,
                    "_template_idx": template,
                    "_task_source": "Flan2021",
                    "_task_name": recipe.task,
                    "_template_type": "zs_opt" if "OPTIONS:" in inputs else "zs_noopt",
                }
                for inputs, targets, template in records
            ]
        )

    return _by_split(recipe, splits, "flan/{task}_{split}.jsonl", text)


def crossfit(recipe: Recipe, splits: Splits) -> Written:
    """`input<TAB>output`, further answers in further columns; CrossFit calls its validation split dev."""
    written, catalogue = {}, {}
    for split, records in splits.items():
        part = {"train": "train", "validation": "dev"}[split]
        catalogue[split] = f"crossfit/{recipe.task}/{recipe.task}_{recipe.train}_100_{part}.tsv"
        written[catalogue[split]] = "".join(
            "\t".join((source, *answers)) + "\n" for source, answers in records
        )
    return written, {"files": catalogue, "options": dict(recipe.options)}


def parallel(recipe: Recipe, splits: Splits) -> Written:
    """Two line-aligned text files a split, as StylePTB and the Shakespeare corpus have them."""
    written, files = {}, {}
    for split, records in splits.items():
        stem = f"exmix/{recipe.task}/{ {'train': 'train', 'validation': 'valid'}[split] }"
        files[split] = f"{stem}.original"
        written[f"{stem}.original"] = "".join(f"{source}\n" for source, _ in records)
        written[f"{stem}.modern"] = "".join(f"{target}\n" for _, target in records)
    more = [name for name in written if name.endswith(".modern")]
    return written, {"files": files, "more_files": more, "options": dict(recipe.options)}


def cogs(recipe: Recipe, splits: Splits) -> Written:
    """COGS: sentence, logical form and kind of distribution, parted by tabs."""
    return _by_split(
        recipe, splits, "exmix/{task}/{split}.tsv",
        lambda records: "".join(f"{source}\t{target}\tin_distribution\n" for source, target in records),
        **recipe.options,
    )  # fmt: skip


def boolq(recipe: Recipe, splits: Splits) -> Written:
    """SuperGLUE's JSON lines: question, passage, label, idx."""

    def text(records):
        return _json_lines([{**record, "idx": number} for number, record in enumerate(records)])

    return _by_split(recipe, splits, "t5/{task}/{split}.jsonl", text)


def news(recipe: Recipe, splits: Splits) -> Written:
    """CNN/DailyMail's rows: article, highlights, id."""

    def text(records):
        return _json_lines(
            [
                {**record, "id": uuid.uuid5(_NAMESPACE, record["article"]).hex + recipe.task}
                for record in records
            ]
        )

    return _by_split(recipe, splits, "t5/{task}/{split}.jsonl", text)


def wmt(recipe: Recipe, splits: Splits) -> Written:
    """WMT's rows: a mapping from language to text."""
    return _by_split(recipe, splits, "t5/{task}/{split}.jsonl", _json_lines, **recipe.options)


def dart(recipe: Recipe, splits: Splits) -> Written:
    """DART's JSON list: tripleset, annotations."""
    return _by_split(recipe, splits, "unified_skg/{task}/dart-{split}.json", _json_list)


def e2e(recipe: Recipe, splits: Splits) -> Written:
    """E2E's CSV, a line for each reference of a meaning representation."""

    def text(records):
        out = io.StringIO()
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(("mr", "ref"))
        writer.writerows((record["mr"], ref) for record in records for ref in record["refs"])
        return out.getvalue()

    return _by_split(recipe, splits, "unified_skg/{task}/{split}set.csv", text)


def fetaqa(recipe: Recipe, splits: Splits) -> Written:
    """FeTaQA's JSON lines: a table as a list of rows, the first being its header."""

    def text(records):
        return _json_lines([{"feta_id": number, **record} for number, record in enumerate(records)])

    return _by_split(recipe, splits, "unified_skg/{task}/fetaQA-v1_{split}.jsonl", text)


def spider(recipe: Recipe, splits: Splits) -> Written:
    """Spider's JSON list of questions and queries, and the schemas in tables.json."""
    columns = ["name", "age", "toy", "colour", "place"]
    schema = {
        "db_id": "children",
        "table_names": ["child"],
        "table_names_original": ["child"],
        "column_names": [[-1, "*"], *([0, column] for column in columns)],
        "column_names_original": [[-1, "*"], *([0, column] for column in columns)],
        "column_types": ["text", "text", "number", "text", "text", "text"],
        "primary_keys": [1],
        "foreign_keys": [],
    }
    tables = f"unified_skg/{recipe.task}/tables.json"

    def text(records):
        return _json_list(
            [
                {
                    "db_id": record["db_id"],
                    "query": record["query"],
                    "question": record["question"],
                    "question_toks": [*record["question"][:-1].split(), record["question"][-1]],
                }
                for record in records
            ]
        )

    written, catalogue = _by_split(recipe, splits, "unified_skg/{task}/{split}.json", text)
    return {**written, tables: _json_list([schema])}, {**catalogue, "more_files": [tables]}


def cot(recipe: Recipe, splits: Splits) -> Written:
    """FLAN's chain-of-thought TSV: question, answer, rationale; a line break is written `\\n`."""

    def text(records):
        rows = ("\t".join(field.replace("\n", "\\n") for field in record) for record in records)
        return "".join(f"{row}\n" for row in rows)

    return _by_split(recipe, splits, "reasoning/{task}_{split}.tsv", text)


def gsm8k(recipe: Recipe, splits: Splits) -> Written:
    """GSM8K's JSON lines: question, answer with calculator marks and `#### result`."""
    return _by_split(recipe, splits, "reasoning/{task}/{split}.jsonl", _json_lines)


def aqua(recipe: Recipe, splits: Splits) -> Written:
    """AQuA's JSON lines in a .json file: question, options, rationale, correct."""
    return _by_split(recipe, splits, "reasoning/{task}/{split}.json", _json_lines)


def plain_text(recipe: Recipe, splits: Splits) -> Written:
    """Text to pre-train on as most corpora come: JSON lines with a field `text`."""
    return _by_split(
        recipe, splits, "{family}/{task}/{split}.jsonl",
        lambda records: _json_lines([{"text": record} for record in records]),
        reader="json_lines",
    )  # fmt: skip


def dialogue(recipe: Recipe, splits: Splits) -> Written:
    """ConvAI2's dialogues without personas and candidates: `N said<TAB>answered`, from 1 in each dialogue."""

    def text(records):
        return "".join(
            f"{number} {said}\t{answered}\n"
            for turns in records
            for number, (said, answered) in enumerate(zip(turns[::2], turns[1::2], strict=True), start=1)
        )

    form = "{family}/{task}/{split}_none_original_no_cands.txt"
    return _by_split(recipe, splits, form, text, reader="numbered")


WRITERS: Mapping[str, Callable[[Recipe, Splits], Written]] = {
    writer.__name__: writer
    for writer in (
        super_ni, promptsource, flan, crossfit, parallel, cogs, boolq, news, wmt, dart, e2e, fetaqa, spider,
        cot, gsm8k, aqua, plain_text, dialogue,
    )
}  # fmt: skip
