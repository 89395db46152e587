"""Plans: sizes against real arrays, exchanges against a program's text, a step compiled for a TPU."""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from iml import configuration
from iml.errors import InputError
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training import analytic, flops, machines, mesh, optimizer, planner, step
from iml.training.chips import find_chip
from iml.training.collectives import Collective, collectives
from iml.training.mesh import MeshConfig
from iml.training.rules import PartitionRules
from iml.training.tunings import BitFit
from tests.training import tiny

MODEL = OPTConfig(
    vocab_size=512, num_layers=3, embed_dim=256, num_heads=4, max_positions=256, remat="full", dropout=0.0
)


def job(**changes):
    settings = {
        "model": MODEL,
        "optimizer": optimizer.AdamConfig(),
        "mesh": MeshConfig(data=1, fsdp=-1),
        "rules": PartitionRules(),
        "steps": 1000,
        "batch_size": 8,
        "length": 256,
        "microbatches": 1,
        "segments": 16,
        "target_budget": 64,
    }
    return planner.Job(**settings | changes)


def shape(model: OPTConfig) -> OPTConfig:
    return model


def test_what_is_kept_is_what_real_arrays_take():
    network = OPT(MODEL)
    update = optimizer.make_optimizer(optimizer.AdamConfig(), 10, network.logical_axes())
    layout = step.lay_out(network, update, PartitionRules(), mesh.make_mesh(MeshConfig()))
    params = network.init(jax.random.key(0))
    state = step.begin(layout, update, params)
    sizes = {
        name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        for name, tree in (("parameters", state.params), ("optimiser", state.opt_state))
    }
    plan = planner.plan(job(), "h200:1")
    assert plan.memory["parameters"] == sizes["parameters"]
    assert plan.memory["optimiser"] == pytest.approx(sizes["optimiser"], rel=1e-4)
    split = planner.plan(job(), "h200:8").memory
    # Queries', keys', values' and the feed-forward's biases are whole on every chip.
    assert sizes["parameters"] // 8 <= split["parameters"] < 1.03 * sizes["parameters"] / 8


def test_time_is_bound_by_the_slowest_limit():
    one, eight = (planner.plan(job(), f"h200:{count}") for count in (1, 8))
    for plan in (one, eight):
        assert plan.serial_seconds == sum(plan.seconds_by_limit.values()) and plan.serial_mfu < plan.mfu
        assert plan.seconds == max(plan.seconds_by_limit.values()) and not plan.compiled and plan.fits
        assert plan.hours == pytest.approx(1000 * plan.seconds / 3600)
        assert plan.mfu == pytest.approx(
            plan.model_flops / plan.seconds / (plan.chips * find_chip("h200").peak)
        )
    counted = 8 * 256 * flops.flops_per_token(MODEL, 256, learnt=0.25)
    assert one.model_flops == counted and one.done_flops == pytest.approx(4 / 3 * counted)
    assert not one.exchanges and {each.kind for each in eight.exchanges} == {"all-gather", "reduce-scatter"}
    whole = planner.plan(job(model=dataclasses.replace(MODEL, remat="none"), target_budget=None), "h200:1")
    assert whole.saved > 4 * one.saved and whole.memory["temporaries"] > one.memory["temporaries"]


@pytest.mark.parametrize("size", ["125m", "350m", "1.3b", "2.7b", "6.7b", "13b", "30b", "66b", "175b"])
def test_parameters_are_counted_as_transformers_counts_them(size):
    torch = pytest.importorskip("torch", reason="the peer")
    transformers = pytest.importorskip("transformers", reason="the peer")
    bindings = ["shape.model = @OPTConfig()"]
    model = configuration.configure(shape, (OPTConfig,), [f"models/opt_{size}.gin"], bindings)()
    with torch.device("meta"):
        peer = transformers.OPTForCausalLM(
            transformers.OPTConfig(
                vocab_size=model.vocab_size,
                hidden_size=model.embed_dim,
                num_hidden_layers=model.num_layers,
                ffn_dim=model.mlp_dim,
                num_attention_heads=model.num_heads,
                word_embed_proj_dim=model.word_dim,
                do_layer_norm_before=model.pre_norm,
            )
        )
    assert sum(leaf.numel() for leaf in peer.parameters()) == model.num_parameters()


def test_arithmetic_is_what_xla_counts():
    # Plain attention computes all pairs, twice what a causal row needs; a scan of one layer is counted in full.
    model = OPTConfig(
        vocab_size=1024,
        num_layers=1,
        embed_dim=512,
        num_heads=8,
        max_positions=256,
        remat="none",
        dropout=0.0,
        dtype="float32",
        attention="xla",
    )
    network = OPT(model)
    rows = jax.ShapeDtypeStruct((4, 256), jnp.int32)

    def loss(params, tokens):
        return (network.apply(params, tokens, jnp.ones_like(tokens), tokens % 256) ** 2).sum()

    lowered = jax.jit(jax.grad(loss)).lower(network.abstract_params(), rows)
    counted = 4 * 256 * flops.flops_per_token(model, 2 * 256)
    assert lowered.cost_analysis()["flops"] == pytest.approx(counted, rel=0.03)


def test_suggestions_fit_and_come_quickest_first():
    large = job(model=OPTConfig(num_layers=48, embed_dim=7168, num_heads=56), batch_size=256, length=2048)
    plans = planner.suggest(large, "h200:64")
    assert plans and all(plan.fits for plan in plans)
    assert [plan.seconds for plan in plans] == sorted(plan.seconds for plan in plans)
    assert not planner.suggest(large, "h200:1")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 100, "microbatches": 8}, r"train\.batch_size.*100 rows cannot be divided into 8"),
        ({"optimizer": optimizer.Lomo(), "microbatches": 2}, r"train\.microbatches.*does not go with LOMO"),
        ({"optimizer": optimizer.Lomo(), "tuning": BitFit()}, r"train\.tuning.*does not go with LOMO"),
    ],
)
def test_what_training_refuses_is_not_planned(changes, said):
    with pytest.raises(InputError, match=said):
        planner.plan(job(**changes), "h200:1")


@pytest.mark.parametrize("topology", ["v9:2x2", "h200", "v5p:4by4", "h200:0.5"])
def test_unknown_machines_are_refused(topology):
    with pytest.raises(InputError, match="no such machine"):
        planner.plan(job(), topology)


PROGRAM = """
%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: bf16[64,8]) -> bf16[16,8] {
  %r = bf16[64,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3}}, to_apply=%sum
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = f32[16,8]{1,0} all-gather(%w), replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}
  %f = bf16[16,8]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %n = s32[] constant(24)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%condition, body=%body
  %r = f32[4]{0} all-reduce(%p), replica_groups=[1,8], to_apply=%sum
  %b = (f32[], f32[3]{0}) all-reduce(%p, %p), channel_id=9, replica_groups=[1,8], to_apply=%sum
  %s = (f32[2], f32[16]) all-gather-start(%p), channel_id=5, replica_groups=[1,8], dimensions={0}
  %t = f32[16]{0} all-gather(%p), channel_id=5, replica_groups=[1,8], dimensions={0}
  ROOT %c = f32[8]{0} collective-permute(%p), source_target_pairs={{0,1}}
}
"""


def test_exchanges_in_loops_count_as_often_as_they_turn():
    assert collectives(PROGRAM) == [
        # The second line of a channel is the first one's other half.
        Collective("all-gather", 24 + 1, 24 * 0.75 * 16 * 8 * 4 + 7 / 8 * 16 * 4),
        Collective("all-reduce", 2, 2 * 7 / 8 * (4 + 4) * 4),
        Collective("collective-permute", 1, 8 * 4),
        Collective("reduce-scatter", 24, 24 * 0.75 * 64 * 8 * 2),
    ]


def command(*flags, **settings):
    words = [sys.executable, "-m", "iml.precompile", *flags, "--gin_file=models/opt_125m.gin"]
    words += ["--gin_file=mixtures/opt_iml.gin", "--gin_file=runs/finetune.gin"]
    words += [f"--gin.{name}=none" for name in ("STORE_DIR", "VOCABULARY_DIR", "RUN_DIR")]
    words += [f"--gin.{name}={value}" for name, value in settings.items()]
    return subprocess.run(
        words, cwd=tiny.ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )


def test_the_command_plans_from_gin_files_and_opens_nothing(tmp_path):
    done = command("--topology=h200:8,a100:16", "--suggest", f"--output={tmp_path / 'plans.json'}")
    assert done.returncode == 0, done.stderr
    plans = json.loads((tmp_path / "plans.json").read_text())
    assert [(plan["topology"], plan["chips"], plan["by"]) for plan in plans] == [
        ("h200:8", 8, "analytic model"),
        ("a100:16", 16, "analytic model"),
    ]
    assert plans[0]["num_parameters"] == OPTConfig().num_parameters()
    assert "meshes that fit" in done.stdout and "not compiled" in done.stdout
    assert "reckoning for a100:16, 16 chips" in done.stdout
    refused = command()
    assert refused.returncode and "--topology" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu compiles for TPUs")
def test_a_step_is_compiled_for_a_tpu_slice(tmp_path):
    settings = {"MeshConfig.data": 1, "MeshConfig.fsdp": 4, "BATCH_SIZE": 8, "train.target_budget": 512}
    done = command("--topology=v5p:2x2x1", f"--output={tmp_path / 'plans.json'}", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    [plan] = json.loads((tmp_path / "plans.json").read_text())
    assert plan["by"] == "compiler" and plan["fits"] and plan["chips"] == 4
    parameters = OPTConfig().num_parameters()
    # All but biases and scales is split over the four chips.
    assert plan["memory"]["parameters"] == pytest.approx(parameters, rel=0.01)
    assert plan["memory"]["optimiser"] == pytest.approx(2 * parameters, rel=0.01)
    gathered = plan["exchanges"]["all-gather"]["bytes"]
    layers = 12 * 12 * 768**2 * 2
    assert 0.9 * 2 * 0.75 * layers < gathered < 4 * 0.75 * layers
    assert 0 < plan["mfu"] <= 1 and math.isfinite(plan["seconds"])


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu says what a TPU slice is")
@pytest.mark.parametrize(("remat", "kernels"), [("none", 2), ("dots", 2), ("attention", 2), ("full", 3)])
def test_attention_runs_forward_again_only_where_all_is_recomputed(remat, kernels):
    model = dataclasses.replace(MODEL, num_heads=2, remat=remat)
    one = job(model=model, mesh=MeshConfig(data=1, fsdp=4))
    train_step, abstract = planner.step_of(one, mesh.make_mesh(one.mesh, machines.tpu_devices("v5p:2x2x1")))
    assert train_step.lower(*abstract).as_text().count("tpu_custom_call") == kernels


@pytest.fixture
def two_cores():
    """Lets processes started meanwhile compute on two cores: every further one has some memory of its own."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize(("remat", "mesh"), [("full", {}), ("none", {"fsdp": 4, "tensor": 2})])
def test_a_running_step_takes_what_its_plan_says(remat, mesh, two_cores):
    spec = importlib.util.spec_from_file_location(
        "planner_memory", tiny.ROOT / "benchmarks/planner_memory.py"
    )
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # dataclasses look their module up
    spec.loader.exec_module(benchmark)
    found = benchmark.run(benchmark.Case("tiny", 16, remat, mesh))
    assert found["kept, state"] == found["kept, plan"]
    # Beside it lie the step's number, the key, the metrics and the table of benchmarks.
    assert found["kept, plan"] < found["kept, all live"] <= found["kept, plan"] + 64
    if mesh:  # devices that take turns reach their peaks one after the other
        return
    assert found["temporaries, resident"] == pytest.approx(found["temporaries, compiler"], rel=0.1)
    assert found["temporaries, analytic"] == pytest.approx(found["temporaries, resident"], rel=0.15)


#: Temporaries that libtpu 0.0.42 found for the steps of the committed plans, which take minutes to compile.
PLANS = [
    (size, plan)
    for size in ("30b", "175b")
    for plan in json.loads((tiny.ROOT / f"docs/plans/opt_iml_{size}.json").read_text())
]


@pytest.mark.parametrize(("size", "plan"), PLANS, ids=lambda value: value if isinstance(value, str) else "")
def test_reckoned_memory_is_near_that_of_compiled_plans(size, plan):
    bindings = ["shape.model = @OPTConfig()", f"OPTConfig.remat = {plan['remat']!r}"]
    model = configuration.configure(shape, (OPTConfig,), [f"models/opt_{size}.gin"], bindings)()
    planned = job(
        model=model,
        mesh=MeshConfig(**plan["mesh"]),
        batch_size=plan["batch_size"],
        length=plan["length"],
        segments=64,
        target_budget=plan["target_budget"],
    )
    reckoned = analytic.memory(planned, plan["mesh"], "tpu")
    for kind in ("parameters", "optimiser", "batch"):
        assert reckoned[kind] == plan["memory"][kind]
    assert reckoned["temporaries"] == pytest.approx(plan["memory"]["temporaries"], rel=0.18)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["full", "attention", "dots"])
def test_temporaries_are_near_what_the_cpu_compiler_allocates(remat):
    model = OPTConfig(
        vocab_size=4096,
        num_layers=4,
        embed_dim=256,
        num_heads=8,
        max_positions=256,
        remat=remat,
        dropout=0.0,
        dtype="float32",
    )
    one = job(model=model, batch_size=16, target_budget=None, segments=8)
    device = mesh.make_mesh(MeshConfig())
    train_step, abstract = planner.step_of(one, device)
    used = train_step.lower(*abstract).compile().memory_analysis()
    reckoned = analytic.temporaries(one, dict(device.shape), "cpu")
    assert reckoned == pytest.approx(used.temp_size_in_bytes, rel=0.15)
