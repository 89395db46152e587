"""A model of Hugging Face's transformers behind the interface of evaluation, run by torch as it is.

Every candidate is read with its whole prompt: this is the plain way, to compare with, not a fast one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iml.errors import InputError
from iml.evaluation.engines.engine import (
    Decoding,
    Generated,
    Likelihood,
    Tell,
    common_ending,
    tell_nobody,
    until_stop,
    without_demonstrations,
)

if TYPE_CHECKING:
    import torch

    from iml.evaluation.engines.backends import TransformersModel

_DTYPES = ("float32", "bfloat16", "float16")


class TransformersEngine:
    """See `iml.evaluation.engines.engine.Engine`."""

    def __init__(self, backend: TransformersModel):
        """Loads the model.

        Raises:
          InputError: a library or the model is missing, or a setting is impossible.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise InputError(
                f"{error.name} is not installed", remedy="pip install torch transformers"
            ) from error
        if backend.dtype not in _DTYPES:
            raise InputError(f"must be one of {', '.join(_DTYPES)}", field="TransformersModel.dtype")
        device = backend.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(backend.path)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                backend.path, dtype=getattr(torch, backend.dtype)
            )
            self._model.to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"transformers cannot load it ({first})", path=backend.path) from error
        self._backend, self._device = backend, device
        config = self._model.config
        longest = getattr(config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self._max_length = backend.max_length or longest
        if not 2 <= self._max_length <= longest:
            raise InputError(
                f"must lie between 2 and the model's {longest} positions",
                field="TransformersModel.max_length",
            )
        bos = self._tokenizer.bos_token_id
        if backend.bos and bos is None:
            raise InputError(
                "its tokenizer has no such token", path=backend.path, field="TransformersModel.bos"
            )
        self._head = [bos] if backend.bos else []
        self._eos = self._tokenizer.eos_token_id
        if self._eos is None:
            raise InputError("its tokenizer has no token that ends a text", path=backend.path)
        # What a model brings (a repetition penalty, say) would join in what is asked for.
        self._model.generation_config = transformers.GenerationConfig()
        self.facts: Mapping[str, Any] = {
            "engine": "transformers",
            "bos": backend.bos,
            "dtype": backend.dtype,
            "max_length": self._max_length,
            "model_hash": _hash(self._model.state_dict().items()),
            "model_config": config.to_dict(),
            "device": device,
            "attention": config._attn_implementation,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def likelihoods(
        self, pairs: Sequence[tuple[str, Sequence[str]]], tell: Tell = tell_nobody
    ) -> list[list[Likelihood]]:
        """See `Engine.likelihoods`; all continuations of a context lose the same part of it."""
        import torch

        rows, results = [], [[None] * len(texts) for _, texts in pairs]
        for index, (context, texts) in enumerate(pairs):
            for number, row in enumerate(self._encode(context, texts)):
                rows.append((index, number, row))
        left = [len(texts) for _, texts in pairs]
        for index in [index for index, count in enumerate(left) if not count]:
            tell(index, [])
        rows.sort(key=lambda entry: len(entry[2].ids), reverse=True)
        for start in range(0, len(rows), self._backend.batch_size):
            batch = rows[start : start + self._backend.batch_size]
            # The last token is only scored: it may stand behind the last position.
            width = max(len(row.ids) for *_, row in batch) - 1
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for i, (*_, row) in enumerate(batch):
                ids[i, : len(row.ids) - 1] = torch.tensor(row.ids[:-1])
                mask[i, : len(row.ids) - 1] = 1
            ids, mask = ids.to(self._device), mask.to(self._device)
            with torch.inference_mode():
                logits = self._model(input_ids=ids, attention_mask=mask).logits
                for i, (index, number, row) in enumerate(batch):
                    found = logits[i, row.start - 1 : len(row.ids) - 1].double().log_softmax(-1)
                    wanted = torch.tensor(row.ids[row.start :], device=found.device)
                    values = found.gather(1, wanted[:, None])[:, 0].tolist()
                    results[index][number] = row.likelihood(values)
                    left[index] -= 1
                    if not left[index]:
                        tell(index, results[index])
        return results

    def generate(
        self,
        sources: Sequence[str],
        decoding: Decoding,
        parts: Sequence[Sequence[int]] | None = None,
        tell: Tell = tell_nobody,
    ) -> list[Generated]:
        """See `Engine.generate`; prompts that draw are answered one by one, so that each has its own draws."""
        room = self._max_length - decoding.max_new_tokens - len(self._head)
        if room < 1:
            raise InputError(
                f"leaves no room for a prompt in {self._max_length} positions",
                field="Decoding.max_new_tokens",
            )
        prompts = [
            self._fit(source.rstrip(" "), cuts, room)
            for source, cuts in zip(sources, parts or [()] * len(sources), strict=True)
        ]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i][0]), reverse=True)
        size = 1 if decoding.temperature else self._backend.batch_size
        answers: dict[int, Generated] = {}
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            key = f"{decoding.seed}\n{sources[batch[0]]}" if decoding.temperature else ""
            found = self._answer([prompts[i][0] for i in batch], decoding, key)
            for i, ids in zip(batch, found, strict=True):
                answers[i] = self._read(ids, decoding, prompts[i][1])
                tell(i, answers[i])
        return [answers[i] for i in range(len(prompts))]

    def _encode(self, context: str, texts: Sequence[str]) -> list[_Row]:
        context = context.rstrip(" ")
        head = self._ids(context)
        wholes = [[*self._ids(f"{context} {text.rstrip()}"), self._eos] for text in texts]
        lead = self._head if head else [self._eos]
        room = self._max_length - len(lead) + 1
        cut = max([0, *(len(whole) - room for whole in wholes)])
        rows = []
        for whole in wholes:
            start = min(len(head), len(whole) - 1)
            # A shorter continuation keeps a token of context even if the longest leaves it none.
            own = max(len(whole) - room, min(cut, max(0, start - 1)), 0)
            ids = [*lead, *whole[own:]]
            # The first token of all is not predicted.
            cut_short = own >= start + len(lead)
            rows.append(_Row(ids, max(1, start - own + len(lead)), min(own, start), cut_short))
        agreed = common_ending([row.ids[row.start : -1] for row in rows])
        for row in rows:
            row.ending = agreed
        return rows

    def _fit(self, source: str, cuts: Sequence[int], room: int) -> tuple[list[int], int]:
        """A prompt's tokens, and how many did not fit."""
        fitting = without_demonstrations(source, cuts, lambda text: len(self._ids(text)) <= room)
        ids = self._ids(fitting)
        kept = ids[max(0, len(ids) - room) :]
        return [*self._head, *kept] or [self._eos], len(self._ids(source)) - len(kept)

    def _answer(self, prompts: Sequence[Sequence[int]], decoding: Decoding, key: str) -> list[list[int]]:
        import torch

        width = max(map(len, prompts))
        pad = self._tokenizer.pad_token_id
        pad = self._eos if pad is None else pad
        ids = torch.full((len(prompts), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(list(prompt), dtype=torch.long)
            mask[i, width - len(prompt) :] = 1
        settings: dict[str, Any] = {"do_sample": False, "num_beams": decoding.beams}
        if decoding.beams > 1:
            settings |= {
                "length_penalty": decoding.length_penalty,
                "early_stopping": decoding.early_stopping,
            }
        if decoding.temperature:
            settings = {"do_sample": True, "temperature": decoding.temperature}
            settings |= {"top_k": decoding.top_k, "top_p": decoding.top_p}
        if decoding.stop:
            settings |= {"stop_strings": list(decoding.stop), "tokenizer": self._tokenizer}
        with torch.inference_mode(), _seeded(key):
            whole = self._model.generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                max_new_tokens=decoding.max_new_tokens,
                eos_token_id=self._eos,
                pad_token_id=pad,
                **settings,
            )
        return whole[:, width:].tolist()

    def _read(self, ids: Sequence[int], decoding: Decoding, truncated: int) -> Generated:
        finished = self._eos in ids
        ids = ids[: ids.index(self._eos)] if finished else ids
        ids, text, stopped = until_stop(ids, decoding.stop, self._decode)
        return Generated(text.strip(), tuple(ids), finished or stopped, truncated)

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


class _Row:
    """A continuation with its context: token ids of which those from `start` on count, </s> last."""

    def __init__(self, ids: list[int], start: int, truncated: int, cut: bool):
        self.ids, self.start, self.truncated, self.cut, self.ending = ids, start, truncated, cut, 0

    def likelihood(self, values: Sequence[float]) -> Likelihood:
        text = values[:-1]
        ending = sum(text[-self.ending :])  # -0: the whole
        return Likelihood(sum(text), values[-1], ending, len(text), self.truncated, self.cut)


@contextlib.contextmanager
def _seeded(key: str) -> Iterator[None]:
    """torch's generators, seeded by a text for a while; "" leaves them alone."""
    import torch

    if not key:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest()))
        yield


def _hash(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hash of all weights, 16 hexadecimal digits."""
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in weights:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
