"""iml's train step on the CPU beside transformers' OPT in PyTorch: the same rows, weights, Adam and threads.

    python benchmarks/train_step.py [--models=tiny,125m] [--targets=1.0,0.1] [--peers=plain] [--threads=1]

Both compute in float32, without dropout, from the same random weights. Rows hold documents with lengths like
those of OPT-IML Bench (log-normal, mean about 270 tokens), and both see the same document mask and positions.
The peer uses `scaled_dot_product_attention` under that mask and the fused AdamW. With a share of target tokens
below 1, iml takes the loss at those positions. transformers ignores the others' labels; the peers named
"gathered" leave out their logits as well, which transformers does not do by itself.

The two run in processes of their own that take turns, step by step; the one that waits uses no processor. Shown
are medians and the ratio of iml's tokens/s to the peer's, over the steps after the first two of each. The ratio of
the processors' seconds stands beside it, for a machine that others use as well: with --threads=1 those hardly
depend on the others.

The last columns are the difference of the two losses before any update, which tells whether both compute the same,
and the largest of all steps: there rounding has grown, see docs/training_speed.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import statistics
import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import packed_rows

#: (layers, width, heads, vocabulary), positions of a row, rows of a batch.
MODELS = {
    "tiny": ((2, 64, 4, 50272), 512, 4),
    "pocket": ((3, 128, 4, 1280), 512, 8),
    "125m": ((12, 768, 12, 50272), 512, 2),
    "125m-long": ((12, 768, 12, 50272), 2048, 1),
}
#: The default of `train.loss_chunk`.
LOSS_CHUNK = 1024
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, CLIP = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0


@dataclasses.dataclass(frozen=True)
class Case:
    """What both sides compute.

    Attributes:
      model: a name of `MODELS`.
      targets: share of the tokens that are learnt, at the end of each document.
      threads: threads of each side.
      peer: a name of `PEERS`.
      seed: of weights and rows.
    """

    model: str
    targets: float
    threads: int
    peer: str
    seed: int = 0


def make_batch(case: Case) -> dict[str, np.ndarray]:
    """The rows that both sides compute."""
    (_, _, _, vocabulary), length, rows = MODELS[case.model]
    return packed_rows.make_batch(rows, length, vocabulary, case.targets, seed=case.seed)


def _config(case: Case) -> Any:
    from iml.models.config import OPTConfig

    (layers, width, heads, vocabulary), length, _ = MODELS[case.model]
    shape = {"num_layers": layers, "embed_dim": width, "num_heads": heads, "vocab_size": vocabulary}
    return OPTConfig(**shape, max_positions=length, dropout=0.0, dtype="float32")


def iml_steps(case: Case, weights: str) -> Iterator[float]:
    """Makes the weights, then a step a turn; the loss of each."""
    import jax

    from iml.models import weights_hf
    from iml.models.opt import OPT
    from iml.training import mesh, optimizer, step
    from iml.training.rules import PartitionRules

    config = _config(case)
    devices, model = mesh.make_mesh(mesh.MeshConfig()), OPT(config)
    adam = optimizer.AdamConfig(LEARNING_RATE, *BETAS, EPSILON, WEIGHT_DECAY, warmup_steps=0, clip=CLIP)
    steps = 10**9  # so long a run that the rate does not fall
    update = optimizer.make_optimizer(adam, steps, model.logical_axes())
    layout = step.lay_out(model, update, PartitionRules(), devices)
    train_step = step.make_train_step(
        model, update, optimizer.make_schedule(adam, steps), layout, devices, loss_chunk=LOSS_CHUNK
    )
    params = jax.jit(model.init, out_shardings=layout.shardings.params)(jax.random.key(case.seed))
    weights_hf.write(weights, config, params)
    state = step.begin(layout, update, params)
    batch, key = jax.device_put(make_batch(case)), jax.random.key(0)
    yield float("nan")
    while True:
        state, metrics = train_step(state, {}, batch, key)
        jax.block_until_ready(state)
        yield float(metrics["loss_sum"] / metrics["target_tokens"])


def torch_steps(case: Case, weights: str) -> Iterator[float]:
    """Loads the weights, then a step a turn; the loss of each."""
    import torch
    from transformers import OPTForCausalLM

    torch.set_num_threads(case.threads)
    model = OPTForCausalLM.from_pretrained(weights, attn_implementation="sdpa", dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.model.decoder.layers:
        layer.dropout = 0.0
    model.model.decoder.dropout = 0.0
    model.train()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, fused=True)
    arrays = {name: torch.from_numpy(array) for name, array in make_batch(case).items()}
    ids, length = arrays["segment_ids"], arrays["segment_ids"].shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    mask = ((ids[:, :, None] == ids[:, None, :]) & causal)[:, None]
    labels = torch.where(arrays["loss_weights"] > 0, arrays["targets"], -100).long()
    tokens, positions = arrays["tokens"].long(), arrays["positions"].long()

    learnt = (labels != -100).flatten().nonzero()[:, 0] if "gathered" in case.peer else None

    def loss_of(tokens, mask, positions, labels):
        inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        if learnt is None:
            return torch.nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten())
        hidden = model.model(**inputs).last_hidden_state.flatten(0, 1)[learnt]
        return torch.nn.functional.cross_entropy(model.lm_head(hidden), labels.flatten()[learnt])

    if "compiled" in case.peer:
        loss_of = torch.compile(loss_of)
    yield float("nan")
    while True:
        loss = loss_of(tokens, mask, positions, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
        adam.zero_grad()
        yield loss.item()


#: What stands beside iml: transformers' model and loss as they are; compiled; logits at the targets alone.
PEERS = ("plain", "compiled", "gathered", "compiled-gathered")
SIDES = {"iml": iml_steps, "torch": torch_steps}


def _serve(side: str, case: Case, weights: str, pipe: Any) -> None:
    os.sched_setaffinity(
        0, sorted(os.sched_getaffinity(0))[: case.threads]
    )  # XLA has no other setting for it
    try:
        steps = SIDES[side](case, weights)
        next(steps)
        pipe.send("ready")
        while pipe.recv():
            began, used = time.perf_counter(), time.process_time()
            loss = next(steps)
            pipe.send((time.perf_counter() - began, time.process_time() - used, loss))
    except EOFError:
        pass
    except BaseException:
        pipe.send(traceback.format_exc())


class Worker:
    """One side in a process of its own."""

    def __init__(self, side: str, case: Case, weights: str):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(side, case, weights, theirs), daemon=True)
        self._process.start()
        if (told := self._pipe.recv()) != "ready":
            raise RuntimeError(told)

    def step(self) -> tuple[float, float, float]:
        """Seconds, seconds of processors and loss of its next step."""
        self._pipe.send(True)
        if isinstance(told := self._pipe.recv(), str):
            raise RuntimeError(told)
        return told

    def end(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def measure(case: Case, repeats: int, scratch: pathlib.Path) -> dict[str, Any]:
    """Both sides' median seconds a step, tokens/s, their ratio, and the differences of the losses."""
    weights = str(scratch / f"{case.model}_{case.targets}_{case.peer}")
    workers: dict[str, Worker] = {}
    try:
        for side in SIDES:
            workers[side] = Worker(side, case, weights)
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        processor: dict[str, list[float]] = {side: [] for side in SIDES}
        differences = []
        for number in range(repeats + 2):
            losses = []
            for side in SIDES if number % 2 else reversed(SIDES):
                took, used, loss = workers[side].step()
                losses.append(loss)
                if number >= 2:  # the first compiles
                    seconds[side].append(took)
                    processor[side].append(used)
            differences.append(abs(losses[0] - losses[1]))
    finally:
        for worker in workers.values():
            worker.end()
    batch = make_batch(case)
    median = {side: statistics.median(found) for side, found in seconds.items()}
    ratios = [theirs / ours for ours, theirs in zip(seconds["iml"], seconds["torch"], strict=True)]
    return {
        **dataclasses.asdict(case),
        "rows": batch["tokens"].shape[0],
        "length": batch["tokens"].shape[1],
        "target_tokens": int(batch["loss_weights"].sum()),
        "iml_seconds": median["iml"],
        "torch_seconds": median["torch"],
        "iml_tokens_per_second": batch["tokens"].size / median["iml"],
        "torch_tokens_per_second": batch["tokens"].size / median["torch"],
        "iml_processor_seconds": statistics.median(processor["iml"]),
        "torch_processor_seconds": statistics.median(processor["torch"]),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "first_loss_difference": differences[0],
        "loss_difference": max(differences),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measures and prints one line a case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="tiny,125m")
    parser.add_argument("--targets", default="1.0,0.1", help="shares of the tokens that are learnt")
    parser.add_argument("--peers", default="plain", help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", help="write the figures there as JSON")
    arguments = parser.parse_args()
    import tempfile

    found = []
    columns = (
        "model",
        "rows",
        "targets",
        "peer",
        "iml tokens/s",
        "PyTorch tokens/s",
        "ratio",
        "by processor",
    )
    print("|", " | ".join((*columns, "first loss difference", "largest")), "|")
    print("|---" * (len(columns) + 2) + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models.split(","):
            for targets in map(float, arguments.targets.split(",")):
                for peer in arguments.peers.split(","):
                    case = Case(model, targets, arguments.threads, peer)
                    one = measure(case, arguments.repeats, pathlib.Path(scratch))
                    found.append(one)
                    print(
                        f"| {model} | {one['rows']} x {one['length']} | {targets:.0%} | {peer} "
                        f"| {one['iml_tokens_per_second']:,.0f} | {one['torch_tokens_per_second']:,.0f} "
                        f"| {one['ratio']:.2f} ({one['ratio_least']:.2f} to {one['ratio_most']:.2f}) "
                        f"| {one['torch_processor_seconds'] / one['iml_processor_seconds']:.2f} "
                        f"| {one['first_loss_difference']:.1e} | {one['loss_difference']:.1e} |",
                        flush=True,
                    )
    if arguments.output:
        pathlib.Path(arguments.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
