"""What the programs that measure on one GPU share: a process for each case, the table, OPT's arithmetic."""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

#: (layers, width, heads); the vocabulary is OPT's, or a small one.
MODELS = {
    "tiny": (2, 64, 4),
    "125m": (12, 768, 12),
    "1.3b": (24, 2048, 32),
    "2.7b": (32, 2560, 32),
    "6.7b": (32, 4096, 32),
    "30b": (48, 7168, 56),
}
VOCABULARY = 50272

Record = dict[str, Any]


def transformers_config(shape: tuple[int, int, int], vocabulary: int, length: int, **settings: Any) -> Any:
    """transformers' configuration of an OPT of a shape as in `MODELS`."""
    from transformers import OPTConfig

    layers, width, heads = shape
    return OPTConfig(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_attention_heads=heads,
        max_position_embeddings=length,
        **settings,
    )


def run_cases(
    script: str,
    cases: Sequence[Record],
    tries: str,
    options: Sequence[str],
    limit: float,
    tell: Callable[[list[Record]], Any],
) -> list[Record]:
    """Runs each case in a process, `script --case=JSON --deadline=SECONDS` and the options.

    Args:
      cases: with "seconds", after which a case is ended, and sizes that are tried in turn.
      tries: the name of these sizes, such as "rows".
      limit: seconds for all of them together.
      tell: gets what is known so far after each case.

    Returns:
      The cases with what their processes printed as their last line; what went wrong stands under "failed".
    """
    began = time.monotonic()
    found: list[Record] = []
    for case in cases:
        left = limit - (time.monotonic() - began)
        print(
            *(value for value in case.values() if isinstance(value, str)), "...", file=sys.stderr, flush=True
        )
        if left < 15:
            found.append({**case, "failed": "no time left"})
        else:
            found.append(_run_case(script, case, tries, options, left - 5))
        tell(found)
    return found


def _run_case(script: str, case: Record, tries: str, options: Sequence[str], limit: float) -> Record:
    ends = time.monotonic() + min(case["seconds"], limit)
    told = []
    for number in case[tries]:
        left = ends - time.monotonic()
        if left < 10:
            told.append(f"{number} {tries}: no time left")
            break
        command = [sys.executable, script, f"--case={json.dumps({**case, tries: [number]})}", *options]
        command += [f"--deadline={left - 5}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            told.append(f"{number} {tries}: not ready after {left:.0f} s")
            break
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode == 0 and lines:
            return {**case, **json.loads(lines[-1]), "tried": told}
        error = done.stderr.strip().splitlines() or ["no message"]
        told.append(f"{number} {tries}: {_reason(done.returncode, error)}")
        if "skip:" in error[-1]:
            break
    return {**case, "failed": "; ".join(told)}


def _reason(code: int, error: Sequence[str]) -> str:
    if any("out of memory" in line.lower() or "RESOURCE_EXHAUSTED" in line for line in error):
        return "out of memory"
    return f"killed by signal {-code}" if code < 0 else error[-1][:300]


def write(
    folder: pathlib.Path,
    found: Sequence[Record],
    columns: Sequence[str],
    cells: Callable[[Record], list[str]],
) -> str:
    """Writes `results.json` and `table.md`; returns the table.

    Args:
      cells: the first cells of a case's line; the last one, remarks, is put at its end.
    """
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for record in found:
        line = cells(record)
        remarks = record.get("failed") or "; ".join(record.get("tried", ()))
        line += [""] * (len(columns) - 1 - len(line)) + [remarks.replace("|", "/").replace("\n", " ")]
        lines.append(f"| {' | '.join(line)} |")
    table = "\n".join(lines) + "\n"
    machine = {"date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0], "argv": sys.argv[1:]}
    (folder / "results.json").write_text(json.dumps({"machine": machine, "cases": found}, indent=1) + "\n")
    (folder / "table.md").write_text(table)
    return table


def forward_flops(
    shape: tuple[int, int, int], vocabulary: int, positions: float, logits: float, pairs: float
) -> float:
    """Model FLOPs of a forward pass.

    2 for each parameter that a position is multiplied with, position table left out and the token table only where
    logits are taken, and 4 * layers * width for each pair of a query and a key that it sees.
    """
    layers, width, _ = shape
    layer = 4 * (width * width + width) + 8 * width * width + 5 * width + 4 * width
    products = 2.0 * (positions * (layers * layer + 2 * width) + logits * vocabulary * width)
    return products + 4.0 * layers * width * pairs


def peak_flops(device: str) -> float | None:
    """The chip's dense bfloat16 peak, FLOP/s; None if it is not known."""
    from iml.training.chips import find_chip

    chip = find_chip(device)
    return chip and chip.peak


def jax_device() -> Record:
    """What JAX computes on, its version, and the most memory, in bytes, that it has taken."""
    import jax

    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "device": device.device_kind,
        "memory": memory or _resident(),
        "versions": {"jax": jax.__version__},
    }


def torch_device() -> Record:
    """The same of PyTorch and transformers."""
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "memory": torch.cuda.max_memory_allocated() if on_gpu else _resident(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
