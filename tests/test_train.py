"""The entry point on a tiny store: records, plans, stopping, what it shows, what it imports."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from iml import configuration
from iml.data.store import task_folder
from iml.errors import InputError
from iml.train import CONFIGURABLES, FLAGS, train
from iml.training.loop import REQUEUE
from iml.training.loss_scale import LossScale
from iml.training.optimizer import Lomo
from tests.data.small_vocabulary import write_vocabulary
from tests.training import tiny


@pytest.fixture
def folder(tmp_path):
    tiny.prepare(tmp_path)
    return tmp_path


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_its_plan_and_records(folder, capsys):
    last = tiny.run(folder, steps=30, leak_probe=True, microbatches=2)
    run = folder / "run"
    logged = records(run)
    assert [record["step"] for record in logged] == list(range(2, 31, 2))
    assert logged[-1] == last
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]
    assert set(last["benchmark_loss"]) == {"exmix", "flan", "t5"}
    assert 0.5 < last["fill"] <= 1 and 0 <= last["input_wait"] <= 1
    plan = json.loads((run / "plan.json").read_text())
    assert sum(plan["counts"].values()) == plan["epoch_size"]
    assert sum(benchmark["share"] for benchmark in plan["benchmarks"].values()) == pytest.approx(1)
    assert plan["attention"] == "blocks" and "jax" in plan["versions"]
    assert {path.name for path in run.iterdir()} == {
        *("config.gin", "plan.json", "model.json", "metrics.jsonl"),
        *("vocabulary", "checkpoints", "tensorboard"),
    }
    assert tiny.run(folder, steps=30, microbatches=2) == {}
    assert "has 30 of 30 steps: nothing to do" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": Lomo(learning_rate=0.1, warmup_steps=2)},
        # It begins so large that the first steps overflow, and grows again soon after.
        {"model": {"dtype": "float16"}, "loss_scale": LossScale(initial=2.0**11, window=16)},
    ],
    ids=["lomo", "float16"],
)
def test_a_run_goes_on_from_a_checkpoint_bit_by_bit(folder, settings):
    settings |= {"steps": 9, "checkpoint_period": 4, "keep": None, "log_period": 1}
    tiny.run(folder, **settings)
    run, expected = folder / "run", tiny.digest(folder / "run")
    assert tiny.steps(run) == (0, 4, 8, 9)
    measured = ("step", "loss", "grad_norm", "learning_rate", "loss_scale", "skipped")
    logged = [{name: record.get(name) for name in measured} for record in records(run)]
    assert logged[-1]["loss"] < logged[0]["loss"]
    if "loss_scale" in settings:
        skipped = [record["skipped"] for record in logged]
        assert skipped[0] == 1 and 0 in skipped and len({record["loss_scale"] for record in logged}) > 2
    # The second time nothing is left but the checkpoint before the first step.
    for lost in ((8, 9), (4, 8, 9)):
        for step in lost:
            shutil.rmtree(run / "checkpoints" / str(step))
        tiny.run(folder, **settings)
        assert tiny.digest(run) == expected
        assert [{name: record.get(name) for name in measured} for record in records(run)] == logged


def test_a_dry_run_says_what_would_be_done_and_does_nothing(folder, capsys):
    tiny.run(folder, dry_run=True)
    said = " ".join(capsys.readouterr().out.split())
    for part in ("flan.t1", "exmix", "mesh data=1", "model of 27,968 parameters"):
        assert part in said
    assert not (folder / "run").exists()


def test_what_a_step_sees_is_the_same_from_a_checkpoint(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    tiny.run(folder, show_step="5", show_lanes="0,3")
    from_the_start = capsys.readouterr().out
    assert "step 5, lane 0" in from_the_start and "step 5, lane 3" in from_the_start
    assert not (folder / "run").exists()
    tiny.run(folder, steps=6, checkpoint_period=4)
    capsys.readouterr()
    tiny.run(folder, show_step="5", show_lanes="0,3")
    assert capsys.readouterr().out == from_the_start
    with pytest.raises(InputError, match=r"--show_step.*not a whole number"):
        tiny.run(folder, show_step="last")


@pytest.mark.slow
def test_a_run_from_kept_token_ids_is_the_same_run(folder, capsys, monkeypatch):
    monkeypatch.setattr("iml.data.token_cache.SHARD", 512)
    settings = {"target_budget": 12, "cache_dir": str(folder / "cache")}
    expected = tiny.run(folder, run="plain", target_budget=12)
    assert tiny.run(folder, cache_tokens=True, **settings) == {}
    assert "kept 512 draws" in capsys.readouterr().out and not (folder / "run").exists()
    found = tiny.run(folder, **settings)
    assert found["loss"] == expected["loss"] and found["step"] == 6
    assert tiny.digest(folder / "run") == tiny.digest(folder / "plain")
    with pytest.raises(InputError, match=r"train\.cache_dir"):
        tiny.run(folder, cache_tokens=True)


@pytest.mark.parametrize(("flag", "kept"), [("--cache_tokens", 256), ("--cache_tokens=100", 128)])
def test_the_command_line_keeps_token_ids_of_an_epoch_or_of_so_many_draws(
    folder, capsys, monkeypatch, flag, kept
):
    monkeypatch.setattr("iml.data.token_cache.SHARD", 64)
    monkeypatch.chdir(folder)
    settings = {
        **{"STORE_DIR": "store", "VOCABULARY_DIR": "vocabulary", "RUN_DIR": "run", "LENGTH": tiny.LENGTH},
        **{"Mixture.split_scheme": "splits_none.json", "train.cache_dir": "cache"},
    }
    bindings = [f"--gin.{name}={value}" for name, value in settings.items()]
    argv = ["--gin_file=models/opt_125m.gin", "--gin_file=runs/finetune.gin", *bindings, flag]
    assert configuration.run(train, doc="", configurables=CONFIGURABLES, flags=FLAGS, argv=argv) == {}
    assert f"kept {kept} draws" in capsys.readouterr().out and not (folder / "run").exists()


def test_the_doctor_measures_and_writes_nothing(folder, capsys):
    found = tiny.run(folder, doctor=True)
    assert (
        found["attention"] == "blocks"
        and found["kernel_error"] < 1e-4
        and found["tokens_per_second"] > 0
        and found["compile_seconds"] > 0
    )
    assert "no other" in capsys.readouterr().out and not (folder / "run").exists()


def wait_for_records(run, process):
    """Waits until a run has begun to train."""
    path = run / "metrics.jsonl"
    while not (path.exists() and path.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.slow
def test_sigterm_saves_and_asks_for_another_start(folder):
    settings = {"checkpoint_period": 500_000, "log_period": 1}
    # So many steps that no machine is done with them before the signal reaches it.
    process = tiny.start(folder, steps=100_000, **settings)
    wait_for_records(folder / "run", process)
    process.send_signal(signal.SIGTERM)
    assert "asks for another start" in tiny.finish(process, status=REQUEUE)
    stopped = max(tiny.steps(folder / "run"))
    assert 0 < stopped < 100_000
    assert records(folder / "run")[-1]["step"] == stopped
    again = tiny.start(folder, steps=stopped + 50, **settings)
    assert f"goes on after step {stopped}" in tiny.finish(again)
    assert [record["step"] for record in records(folder / "run")] == list(range(1, stopped + 51))


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_at_the_same_step(folder):
    processes = tiny.start_many(folder, 2, steps=100_000, log_period=1, leak_probe=True)
    wait_for_records(folder / "run", processes[0])
    processes[1].send_signal(signal.SIGTERM)
    tiny.finish(*processes, status=REQUEUE)
    assert max(tiny.steps(folder / "run")) == records(folder / "run")[-1]["step"] > 0


def test_a_task_that_cannot_be_read_does_not_end_the_run(folder):
    index = json.loads((folder / "store" / "index.json").read_text())
    fingerprint = index["tasks"]["t5.t2"]["fingerprint"]
    for file in task_folder(folder / "store", "t5.t2", fingerprint).glob("*.array_record"):
        file.write_bytes(b"\0" * file.stat().st_size)
    last = tiny.run(folder, steps=4)
    assert set(last["benchmark_loss"]) == {"exmix", "flan"}
    with pytest.raises(InputError, match=r"t5\.t2"):
        tiny.run(folder, run="strict", steps=4, strict=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length": 65}, r"train\.length.*longer than the model's 64 positions"),
        ({"model": {"vocab_size": 100}}, r"OPTConfig\.vocab_size.*272"),
        ({"microbatches": 3}, r"train\.batch_size"),
        ({"optimizer": Lomo(), "microbatches": 2}, r"train\.microbatches.*does not go with LOMO"),
        ({"mesh": {"data": 3}}, "does not fit 1 devices"),
        ({"log_period": 0}, r"train\.log_period"),
        ({"keep": 0}, r"train\.keep.*at least 1, or None for all"),
        ({"num_processes": "2"}, "--coordinator_address"),
    ],
)
def test_settings_that_cannot_work_are_named(folder, changes, said):
    with pytest.raises(InputError, match=said):
        tiny.run(folder, dry_run=True, **changes)
    assert not (folder / "run").exists()


@pytest.mark.parametrize("mixture", ["opt_iml", "opt_iml_max", "natural"])
def test_every_mixture_goes_with_the_base_run(mixture, tmp_path, monkeypatch):
    files = ["models/opt_125m.gin", f"mixtures/{mixture}.gin", "runs/finetune.gin"]
    called = {}

    class Stop(Exception):
        pass

    def record(store, vocabulary, mixture, prompt_format, *shape, **_):
        called.update(mixture=mixture, prompt_format=prompt_format, shape=shape)
        raise Stop

    monkeypatch.setattr("iml.data.stream.TrainStream", record)
    monkeypatch.setattr("iml.data.store.ExampleStore", lambda path: None)
    vocabulary = write_vocabulary(tmp_path).directory
    bindings = ['STORE_DIR = "s"', f'VOCABULARY_DIR = "{vocabulary}"', 'RUN_DIR = "r"']
    with pytest.raises(Stop):
        configuration.configure(train, CONFIGURABLES, files, bindings)(dry_run=True)
    assert called["shape"] == (256, 2048)
    assert called["mixture"].eps == 4096
    assert called["mixture"].split_scheme == ("opt_iml_max" if mixture == "opt_iml_max" else "opt_iml")
    shares = called["mixture"].proportions
    assert shares is None if mixture == "natural" else sum(shares.values()) == pytest.approx(1)


def test_what_is_required_is_asked_for():
    files = ["models/opt_125m.gin", "mixtures/opt_iml.gin", "runs/finetune.gin"]
    with pytest.raises(InputError, match="VOCABULARY_DIR"):
        configuration.configure(train, CONFIGURABLES, files, ['STORE_DIR = "s"', 'RUN_DIR = "r"'])


def loaded(code):
    """Modules that a process has loaded after running some code."""
    code += "\nimport sys; print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tiny.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return set(said.rpartition("LOADED")[2].split())


def test_importing_the_entry_point_loads_nothing_heavy():
    heavy = {"jax", "flax", "optax", "orbax", "tensorstore", "torch", "tensorflow", "seqio", "transformers"}
    assert not loaded("import iml.train") & heavy


def test_training_loads_neither_tensorflow_nor_seqio_nor_torch(folder):
    code = (
        f"import pathlib; from tests.training import tiny; tiny.run(pathlib.Path({str(folder)!r}), steps=2)"
    )
    assert not loaded(code) & {"tensorflow", "tensorflow_datasets", "seqio", "torch", "transformers"}
    assert pathlib.Path(folder / "run" / "checkpoints" / "2").exists()
