"""Ranking and generation beside lm-evaluation-harness: the same random OPT, the same prompts, the same machine.

    python benchmarks/evaluation.py --vocabulary=DIR [--models=small,125m] [--works=a,b,c] [--runs=3]

a: 4 candidates of 3 words behind prompts of 180 words. b: the same behind prompts of 1,000 tokens that share five
demonstrations. c: greedy answers of up to 64 tokens to 32 prompts of 180 words. Both sides answer in turn, `--runs`
times; medians are told, of wall-clock and of processor time (which other programs on the machine disturb less). The
first run of each shape compiles: it is told apart. Scores must agree to 1e-3, answers
word by word. Needs torch, transformers and lm_eval.
"""

from __future__ import annotations

import argparse
import functools
import logging
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from iml.data.vocabulary import Vocabulary
from iml.evaluation.engines.engine import Decoding, Generated
from iml.evaluation.engines.loading import LoadedModel
from iml.evaluation.engines.opt_engine import OPTEngine
from iml.models import weights_hf
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from iml.training.mesh import MeshConfig, make_mesh

MODELS = {
    "small": OPTConfig(num_layers=4, embed_dim=256, num_heads=4, dtype="float32", dropout=0.0),
    "125m": OPTConfig(dtype="float32", dropout=0.0),
}
#: Prompts of each work, by model: one run of the peer takes ten seconds or so on two free cores.
PROMPTS = {"small": {"a": 16, "b": 8, "c": 32}, "125m": {"a": 8, "b": 4, "c": 32}}
TOKENS = 64

Pairs = list[tuple[str, tuple[str, ...]]]


def make_engines(
    config: OPTConfig, vocabulary: Vocabulary, batch: int, folder: pathlib.Path
) -> tuple[Any, Any]:
    """The same random model as an engine of iml and as lm-evaluation-harness' HFLM."""
    import transformers
    from lm_eval.models.huggingface import HFLM

    opt = OPT(config)
    params = jax.jit(opt.init)(jax.random.key(0))
    # Fresh weights make every token as likely as any other; larger ones have opinions.
    params = jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, params)
    weights_hf.write(folder, config, params, vocabulary.directory)
    ours = OPTEngine(LoadedModel(opt, params, vocabulary, make_mesh(MeshConfig()), config.max_positions))
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    theirs = HFLM(
        pretrained=transformers.OPTForCausalLM.from_pretrained(folder),
        tokenizer=transformers.GPT2Tokenizer.from_pretrained(folder),
        add_bos_token=False,
        prefix_token_id=vocabulary.EOS,
        batch_size=batch,
        device="cpu",
        max_length=config.max_positions,
    )
    return ours, theirs


def make_pairs(vocabulary: Vocabulary, work: str, count: int, length: int, seed: int) -> Pairs:
    """Prompts of so many random words with four candidates of three words each."""
    import json

    random = np.random.default_rng(seed)
    text = vocabulary.files[0].read_text(encoding="utf-8")
    words = sorted(token[1:] for token in json.loads(text) if re.fullmatch("Ġ[a-z]{3,9}", token))
    say = lambda n: " ".join(random.choice(words, n))  # noqa: E731
    shown = say(820) + "\n\n\n" if work == "b" else ""
    return [(shown + say(length) + "\nAnswer:", tuple(say(3) for _ in range(4))) for _ in range(count)]


def rank(ours: OPTEngine, theirs: Any, pairs: Pairs) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Both sides' work: float [pairs, 4]."""
    from lm_eval.api.instance import Instance

    asked = [(source, f" {text}") for source, texts in pairs for text in texts]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(asked)]

    def mine() -> np.ndarray:
        return np.array([[found.text for found in row] for row in ours.likelihoods(pairs)])

    def peer() -> np.ndarray:
        found = theirs.loglikelihood(asked, disable_tqdm=True)
        return np.array([value for value, _ in found]).reshape(len(pairs), -1)

    return mine, peer


def generate(ours: OPTEngine, theirs: Any, pairs: Pairs) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Both sides' work: the answers."""
    from lm_eval.api.instance import Instance

    settings = {"until": ["</s>"], "max_gen_toks": TOKENS, "do_sample": False}
    asked = [Instance("generate_until", {}, (source, settings), i) for i, (source, _) in enumerate(pairs)]

    def mine() -> list[Generated]:
        return ours.generate([source for source, _ in pairs], Decoding(TOKENS))

    def peer() -> list[str]:
        return [text.strip() for text in theirs.generate_until(asked, disable_tqdm=True)]

    return mine, peer


def timed(work: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """Seconds, by the clock and of all processors, and what came of it."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = work()
    return np.array([time.perf_counter(), time.process_time()]) - start, result


def compare(
    name: str, work: str, engines: tuple[Any, Any], make: Callable[[int], Pairs], runs: int
) -> list[str]:
    """A row of the table."""
    first, ours, theirs, units = np.zeros(2), [], [], []
    for run in range(runs + 1):
        pairs = make(run)
        mine, peer = (generate if work == "c" else rank)(*engines, pairs)
        if run == 0:
            first = timed(mine)[0] - timed(mine)[0]
            continue
        seconds, found = timed(mine)
        ours.append(seconds)
        seconds, expected = timed(peer)
        theirs.append(seconds)
        if work == "c":
            units.append(sum(len(answer.tokens) + answer.finished for answer in found))
            same = sum(a.text == b for a, b in zip(found, expected, strict=True))
            agreement = f"{same} of {len(pairs)} equal"
        else:
            units.append(sum(len(texts) for _, texts in pairs))
            worst = float(np.abs(found - expected).max())
            agreement = f"within {worst:.0e}"
            assert worst < 1e-3, agreement
    rates = [np.median(np.array(units) / np.array(side)[:, 0]) for side in (ours, theirs)]
    wall, processor = np.median(np.array(theirs) / np.array(ours), axis=0)
    with_compiling = np.sum(theirs, axis=0)[0] / (np.sum(ours, axis=0) + first)[0]
    numbers = (*rates, wall, processor, first[0], with_compiling)
    return [name, work, *(f"{number:,.1f}" for number in numbers), agreement]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--models", default="small,125m")
    parser.add_argument("--works", default="a,b,c")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--length", type=int, default=180, help="words of a prompt")
    parser.add_argument("--prompts", type=int, help="fewer or more than each work has by default")
    parser.add_argument("--batch", type=int, default=8, help="rows of a batch of lm-evaluation-harness")
    options = parser.parse_args(arguments)
    vocabulary, console = Vocabulary(options.vocabulary), Console(width=118)
    columns = (
        "model",
        "work",
        "iml /s",
        "lm-eval /s",
        "ratio",
        "processor",
        "compiling s",
        "with it",
        "agreement",
    )
    table = Table(*columns, title="candidates (a, b) or tokens (c) a second; medians")
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            engines = make_engines(MODELS[name], vocabulary, options.batch, pathlib.Path(folder))
        for work in options.works.split(","):
            count = options.prompts or PROMPTS[name][work]
            make = functools.partial(make_pairs, vocabulary, work, count, options.length)
            row = compare(name, work, engines, make, options.runs)
            console.print(*row, sep="  ", markup=False)
            table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
