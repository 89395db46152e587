"""What a SeqIO user gets from the registry: tasks, mixtures, token features, the evaluator."""

import builtins
import functools
import io
import pathlib

import numpy as np
import pytest

pytest.importorskip("seqio")

from iml import fingerprints, seqio_bridge
from iml.bench import registry
from iml.bench.card import TaskCard
from iml.bench.levels import load_split_scheme
from iml.bench.mixing import Mixture
from iml.bench.subsets import ExampleSubset
from iml.data.prompts import Prompt
from iml.data.tokens import encode_prompts
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.prepare import prepare_task
from iml.seqio_bridge import seqio
from tasks import mixtures, pocket, super_natural_instructions

POCKET_VOCABULARY = pathlib.Path(pocket.__file__).parent / "vocabulary"
LENGTHS = {"inputs": 2048, "targets": 512}
PREFIX = "super_natural_instructions."


@pytest.fixture(autouse=True)
def empty_registries(monkeypatch):
    """Every test begins and ends without tasks."""
    monkeypatch.setenv(seqio_bridge.VOCABULARY_VARIABLE, str(POCKET_VOCABULARY))
    _clear()
    yield
    _clear()


def _clear():
    for name in registry.names():
        seqio_bridge.remove_task(name)
    for name in list(seqio.MixtureRegistry.names()):
        seqio.MixtureRegistry.remove(name)


def features(name, split="train", number=None, **options):
    """Task features of a task or mixture before any feature converter."""
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        LENGTHS, split, shuffle=False, num_epochs=1, **options
    )
    return list(dataset.take(number or -1).as_numpy_iterator())


def expected_ids(vocabulary, source, target):
    return encode_prompts(vocabulary, [Prompt(source, target, {})], 10**6)[0].tokens.tolist()


def add(name, rows, **options):
    """Registers a task from (source, target) pairs."""

    def read(split):
        return ({"uid": str(i), "source": a, "target": b} for i, (a, b) in enumerate(rows))

    card = TaskCard(name, name.partition(".")[0], "Question Answering", metrics=("exact_match", "rouge_l"))
    return seqio_bridge.add_task(
        card, source=seqio_bridge.PythonSource(read, ("train", "validation")), **options
    )


def test_token_features_are_those_of_training():
    rows = [
        ("Q: a?", "b"),
        ("ends  ", " c \n"),
        ("line\n", "d"),
        ("", "no source"),
        ("é 😀\t", "x\r\n y"),
        ("a", ""),
    ]
    add("own.awkward", rows)
    vocabulary = Vocabulary(POCKET_VOCABULARY)
    for (source, target), fields in zip(rows, features("own.awkward"), strict=True):
        ids = [*fields["inputs"].tolist(), *fields["targets"].tolist()]
        assert ids == expected_ids(vocabulary, source, target)
        assert fields["inputs"].dtype == fields["targets"].dtype == np.int32
        assert ids[-1] == Vocabulary.EOS and fields["inputs_pretokenized"].decode() == source
    assert not features("own.awkward")[3]["inputs"].size


def test_the_mixture_over_the_embedded_benchmark_yields_model_features():
    pocket.register("")
    scheme = load_split_scheme("pocket")
    mixture = mixtures.add_mixture(
        "small", Mixture(split_scheme="pocket", tasks=(PREFIX + "pocket_w*",), eps=100)
    )
    levels = {task.name: scheme.level(registry.card(task.name)) for task in mixture.tasks}
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert set(levels.values()) == {"supervised", "partially_held_out", "fully_held_out"}
    for name, rate in rates.items():
        mixed = name.startswith(PREFIX + "pocket_w") and levels[name] == "supervised"
        assert 0 < rate <= 100 if mixed else rate == 0

    dataset = seqio.get_dataset(
        "small",
        {"inputs": 160, "targets": 32},
        feature_converter=seqio.PrefixLMFeatureConverter(pack=True),
        dataset_split="train",
        shuffle=False,
    )
    vocabulary = Vocabulary(POCKET_VOCABULARY)
    for row in dataset.take(4).as_numpy_iterator():
        targets, weights = row["decoder_target_tokens"], row["decoder_loss_weights"]
        for segment in range(1, row["decoder_segment_ids"].max() + 1):
            inside = row["decoder_segment_ids"] == segment
            target = vocabulary.decode(targets[inside & (weights > 0)].tolist())
            source = vocabulary.decode(targets[inside & (weights == 0)].tolist())
            assert target.startswith(" ") and targets[inside][-1] == Vocabulary.EOS
            assert targets[inside].tolist() == expected_ids(vocabulary, source, target[1:])


def test_a_mixture_of_some_examples_is_refused():
    add("own.one", [("a", "b")] * 4)
    with pytest.raises(InputError, match=r"Mixture\.examples"):
        mixtures.add_mixture("some", Mixture(examples=ExampleSubset(share=0.5)))
    assert "some" not in seqio.MixtureRegistry.names()


def test_the_mixture_over_genuine_tasks(real_data, tmp_path):
    home = tmp_path / "super_natural_instructions"
    for folder in ("tasks", "splits/default"):
        (home / folder).mkdir(parents=True)
    chosen = ("task003_", "task121_", "task1386_", "task1387_")  # the last two are of a held-out category
    for path in (real_data / PREFIX[:-1] / "tasks").glob("*.json"):
        if path.name.startswith(chosen):
            (home / "tasks" / path.name).symlink_to(path)
    seqio_bridge.set_vocabulary(real_data / "opt_bpe")
    super_natural_instructions.register(str(tmp_path))
    mixture = mixtures.add_mixture()
    rates = {
        task.name.removeprefix(PREFIX).partition("_")[0]: mixture.get_rate(task) for task in mixture.tasks
    }
    assert rates.keys() == {"task003", "task121", "task1386", "task1387"}
    assert rates["task003"] == 22 and rates["task1386"] == rates["task1387"] == 0

    vocabulary = Vocabulary(real_data / "opt_bpe")
    kept = ("inputs_pretokenized", "targets_pretokenized")
    rows = features("opt_iml", passthrough_features=kept)
    assert len(rows) > 10
    for row in rows:
        source, target = (row[name].decode() for name in kept)
        ids = [*row["inputs"].tolist(), *row["targets"].tolist()]
        assert ids == expected_ids(vocabulary, source, target)


def test_the_evaluator_runs_a_registered_task():
    add("own.capitals", [(f"What is {i}?", f"Number {i}") for i in range(8)])
    evaluator = seqio.Evaluator("own.capitals", seqio.EncDecFeatureConverter(pack=False))

    def predict(dataset):
        ids = np.stack([fields["decoder_target_tokens"] for _, fields in dataset.as_numpy_iterator()])
        ids[:4] = ids[3]
        return list(enumerate(ids.tolist()))

    metrics, _ = evaluator.evaluate(compute_metrics=True, step=0, predict_fn=predict)
    scores = metrics.result()["own.capitals"]
    assert scores["exact_match"] == pytest.approx(100 * 5 / 8)
    assert scores["rouge_l"] == pytest.approx(100 * (5 + 3 * 0.5) / 8)


def test_a_task_may_bring_its_own_metrics_and_every_reference_counts():
    def share_right(targets, predictions):
        return {"right": float(np.mean([p in t for t, p in zip(targets, predictions, strict=True)]))}

    def read(split):
        return [{"uid": "0", "source": "2 + 2 =", "target": "4", "references": ["4", "four"]}]

    source = seqio_bridge.PythonSource(read, ("validation",))
    card = TaskCard("own.sums", "own", "Mathematics")
    seqio_bridge.add_task(card, source=source, metric_fns=[share_right])
    evaluator = seqio.Evaluator("own.sums", seqio.EncDecFeatureConverter(pack=False))
    vocabulary = Vocabulary(POCKET_VOCABULARY)
    for answer, share in (("four", 1.0), ("five", 0.0)):
        predictions = [(0, vocabulary.encode(answer))]
        metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=lambda _, p=predictions: p)
        assert metrics.result()["own.sums"] == {"right": share}


PLAIN = "plain_capitals_v001"


@pytest.fixture
def plain(tmp_path):
    """A task as SeqIO's users register them: cached, tokenised, with a random choice and a metric of text."""
    file = tmp_path / "lines.tsv"
    file.write_text("".join(f"Country {i}\tTown {i}\n" for i in range(20)))

    @seqio.map_over_dataset
    def parse(line):
        parts = tf.strings.split(line, "\t")
        return {"country": parts[0], "town": parts[1]}

    @seqio.map_over_dataset(num_seeds=1)
    def ask(fields, seed):
        number = tf.strings.as_string(tf.random.stateless_uniform([], seed, 0, 10**6, tf.int32))
        return {**fields, "question": tf.strings.join(["Question ", number, ": ", fields["country"], "?"])}

    def keep(dataset, sequence_length, output_features):
        assert sequence_length in (None, LENGTHS) and "targets" in output_features
        return dataset

    def share_right(targets, predictions):
        return {"right": float(np.mean([t == p for t, p in zip(targets, predictions, strict=True)]))}

    tf = seqio_bridge.tf
    vocabulary = seqio.ByteVocabulary()
    seqio.TaskRegistry.add(
        PLAIN,
        source=seqio.TextLineDataSource({"train": str(file), "validation": str(file)}),
        preprocessors=[
            parse,
            seqio.CacheDatasetPlaceholder(),
            ask,
            functools.partial(seqio.preprocessors.rekey, key_map={"inputs": "question", "targets": "town"}),
            keep,
            functools.partial(seqio.preprocessors.tokenize, with_eos=False),
            seqio.preprocessors.append_eos,
        ],
        output_features={name: seqio.Feature(vocabulary) for name in ("inputs", "targets")},
        metric_fns=[share_right],
    )
    yield
    seqio.TaskRegistry.remove(PLAIN)


def test_a_plain_seqio_task_is_taken_as_it_is(plain):
    card = TaskCard("own.capitals", "own", "Question Answering")
    seqio_bridge.add_seqio_task(card, PLAIN)
    rows = list(seqio_bridge.read_fields("own.capitals", "train"))
    assert [row["targets"] for row in rows] == [f"Town {i}" for i in range(20)]
    assert len({row["inputs"].partition(":")[0] for row in rows}) == 20
    assert list(seqio_bridge.read_fields("own.capitals", "train")) == rows  # random choices too
    seen = features("own.capitals", seed=seqio_bridge.SEED)
    assert [fields["inputs_pretokenized"].decode() for fields in seen] == [row["inputs"] for row in rows]
    converter = seqio.EncDecFeatureConverter(pack=False)
    evaluator = seqio.Evaluator("own.capitals", converter, sequence_length=LENGTHS)

    def predict(dataset):
        ids = np.stack([fields["decoder_target_tokens"] for _, fields in dataset.as_numpy_iterator()])
        return list(enumerate(ids[np.arange(20) // 2 * 2].tolist()))

    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
    assert metrics.result()["own.capitals"] == {"right": 0.5}
    with pytest.raises(InputError, match=rf"no task 'plain_capitals'.*Did you mean {PLAIN}"):
        seqio_bridge.add_seqio_task(card, "plain_capitals")


def test_targets_that_are_no_text_are_told(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("a\nb\n")
    source = seqio.TextLineDataSource({"train": str(file)})
    label = [lambda dataset: dataset.map(lambda line: {"inputs": line, "targets": 1})]
    seqio_bridge.add_task(TaskCard("own.labels", "own", "Misc."), source=source, preprocessors=label)
    outcome = prepare_task("own.labels", str(tmp_path / "store"))
    assert "example 0 of train: must be a string, not 1" in outcome.failure
    text = [lambda dataset: dataset.map(lambda line: {"targets": line})]
    seqio_bridge.add_task(TaskCard("own.text", "own", "Misc."), source=source, preprocessors=text)
    assert not prepare_task("own.text", str(tmp_path / "store")).failure


def test_a_file_beside_the_sources_own_counts(tmp_path):
    lines, beside = tmp_path / "lines.txt", tmp_path / "prompt.txt"
    lines.write_text("a\nb\n")

    def ask(dataset):
        asked = beside.read_text()
        return dataset.map(lambda line: {"inputs": asked, "targets": line})

    for asked in ("First?", "Second?"):
        beside.write_text(asked)
        fingerprints.hash_file.cache_clear()
        source = seqio.TextLineDataSource({"train": str(lines)})
        card = TaskCard("own.asked", "own", "Misc.")
        seqio_bridge.add_task(card, source=source, preprocessors=[ask], files=[beside])
        assert not prepare_task("own.asked", str(tmp_path / "store")).reused
        assert prepare_task("own.asked", str(tmp_path / "store")).reused
        seqio_bridge.remove_task("own.asked")


def test_a_source_without_files_is_prepared_whatever_its_splits_are_called(tmp_path, monkeypatch):
    def make(split, shuffle_files, seed=None):
        return seqio_bridge.tf.data.Dataset.from_tensors({"inputs": "a", "targets": "b"})

    source = seqio.FunctionDataSource(make, splits=["train"])
    seqio_bridge.add_task(TaskCard("own.made", "own", "Misc."), source=source)
    (tmp_path / "train").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not prepare_task("own.made", "store").failure


def test_a_name_is_registered_once_and_can_be_taken_back():
    add("own.one", [("a", "b")])
    with pytest.raises(InputError, match=r"already a task own\.one"):
        add("own.one", [("c", "d")])
    assert seqio.get_mixture_or_task("own.one").name == registry.card("own.one").name
    assert features("own.one")[0]["inputs_pretokenized"] == b"a"
    seqio_bridge.remove_task("own.one")
    assert registry.names() == () and "own.one" not in seqio.TaskRegistry.names()
    add("own.one", [("c", "d")])
    # What SeqIO knows already, and the bench does not, leaves no card behind.
    registry.remove("own.one")
    with pytest.raises(ValueError, match="duplicate"):
        add("own.one", [("e", "f")])
    assert registry.names() == ()
    seqio.TaskRegistry.remove("own.one")


def test_no_vocabulary_is_told(monkeypatch):
    monkeypatch.delenv(seqio_bridge.VOCABULARY_VARIABLE)
    with pytest.raises(InputError, match=r"set_vocabulary\(folder\) or set IML_VOCABULARY"):
        seqio_bridge.SeqioVocabulary().encode("a")


def test_registration_opens_no_data_file(real_data, monkeypatch):
    opened = []

    def watched(open_file):
        def watch(file, *args, **kwargs):
            opened.append(str(file))
            return open_file(file, *args, **kwargs)

        return watch

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", watched(builtins.open))
        patch.setattr(io, "open", watched(io.open))
        super_natural_instructions.register(str(real_data))
        mixtures.add_mixture()
    assert len(registry.names()) == 1405
    assert [file for file in opened if file.startswith(str(real_data))] == [
        str(real_data / "super_natural_instructions" / "splits" / "default" / "test_tasks.txt")
    ]
