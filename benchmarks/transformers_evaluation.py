"""Ranking and generation by transformers' OPT, used as well as its plain interface allows.

Rows that are only read are padded on the right: causal attention needs no mask then and takes its fastest kernel.
Logits are taken where a token is scored. Questions of like length share a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gpu_cases import transformers_config
from mmlu_questions import Encoded

#: Ids of </s> and padding.
EOS, PAD = 2, 1


def make_model(
    shape: tuple[int, int, int], vocabulary: int, length: int, path: str | None, device: Any
) -> Any:
    """The model of a folder, float32, or one of random weights, bfloat16."""
    import transformers

    if path is not None:
        return transformers.OPTForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()
    config = transformers_config(shape, vocabulary, length)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval()


@torch.inference_mode()
def rank_rows(model: Any, questions: Sequence[Encoded], batch: int) -> list[list[float]]:
    """Log-likelihoods of all candidates; each is read with its whole prompt, in a row of its own."""
    rows = [
        (number, len(prompt), [*prompt, *tail])
        for number, (prompt, tails) in enumerate(questions)
        for tail in tails
    ]
    # A stable sort: the candidates of a question stay in their order.
    rows.sort(key=lambda row: len(row[2]), reverse=True)
    sums = []
    for part in _parts(rows, batch):
        hidden = model.model(_padded((ids[:-1] for *_, ids in part), model.device), use_cache=False)
        scored = [
            (row, at - 1, ids[at])
            for row, (_, start, ids) in enumerate(part)
            for at in range(start, len(ids))
        ]
        owners, places, targets = torch.tensor(scored, device=model.device).T
        logits = model.lm_head(hidden.last_hidden_state[owners, places]).float().log_softmax(-1)
        values = logits.gather(1, targets[:, None])[:, 0]
        sums.append(values.new_zeros(len(part)).index_add(0, owners, values))
    found: list[list[float]] = [[] for _ in questions]
    for (number, *_), value in zip(rows, torch.cat(sums).tolist(), strict=True):
        found[number].append(value)
    return found


@torch.inference_mode()
def rank_once(model: Any, questions: Sequence[Encoded], batch: int) -> list[list[float]]:
    """The same; a prompt is read once, and all its candidates in one row behind its cache."""
    order = sorted(range(len(questions)), key=lambda i: len(questions[i][0]), reverse=True)
    found: list[list[float]] = [[] for _ in questions]
    waiting = []
    for part in _parts(order, batch):
        chosen = [questions[i] for i in part]
        waiting.append((part, chosen, _rank_batch(model, chosen)))
    for part, chosen, values in waiting:
        parts = torch.split(values.cpu(), [len(tails) for _, tails in chosen])
        for number, own in zip(part, parts, strict=True):
            found[number] = own.tolist()
    return found


def _rank_batch(model: Any, questions: Sequence[Encoded]) -> torch.Tensor:
    """The log-likelihoods of these questions' candidates, one after the other."""
    device, count = model.device, len(questions)
    width = max(len(prompt) for prompt, _ in questions)
    span = max(sum(len(tail) - 1 for tail in tails) for _, tails in questions)
    # Of each row's tokens behind the cache: the token, its place in the document, its candidate.
    behind = np.zeros((3, count, span), np.int64)
    behind[2] = -1
    scored, owner = [], 0
    for row, (prompt, tails) in enumerate(questions):
        end = 0
        for number, tail in enumerate(tails):
            # Entry 0 of a row is the prompt's last token, which predicts the first of each candidate.
            scored += [(row, end + at if at else 0, token, owner) for at, token in enumerate(tail)]
            inner = slice(end, end + len(tail) - 1)
            behind[0, row, inner] = tail[:-1]
            behind[1, row, inner] = len(prompt) + np.arange(len(tail) - 1)
            behind[2, row, inner] = number
            owner, end = owner + 1, inner.stop
    lengths = torch.tensor([len(prompt) for prompt, _ in questions], device=device)
    read = model.model(_padded((prompt for prompt, _ in questions), device), use_cache=True)
    hidden = read.last_hidden_state[torch.arange(count, device=device), lengths - 1][:, None]
    if span:
        tokens, positions, numbers = torch.from_numpy(behind).to(device)
        same = numbers[:, :, None] == numbers[:, None, :]
        own = same & torch.ones(span, span, dtype=torch.bool, device=device).tril()
        past = (torch.arange(width, device=device) < lengths[:, None])[:, None].expand(-1, span, -1)
        more = model.model(
            tokens,
            attention_mask=torch.cat([past, own], -1)[:, None],
            position_ids=positions,
            past_key_values=read.past_key_values,
        )
        hidden = torch.cat([hidden, more.last_hidden_state], 1)
    rows, places, targets, owners = torch.tensor(scored, device=device).T
    values = model.lm_head(hidden).float().log_softmax(-1)[rows, places, targets]
    return values.new_zeros(owner).index_add(0, owners, values)


@torch.inference_mode()
def generate(model: Any, questions: Sequence[Encoded], batch: int, most: int) -> list[list[int]]:
    """Greedy answers of at most so many tokens, with </s> where one ended."""
    order = sorted(range(len(questions)), key=lambda i: len(questions[i][0]), reverse=True)
    found: list[list[int]] = [[] for _ in questions]
    for part in _parts(order, batch):
        prompts = [questions[i][0] for i in part]
        width = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        settings = {"do_sample": False, "max_new_tokens": most, "eos_token_id": EOS, "pad_token_id": PAD}
        whole = model.generate(ids.to(model.device), attention_mask=mask.to(model.device), **settings)
        for number, answer in zip(part, whole[:, width:].tolist(), strict=True):
            found[number] = answer[: answer.index(EOS) + 1] if EOS in answer else answer
    return found


def _parts(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]


def _padded(rows: Iterable[Sequence[int]], device: Any) -> torch.Tensor:
    """int64 [rows, longest], padded on the right."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=PAD).to(device)
