"""What one GPU makes of evaluating OPT: iml's engine beside transformers, on MMLU's prompts.

    python benchmarks/gpu_evaluation.py --vocabulary=DIR --store=DIR [--output=DIR] [--model=6.7b] [--minutes=7.8]
    python benchmarks/gpu_evaluation.py --vocabulary=DIR           random words instead of a store's MMLU
    python benchmarks/gpu_evaluation.py --vocabulary=DIR --small   a tiny model, on any machine, to try the program

Works: "rank", the four candidates of 5-shot questions, up to 48 of every seventh subject; "generate", greedy
answers of 128 tokens to 0-shot prompts; "whole", ranking for all of the store's MMLU. Sides: "iml"; "rows",
transformers reading each candidate with its whole prompt, in a row of its own; "once", transformers reading each
prompt once, and behind its cache all its candidates; "static", transformers' `generate`. Parameters and activations
are bfloat16, weights random. With --small they are float32 and the same on both sides, whose scores must then agree
to 1e-3.

Every case runs in a process of its own with a limit of time, its batch sizes tried in turn until memory suffices.
One that fails is a line with its reason. `results.json` and `table.md` in the output folder are written after each.

Encoding text is timed; compiling is told apart. There are two rates of tokens: "computed" counts the positions
that went through the model, without padding; "asked" each candidate with its whole prompt. MFU is the model FLOPs
of what was computed (see `gpu_cases.forward_flops`) over the time and the chip's dense bfloat16 peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gpu_cases
import mmlu_questions
import numpy as np
from gpu_cases import MODELS, VOCABULARY
from mmlu_questions import Counted, Encoded, Question

from iml.data.vocabulary import Vocabulary

#: Positions of the model, and timed runs at most.
LENGTH, RUNS = 2048, 3


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is asked: every so many subjects, questions of each, prompts to answer, tokens of an answer."""

    subjects: int = 7
    questions: int = 48
    prompts: int = 256
    tokens: int = 128


SMALL = Sizes(29, 4, 8, 8)
RATES = "questions/s,tokens/s asked,tokens/s computed,new tokens/s"
COLUMNS = f"model,work,side,batch,{RATES},MFU,memory GiB,compiling s,iml / this,remarks".split(",")


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table.

    Attributes:
      model: a name of `gpu_cases.MODELS`.
      work, side: see above.
      batch: sizes to try: rows of a batch, or for iml rows of `LENGTH`, in whose place it takes more shorter ones.
      seconds: after which it is ended.
    """

    model: str
    work: str
    side: str
    batch: tuple[int, ...]
    seconds: int


def cases(model: str) -> list[Case]:
    """The cases in the order of their weight."""
    plans = [
        ("rank", "iml", (32, 16, 8), 130),
        ("rank", "rows", (128, 64, 32), 120),
        ("rank", "once", (64, 32, 16), 80),
        ("generate", "iml", (32, 16, 8), 80),
        ("generate", "static", (256, 128, 64), 70),
        ("whole", "iml", (32, 16, 8), 110),
    ]
    return [Case(model, *plan) for plan in plans]


# ------------------------------------------------------------------------------------ the parent


def prepare(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    """Writes the questions of each work, and with --small the weights that both sides take."""
    sizes = SMALL if arguments.small else Sizes()
    make = partial(mmlu_questions.drawn, Vocabulary(arguments.vocabulary))
    if arguments.store:
        make = partial(mmlu_questions.stored, arguments.store)
    found = {
        "rank": make(sizes.subjects, sizes.questions, shots=5),
        "generate": make(1, -(-sizes.prompts // 57), shots=0)[: sizes.prompts],
        "whole": make(sizes.subjects if arguments.small else 1, None, shots=5),
    }
    (folder / "questions.json").write_text(json.dumps(found))
    if arguments.small:
        import jax

        from iml.models import weights_hf
        from iml.models.opt import OPT

        config = _config(arguments.model, "float32")
        params = jax.jit(OPT(config).init)(jax.random.key(0))
        # Fresh weights make every token as likely as any other; larger ones have opinions.
        params = jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, params)
        shutil.rmtree(folder / "weights", ignore_errors=True)
        weights_hf.write(folder / "weights", config, params, arguments.vocabulary)


def _config(model: str, dtype: str) -> Any:
    from iml.models.config import OPTConfig

    layers, width, heads = MODELS[model]
    return OPTConfig(
        VOCABULARY, layers, width, heads, max_positions=LENGTH, dropout=0.0, dtype=dtype, param_dtype=dtype
    )


def compare(record: dict[str, Any], ours: dict[str, Any]) -> None:
    """Sets a peer's answers against iml's, where both were kept."""
    if record["side"] == "iml" or "answers" not in record or "answers" not in ours:
        return
    pairs = list(zip(ours["answers"], record["answers"], strict=True))
    if record["work"] == "generate":
        told = f"{sum(mine == theirs for mine, theirs in pairs)} of {len(pairs)} answers equal"
    else:
        worst = max(float(np.abs(np.subtract(*pair)).max()) for pair in pairs)
        told = f"scores within {worst:.0e}"
        if not worst < 1e-3:
            record["failed"] = told
    record["tried"] = [*record["tried"], told]


def of_iml(record: dict[str, Any], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What iml made of the same work; {} if nothing is known."""
    ours = (other for other in found if other["work"] == record["work"] and other["side"] == "iml")
    return next(ours, {})


def cells(record: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """A case's line of the table."""
    names = [record["model"], record["work"], record["side"]]
    if "failed" in record:
        return names
    unit = "new_per_second" if record["work"] == "generate" else "questions_per_second"
    ratio = ours[unit] / record[unit] if record["side"] != "iml" and unit in ours else None
    return [
        *names,
        str(record["batch_used"]),
        *(f"{record[f'{name}_per_second']:,.1f}" for name in ("questions", "asked", "computed")),
        f"{record['new_per_second']:,.1f}" if record["new_per_second"] else "",
        "" if record["mfu"] is None else f"{record['mfu']:.1%}",
        f"{record['memory'] / 2**30:.1f}",
        record["compiling"] if isinstance(record["compiling"], str) else f"{record['compiling']:.1f}",
        "" if ratio is None else f"{ratio:.2f}",
    ]


def parent(arguments: argparse.Namespace) -> int:
    """Runs all cases; 0 if at least one gave figures and none disagrees."""
    began, folder = time.monotonic(), pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"--vocabulary={arguments.vocabulary}", f"--output={folder}", f"--model={arguments.model}"]
    options += ["--small"] if arguments.small else []
    store = [f"--store={arguments.store}"] if arguments.store else []
    # In a process of its own: one that has met an accelerator keeps its memory.
    command = [sys.executable, __file__, "--prepare", *options, *store]
    subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    wanted = set(arguments.only.split(",")) if arguments.only else None
    chosen = [case for case in cases(arguments.model) if wanted is None or {case.work, case.side} & wanted]
    small = {"batch": (4, 2)} if arguments.small else {}
    records = [dataclasses.asdict(case) | small for case in chosen]

    def tell(found: list[dict[str, Any]]) -> str:
        compare(found[-1], of_iml(found[-1], found))
        return gpu_cases.write(folder, found, COLUMNS, lambda each: cells(each, of_iml(each, found)))

    left = 60 * arguments.minutes - (time.monotonic() - began)
    found = gpu_cases.run_cases(__file__, records, "batch", options, left, tell)
    print((folder / "table.md").read_text())
    # Where answers were kept a failure is that they differ.
    differ = any("answers" in record for record in found if "failed" in record)
    return 1 if differ or all("failed" in record for record in found) else 0


# ---------------------------------------------------------------------------------- the children


def timed(work: Callable[[], Any], deadline: float) -> tuple[list[float], Any]:
    """Seconds of each run, of which there is one at least, and what the last gave."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < RUNS and time.monotonic() + seconds[-1] < deadline):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return seconds, found


def iml_case(
    case: Case, arguments: argparse.Namespace, questions: Sequence[Question], tokens: int, deadline: float
) -> dict[str, Any]:
    """iml's engine, as `iml.evaluate` asks it."""
    import jax

    from iml.evaluation.engines import loading
    from iml.evaluation.engines.engine import Decoding
    from iml.evaluation.engines.opt_engine import OPTEngine
    from iml.models.opt import OPT
    from iml.training.mesh import MeshConfig, make_mesh

    mesh, batch = make_mesh(MeshConfig(), jax.devices()[:1]), case.batch[0]
    if arguments.small:
        path = f"{arguments.output}/weights"
        model = loading.load_model(path, arguments.vocabulary, mesh, batch_size=batch, dtype="float32")
    else:
        opt = OPT(_config(case.model, "bfloat16"), platform=jax.devices()[0].platform)
        params = jax.jit(opt.init)(jax.random.key(0))
        model = loading.LoadedModel(opt, params, Vocabulary(arguments.vocabulary), mesh, LENGTH, batch)
    engine = OPTEngine(model)

    def work() -> list[Any]:
        if tokens:
            return engine.generate([source for source, _ in questions], Decoding(tokens))
        return engine.likelihoods(questions)

    (first, *_), found = timed(work, 0.0)
    seconds, compiling = [first], "included"
    if time.monotonic() + first < deadline:
        seconds, found = timed(work, deadline)
        compiling = first - statistics.median(seconds)
    encoded = mmlu_questions.encode(model.vocabulary, questions, LENGTH, tokens)
    if tokens:
        answers = [[*answer.tokens, *[model.vocabulary.EOS] * answer.finished] for answer in found]
        counted = mmlu_questions.count("static", encoded, answers)
    else:
        answers = [[one.text + one.eos for one in row] for row in found]
        counted = mmlu_questions.count_shared(engine._scorer, questions)
    facts = {"seconds": seconds, "compiling": compiling, "answers": answers, **gpu_cases.jax_device()}
    return facts | _rates(case, encoded, answers, counted, facts)


def torch_case(
    case: Case, arguments: argparse.Namespace, questions: Sequence[Question], tokens: int, deadline: float
) -> dict[str, Any]:
    """transformers; a batch of the longest rows warms up."""
    import torch
    import transformers_evaluation as peer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = f"{arguments.output}/weights" if arguments.small else None
    model = peer.make_model(MODELS[case.model], VOCABULARY, LENGTH, path, device)
    vocabulary, batch = Vocabulary(arguments.vocabulary), case.batch[0]
    encoded = mmlu_questions.encode(vocabulary, questions, LENGTH, tokens)

    def work(chosen: Sequence[Question]) -> list[Any]:
        asked = mmlu_questions.encode(vocabulary, chosen, LENGTH, tokens)
        if tokens:
            return peer.generate(model, asked, batch, tokens)
        return (peer.rank_rows if case.side == "rows" else peer.rank_once)(model, asked, batch)

    longest = sorted(range(len(questions)), key=lambda i: len(encoded[i][0]), reverse=True)
    work([questions[i] for i in longest[: max(1, batch // 4) if case.side == "rows" else batch]])
    seconds, answers = timed(lambda: work(questions), deadline)
    facts = {"seconds": seconds, "compiling": "", "answers": answers, **gpu_cases.torch_device()}
    return facts | _rates(case, encoded, answers, mmlu_questions.count(case.side, encoded, answers), facts)


def _rates(
    case: Case, encoded: Sequence[Encoded], answers: Sequence[Any], counted: Counted, facts: dict[str, Any]
) -> dict[str, Any]:
    median, generates = statistics.median(facts["seconds"]), case.work == "generate"
    new = sum(map(len, answers)) if generates else 0
    asked = mmlu_questions.count("static" if generates else "rows", encoded, answers)
    flops = gpu_cases.forward_flops(MODELS[case.model], VOCABULARY, *dataclasses.astuple(counted))
    peak = gpu_cases.peak_flops(facts["device"])
    return {
        "batch_used": case.batch[0],
        "questions": len(encoded),
        "counted": dataclasses.asdict(counted),
        "questions_per_second": len(encoded) / median,
        "asked_per_second": asked.positions / median,
        "computed_per_second": counted.positions / median,
        "new_per_second": new / median,
        "model_flops": flops,
        "mfu": flops / median / peak if peak else None,
    }


def child(arguments: argparse.Namespace) -> None:
    """Runs one case and prints its figures as the last line."""
    case = Case(**json.loads(arguments.case))
    deadline = time.monotonic() + float(arguments.deadline)
    questions = json.loads((pathlib.Path(arguments.output) / "questions.json").read_text())[case.work]
    questions = [(source, tuple(candidates)) for source, candidates in questions]
    sizes = SMALL if arguments.small else Sizes()
    tokens = sizes.tokens if case.work == "generate" else 0
    side = iml_case if case.side == "iml" else torch_case
    found = side(case, arguments, questions, tokens, deadline)
    if not arguments.small:
        del found["answers"]  # Of other weights than the other side's.
    print(json.dumps(found))


def main() -> int:
    """Runs all cases, or the one that the parent names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--store", help="a prepared store with tasks mmlu.*; random words without one")
    parser.add_argument("--output", default="gpu_evaluation")
    parser.add_argument("--model", choices=list(MODELS))
    parser.add_argument("--minutes", type=float, default=7.8)
    parser.add_argument("--only", help="works or sides, such as rank,iml")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    for name in ("case", "deadline"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or ("tiny" if arguments.small else "6.7b")
    if arguments.case:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
        # Batches of many lengths leave gaps in PyTorch's memory otherwise.
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        child(arguments)
        return 0
    if arguments.prepare:
        prepare(arguments, pathlib.Path(arguments.output))
        return 0
    return parent(arguments)


if __name__ == "__main__":
    sys.exit(main())
