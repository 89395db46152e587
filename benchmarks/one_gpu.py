"""What one GPU makes of OPT: iml's train step beside transformers' (and peft's) in PyTorch, case by case.

    python benchmarks/one_gpu.py --store=DIR --vocabulary=DIR [--output=DIR] [--minutes=8]
    python benchmarks/one_gpu.py [--output=DIR]           rows of random tokens instead of a store's
    python benchmarks/one_gpu.py --small                  tiny models, on any machine, to try the program

Rows are packed to 2,048 positions; attention is causal within a document; activations are bfloat16, parameters
and Adam's state float32 in full tuning. Both sides take the same rows; iml takes the loss at the target
positions, PyTorch ignores the others' labels. Every case runs in a process of its own with a limit of time. One
that fails or finds no memory with its first number of rows tries the next smaller; after the last it is reported,
and the rest goes on. `results.json` and `table.md` in the output folder are written anew after each case.

MFU is model FLOPs over the time and the chip's dense bfloat16 peak. Model FLOPs are 6 for each parameter that a
position is multiplied with (position table left out; the token table only where the loss is taken, for iml, and
everywhere for PyTorch, which takes it so) and 12 * layers * width for each visible pair of a query and a key, which
leaves out what a causal document mask hides. Recomputation does not count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gpu_cases
import numpy as np
import packed_rows
from gpu_cases import MODELS, VOCABULARY

SMALL_VOCABULARY = 512
#: Steps that are timed, after those that compile and warm up.
TIMED, WARM = 6, 2
#: Share of tokens that are learnt in rows of random tokens.
TARGETS = 0.15
COLUMNS = (
    "model",
    "tuning",
    "side",
    "attention",
    "rows",
    "tokens/s",
    "MFU",
    "memory GiB",
    "ratio",
    "remarks",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
      model: a name of `MODELS`.
      tuning: "full", "lora" (rank 16 on q and v, base bfloat16) or "qlora" (the same, base NF4).
      side: "iml" or "torch".
      rows: rows of a step, tried in turn.
      remat: what iml recomputes; PyTorch checkpoints its layers unless it is "none".
      seconds: after which it is ended.
    """

    model: str
    tuning: str
    side: str
    rows: tuple[int, ...]
    remat: str
    seconds: int


def cases(small: bool) -> list[Case]:
    """The cases in the order of their weight."""
    if small:
        plans = [("tiny", "full", (2,), "none", 240), ("tiny", "lora", (2,), "full", 240)]
        plans += [("tiny", "qlora", (2,), "full", 240)]
    else:
        plans = [
            ("1.3b", "full", (16, 8, 4), "full", 80),
            ("125m", "full", (32, 16, 8), "none", 60),
            ("6.7b", "full", (8, 4, 2), "full", 100),
            ("6.7b", "lora", (16, 8, 4), "full", 80),
            ("30b", "qlora", (8, 4, 2), "full", 100),
        ]
    return [
        Case(model, tuning, side, rows, remat, seconds)
        for model, tuning, rows, remat, seconds in plans
        for side in ("iml", "torch")
    ]


# ------------------------------------------------------------------------------------ the parent


def prepare(arguments: argparse.Namespace, path: pathlib.Path) -> None:
    """Writes the rows that all cases take theirs from."""
    length, rows = (256, 4) if arguments.small else (arguments.length, 64)
    if arguments.store:
        batch = _stored(arguments, length, rows)
    else:
        batch = packed_rows.make_batch(
            rows, length, SMALL_VOCABULARY if arguments.small else VOCABULARY, TARGETS
        )
    np.savez(path, **batch)


def _stored(arguments: argparse.Namespace, length: int, rows: int) -> dict[str, np.ndarray]:
    from iml.bench.mixing import Mixture
    from iml.data.prompts import PromptFormat
    from iml.data.store import ExampleStore
    from iml.data.stream import TrainStream
    from iml.data.vocabulary import Vocabulary

    stream = TrainStream(
        ExampleStore(arguments.store),
        Vocabulary(arguments.vocabulary),
        Mixture(split_scheme=arguments.split_scheme),
        PromptFormat(),
        rows,
        length,
        target_budget=length // 4,
    )
    batches = stream.batches(stream.initial_state(), list(range(rows)), threads=1)
    batch, _ = next(batches)
    batches.close()
    return {name: array for name, array in batch.items() if name != "example_ids"}


def cells(record: dict[str, Any], found: list[dict[str, Any]]) -> list[str]:
    """A case's line of the table."""
    names = [record["model"], record["tuning"], record["side"]]
    if "failed" in record:
        return names
    others = (
        other["tokens_per_second"]
        for other in found
        if other["side"] == "torch"
        and "tokens_per_second" in other
        and all(other[name] == record[name] for name in ("model", "tuning"))
    )
    peer = next(others, None) if record["side"] == "iml" else None
    rate = record["tokens_per_second"]
    return [
        *names,
        record["attention"],
        str(record["rows_used"]),
        f"{rate:,.0f}",
        "" if record.get("mfu") is None else f"{record['mfu']:.1%}",
        f"{record['memory'] / 2**30:.1f}",
        f"{rate / peer:.2f}" if peer else "",
    ]


def parent(arguments: argparse.Namespace) -> int:
    """Runs all cases; 0 if at least one gave figures."""
    began = time.monotonic()
    folder = pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "rows.npz"
    prepare(arguments, rows)
    wanted = set(arguments.only.split(",")) if arguments.only else None
    chosen = [
        dataclasses.asdict(case)
        for case in cases(arguments.small)
        if wanted is None or {case.model, case.side, case.tuning} & wanted
    ]

    def tell(found: list[dict[str, Any]]) -> str:
        return gpu_cases.write(folder, found, COLUMNS, lambda record: cells(record, found))

    options = [f"--rows_file={rows}", f"--attention={arguments.attention}"]
    options += ["--small"] if arguments.small else []
    left = 60 * arguments.minutes - (time.monotonic() - began)
    found = gpu_cases.run_cases(__file__, chosen, "rows", options, left, tell)
    print(tell(found))
    return 0 if any("failed" not in record for record in found) else 1


# ---------------------------------------------------------------------------------- the children


def model_flops(case: Case, vocabulary: int, batch: dict[str, np.ndarray]) -> float | None:
    """Model FLOPs of a step over these rows; None where not every parameter is trained."""
    if case.tuning != "full":
        return None
    places = batch["tokens"].size
    at = batch["target_positions"].size if case.side == "iml" and "target_positions" in batch else places
    pairs = packed_rows.visible_pairs(batch["segment_ids"])
    return 3 * gpu_cases.forward_flops(MODELS[case.model], vocabulary, places, at, pairs)


def take_rows(path: str, rows: int) -> dict[str, np.ndarray]:
    """The first rows of the file, again from the start where it has fewer."""
    with np.load(path) as file:
        return {name: np.take(file[name], np.arange(rows) % len(file[name]), axis=0) for name in file}


def timed(steps: Iterator[float], deadline: float) -> tuple[list[float], float]:
    """Seconds of each step after those that warm up, and the last loss."""
    seconds: list[float] = []
    loss = float("nan")
    for number in range(WARM + TIMED):
        began = time.perf_counter()
        loss = next(steps)
        if number >= WARM:
            seconds.append(time.perf_counter() - began)
        if len(seconds) >= 3 and time.monotonic() > deadline:
            break
    return seconds, loss


def iml_case(
    case: Case, vocabulary: int, batch: dict[str, np.ndarray], attention: str, deadline: float
) -> dict[str, Any]:
    """iml's own step, as `iml.train` builds it."""
    import jax
    import jax.numpy as jnp

    from iml.models.config import OPTConfig
    from iml.models.opt import OPT
    from iml.training import mesh, optimizer, step
    from iml.training.rules import PartitionRules
    from iml.training.tuning import make_tuning
    from iml.training.tunings import LoRA

    layers, width, heads = MODELS[case.model]
    config = OPTConfig(
        vocab_size=vocabulary,
        num_layers=layers,
        embed_dim=width,
        num_heads=heads,
        max_positions=batch["tokens"].shape[1],
        dropout=0.0,
        dtype="bfloat16",
        remat=case.remat,
        attention=attention,
    )
    lora = None
    if case.tuning != "full":
        lora = LoRA(rank=16, dropout=0.0, base="nf4" if case.tuning == "qlora" else "bfloat16")
    model, devices = OPT(config, lora=lora), mesh.make_mesh(mesh.MeshConfig(), jax.devices()[:1])
    tuning = make_tuning(lora)
    adam = optimizer.AdamConfig(learning_rate=1e-5, warmup_steps=1)
    update = optimizer.make_optimizer(adam, 10**6, tuning.split(model.logical_axes())[0])
    schedule = optimizer.make_schedule(adam, 10**6)
    layout = step.lay_out(model, update, PartitionRules(), devices, tuning)
    train_step = step.make_train_step(model, update, schedule, layout, devices)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        """Random values, made leaf by leaf: a whole model in float32 need not fit beside a quantised one."""
        name = path[-1].key
        key = jax.random.key(abs(hash(str(path))) % 2**31)
        make: Callable[[], jax.Array]
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            make = lambda: jax.random.bits(key, leaf.shape, jnp.uint8).astype(leaf.dtype)  # noqa: E731
        elif name in ("scale", "bias", "lora_b", "scales", "offset"):
            value = {"scale": 1.0, "scales": 0.01, "offset": 0.05}.get(name, 0.0)
            make = lambda: jnp.full(leaf.shape, value, leaf.dtype)  # noqa: E731
        else:
            make = lambda: 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)  # noqa: E731
        return jax.block_until_ready(jax.jit(make, out_shardings=leaf.sharding)())

    params = jax.tree_util.tree_map_with_path(fill, layout.placed.params)
    frozen = jax.tree_util.tree_map_with_path(fill, layout.frozen)
    state = step.begin(layout, update, params)
    arrays, key = jax.device_put(batch), jax.random.key(0)

    def steps(state: Any) -> Iterator[float]:
        while True:
            state, metrics = train_step(state, frozen, arrays, key)
            jax.block_until_ready(state)
            yield float(metrics["loss_sum"] / metrics["target_tokens"])

    seconds, loss = timed(steps(state), deadline)
    return {
        "seconds": seconds,
        "loss": loss,
        "attention": model.config.attention,
        **gpu_cases.jax_device(),
    }


def torch_case(
    case: Case, vocabulary: int, batch: dict[str, np.ndarray], attention: str, deadline: float
) -> dict[str, Any]:
    """transformers' OPT, with peft's adapters where they are asked for; the faster of its attentions."""
    import torch

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch._dynamo.config.recompile_limit = 64  # beyond it layers would fall back to eager without a word
    model = _torch_model(case, vocabulary, batch["tokens"].shape[1], device)
    model.config.use_cache = False
    if case.remat != "none":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if case.tuning != "full":
            model.enable_input_require_grads()
    for layer in _decoder(model).layers:
        layer.compile()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    arrays = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
    labels = torch.where(arrays["loss_weights"] > 0, arrays["targets"], -100).long()
    tokens, positions = arrays["tokens"].long(), arrays["positions"].long()
    ids, length = arrays["segment_ids"], arrays["segment_ids"].shape[1]

    @torch.compile
    def loss_of(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, head)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    def mask_for(kind: str) -> Any:
        if kind == "flex_attention":
            from torch.nn.attention.flex_attention import create_block_mask

            def seen(row, head, query, key):
                return (query >= key) & (ids[row, query] == ids[row, key])

            return create_block_mask(seen, len(ids), None, length, length, device=device)
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        return ((ids[:, :, None] == ids[:, None, :]) & causal)[:, None]

    def steps(mask: Any) -> Iterator[float]:
        head = model.get_output_embeddings().weight
        while True:
            with torch.autocast(device.type, torch.bfloat16):
                hidden = _decoder(model)(tokens, attention_mask=mask, position_ids=positions)
                loss = loss_of(hidden.last_hidden_state, head, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adam.step()
            adam.zero_grad()
            yield loss.item()

    found: dict[str, Any] = {}
    problems = {}
    for kind in ("flex_attention", "sdpa") if on_gpu else ("sdpa",):
        if found and time.monotonic() > deadline - 15:
            break
        try:
            model.set_attn_implementation(kind)
            seconds, loss = timed(steps(mask_for(kind)), deadline)
        except torch.OutOfMemoryError:
            raise
        except (
            Exception
        ) as error:  # an attention that this model or machine does not have is not the peer's best
            problems[kind] = f"{type(error).__name__}: {str(error)[:200]}"
            continue
        if not found or statistics.median(seconds) < statistics.median(found["seconds"]):
            found = {"seconds": seconds, "loss": loss, "attention": kind}
    if not found:
        raise RuntimeError(f"no attention works: {problems}")
    return {**found, "problems": problems, **gpu_cases.torch_device()}


def _decoder(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model.decoder


def _torch_model(case: Case, vocabulary: int, length: int, device: Any) -> Any:
    import torch
    from transformers import OPTForCausalLM

    shape = MODELS[case.model]
    config = gpu_cases.transformers_config(shape, vocabulary, length, dropout=0.0, layerdrop=0.0)
    if case.tuning == "full":
        with torch.device(device):
            return OPTForCausalLM(config).float().train()
    try:
        import peft
    except ImportError as error:
        raise SystemExit(f"skip: peft is not installed ({error})") from error
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta" if case.tuning == "qlora" else device):
            model = OPTForCausalLM(config)
    finally:
        torch.set_default_dtype(kind)
    if case.tuning == "qlora":
        try:
            import bitsandbytes
        except ImportError as error:
            raise SystemExit(f"skip: bitsandbytes is not installed ({error})") from error
        model = _quantised(model, bitsandbytes, device)
    adapters = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(model, adapters).train()


def _quantised(model: Any, bitsandbytes: Any, device: Any) -> Any:
    """Fills a model that has no weights yet, its layers' projections in NF4, one after the other."""
    import torch

    def fill(module: Any) -> None:
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name != "lm_head":
                linear = bitsandbytes.nn.Linear4bit(
                    child.in_features,
                    child.out_features,
                    compute_dtype=torch.bfloat16,
                    compress_statistics=True,
                    quant_type="nf4",
                )
                weight = 0.02 * torch.randn(child.out_features, child.in_features, dtype=torch.bfloat16)
                linear.weight = bitsandbytes.nn.Params4bit(
                    weight, requires_grad=False, compress_statistics=True, quant_type="nf4"
                )
                linear.bias = torch.nn.Parameter(torch.zeros(child.out_features, dtype=torch.bfloat16))
                setattr(module, name, linear.to(device))
            else:
                fill(child)

    fill(model)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                made = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)
                setattr(module, name, torch.nn.Parameter(made, requires_grad=False))
    model.tie_weights()
    return model


def child(arguments: argparse.Namespace) -> None:
    """Runs one case and prints its figures as the last line."""
    fields = json.loads(arguments.case)
    rows = fields.pop("rows")[0]
    case = Case(**fields, rows=(rows,))
    batch = take_rows(arguments.rows_file, rows)
    vocabulary = SMALL_VOCABULARY if arguments.small else VOCABULARY
    deadline = time.monotonic() + float(arguments.deadline)
    side = iml_case if case.side == "iml" else torch_case
    found = side(case, vocabulary, batch, arguments.attention, deadline)
    median = statistics.median(found["seconds"])
    tokens = int((batch["segment_ids"] > 0).sum())
    counted = model_flops(case, vocabulary, batch)
    peak = gpu_cases.peak_flops(found["device"])
    found |= {
        "rows_used": rows,
        "tokens_per_second": tokens / median,
        "model_flops": counted,
        "mfu": counted / median / peak if counted and peak else None,
    }
    print(json.dumps(found))


def main() -> int:
    """Runs all cases, or the one that the parent names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="a prepared store; rows of random tokens without one")
    parser.add_argument("--vocabulary")
    parser.add_argument("--split_scheme", default="opt_iml")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--output", default="one_gpu")
    parser.add_argument("--minutes", type=float, default=7.8)
    parser.add_argument("--attention", default="auto", help="iml's attention")
    parser.add_argument("--only", help="models, tunings or sides, such as 125m,lora")
    parser.add_argument("--small", action="store_true")
    for name in ("case", "rows_file", "deadline"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store and not arguments.vocabulary:
        parser.error("--store needs --vocabulary")
    if arguments.case:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
        child(arguments)
        return 0
    return parent(arguments)


if __name__ == "__main__":
    sys.exit(main())
