"""A server with OpenAI's completions interface behind the interface of evaluation.

Continuations are scored by having the server echo prompt and continuation with log-probabilities, which vLLM and
llama.cpp offer and some vendors do not. It tells nothing of the end of a document, so scorers that count it
cannot be asked for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from iml.errors import InputError
from iml.evaluation.engines.engine import (
    Decoding,
    Generated,
    Likelihood,
    Tell,
    common_ending,
    tell_nobody,
)
from iml.evaluation.engines.windows import Window

if TYPE_CHECKING:
    from iml.evaluation.engines.backends import CompletionEndpoint

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A context with a continuation: `text`, of which what begins at `start` counts, for the pair `index`."""

    index: int
    text: str
    start: int
    truncated: int
    cut: bool


class EndpointEngine:
    """See `iml.evaluation.engines.engine.Engine`."""

    def __init__(self, backend: CompletionEndpoint):
        """
        Raises:
          InputError: the library is missing, or the tokenizer cannot be read.
        """
        try:
            import openai
        except ImportError as error:
            raise InputError(f"{error.name} is not installed", remedy="pip install openai") from error
        self._backend, self._openai = backend, openai
        self._client = openai.OpenAI(
            base_url=backend.url,
            api_key=os.environ.get(backend.api_key_variable, "none"),
            timeout=backend.timeout,
            max_retries=backend.retries,
        )
        self._window = Window(backend.tokenizer, backend.max_length) if backend.max_length else None
        self.facts: Mapping[str, Any] = {
            "engine": "endpoint",
            "bos": "the server's",
            "dtype": "the server's",
            "max_length": backend.max_length or "the server's",
            "tokenizer": self._window.fingerprint if self._window else "the server's",
            "url": backend.url,
            "served": backend.served,
        }

    def likelihoods(
        self, pairs: Sequence[tuple[str, Sequence[str]]], tell: Tell = tell_nobody
    ) -> list[list[Likelihood]]:
        """See `Engine.likelihoods`; `eos` is NaN."""
        asked = [
            row for index, (context, texts) in enumerate(pairs) for row in self._fit(index, context, texts)
        ]
        groups: list[list[tuple[_Row, list[str], list[float]]]] = [[] for _ in pairs]
        results: list[list[Likelihood]] = [[] for _ in pairs]

        def collect(row: _Row, echoed: tuple[list[str], list[float]]) -> None:
            index = row.index
            group = groups[index]
            group.append((row, *echoed))
            if len(group) == len(pairs[index][1]):
                agreed = common_ending([tokens for _, tokens, _ in group])
                results[index] = [
                    Likelihood(
                        sum(values), math.nan, sum(values[-agreed:]), len(values), row.truncated, row.cut
                    )
                    for row, _, values in group
                ]
                tell(index, results[index])

        self._map(self._echo, asked, collect)
        for index, (_, texts) in enumerate(pairs):
            if not texts:
                tell(index, [])
        return results

    def generate(
        self,
        sources: Sequence[str],
        decoding: Decoding,
        parts: Sequence[Sequence[int]] | None = None,
        tell: Tell = tell_nobody,
    ) -> list[Generated]:
        """See `Engine.generate`; without a tokenizer a prompt that is too long is the server's to refuse."""
        if decoding.beams > 1 or decoding.top_k:
            raise InputError(
                "a completions endpoint has neither beam search nor top_k", field="Decoding.beams"
            )

        parts = parts or [()] * len(sources)

        def answer(numbered: tuple[int, str]) -> Generated:
            index, source = numbered
            seed = f"{decoding.seed}\n{source}".encode()
            prompt, truncated = source.rstrip(" "), 0
            if self._window:
                prompt, truncated = self._window.prompt(prompt, parts[index], decoding.max_new_tokens)
            [choice] = self._ask(
                prompt=prompt,
                max_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                stop=list(decoding.stop) or None,
                seed=int.from_bytes(hashlib.blake2b(seed, digest_size=4).digest()) >> 1,
            ).choices
            return Generated(choice.text.strip(), (), choice.finish_reason == "stop", truncated)

        return self._map(answer, enumerate(sources), lambda numbered, told: tell(numbered[0], told))

    def _fit(self, index: int, context: str, texts: Sequence[str]) -> list[_Row]:
        """What is sent for a context and the texts that may follow it, all of which lose the same part of it."""
        texts, context, window = [text.rstrip() for text in texts], context.rstrip(" "), self._window
        if window is None:
            return [_Row(index, f"{context} {text}", len(context), 0, cut=False) for text in texts]
        kept, whole, rows = window.context(context, texts), window.count(context), []
        for text in texts:
            sent = window.end(f"{kept} {text}")
            start = len(sent) - len(f" {text}")
            lost = whole - window.count(sent[: max(0, start)])
            # Without any context the text's own first token has no log-probability.
            rows.append(_Row(index, sent, max(0, start), lost, cut=start < min(1, len(context))))
        return rows

    def _echo(self, row: _Row) -> tuple[list[str], list[float]]:
        """A continuation's tokens and their log-probabilities."""
        whole = row.text
        # Some servers refuse to generate nothing: one token is asked for, and passed over.
        [choice] = self._ask(prompt=whole, max_tokens=1, temperature=0.0, echo=True, logprobs=1).choices
        told = choice.logprobs
        if told is None or not told.tokens or not told.token_logprobs or not choice.text.startswith(whole):
            raise InputError(
                "the server does not tell the log-probabilities of a prompt",
                path=self._backend.url,
                remedy="Evaluate tasks whose answers are generated, or serve the model with vLLM",
            )
        starts = told.text_offset or list(itertools.accumulate(map(len, told.tokens[:-1]), initial=0))
        ends = [*starts[1:], len(choice.text)]
        tokens, values = [], []
        for token, value, start, end in zip(told.tokens, told.token_logprobs, starts, ends, strict=True):
            # A token that begins in the context and ends in the continuation counts; the first has no value.
            if end > row.start and start < len(whole) and value is not None:
                tokens.append(token)
                values.append(value)
        return tokens, values

    def _ask(self, **fields: Any) -> Any:
        try:
            return self._client.completions.create(model=self._backend.served, **fields)
        except self._openai.APIStatusError as error:
            reason = f"the server refused ({error.status_code}: {error.message[:300]})"
            raise InputError(reason, path=self._backend.url) from error
        except self._openai.APIConnectionError as error:
            raise InputError(
                f"the server does not answer ({error.__cause__ or error})",
                path=self._backend.url,
                field="CompletionEndpoint.url",
            ) from error

    def _map(
        self,
        ask: Callable[[_Asked], _Told],
        asked: Iterable[_Asked],
        done: Callable[[_Asked, _Told], None],
    ) -> list[_Told]:
        """What is told to each, several asked at once, in order."""
        asked, results = list(asked), []
        with ThreadPoolExecutor(self._backend.requests) as pool:
            futures = [pool.submit(ask, entry) for entry in asked]
            try:
                for entry, future in zip(asked, futures, strict=True):
                    results.append(future.result())
                    done(entry, results[-1])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return results
