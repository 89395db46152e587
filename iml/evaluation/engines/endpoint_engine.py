"""A server with OpenAI's completions interface behind the interface of evaluation.

Continuations are scored by having the server echo prompt and continuation with log-probabilities, which vLLM and
llama.cpp offer and some vendors do not. It tells nothing of the end of a document, so scorers that count it
cannot be asked for.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from iml.evaluation.engines.backends import CompletionEndpoint

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")


class EndpointEngine:
    """See `iml.evaluation.engines.engine.Engine`."""

    def __init__(self, backend: CompletionEndpoint):
        """
        Raises:
          InputError: the library is missing.
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
        self.facts: Mapping[str, Any] = {
            "engine": "endpoint",
            "bos": "the server's",
            "dtype": "the server's",
            "max_length": "the server's",
            "url": backend.url,
            "served": backend.served,
        }

    def likelihoods(
        self, pairs: Sequence[tuple[str, Sequence[str]]], tell: Tell = tell_nobody
    ) -> list[list[Likelihood]]:
        """See `Engine.likelihoods`; `eos` is NaN."""
        asked = [
            (context.rstrip(" "), text.rstrip(), index)
            for index, (context, texts) in enumerate(pairs)
            for text in texts
        ]
        groups: list[list[tuple[list[str], list[float]]]] = [[] for _ in pairs]
        results: list[list[Likelihood]] = [[] for _ in pairs]

        def collect(entry: tuple[str, str, int], echoed: tuple[list[str], list[float]]) -> None:
            index = entry[2]
            group = groups[index]
            group.append(echoed)
            if len(group) == len(pairs[index][1]):
                agreed = common_ending([tokens for tokens, _ in group])
                results[index] = [
                    Likelihood(sum(values), math.nan, sum(values[-agreed:]), len(values), 0, cut=False)
                    for _, values in group
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
        """See `Engine.generate`; a prompt that is too long is the server's to refuse."""
        if decoding.beams > 1 or decoding.top_k:
            raise InputError(
                "a completions endpoint has neither beam search nor top_k", field="Decoding.beams"
            )

        def answer(numbered: tuple[int, str]) -> Generated:
            source = numbered[1]
            seed = f"{decoding.seed}\n{source}".encode()
            [choice] = self._ask(
                prompt=source.rstrip(" "),
                max_tokens=decoding.max_new_tokens,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                stop=list(decoding.stop) or None,
                seed=int.from_bytes(hashlib.blake2b(seed, digest_size=4).digest()) >> 1,
            ).choices
            return Generated(choice.text.strip(), (), choice.finish_reason == "stop", 0)

        return self._map(answer, enumerate(sources), lambda numbered, told: tell(numbered[0], told))

    def _echo(self, asked: tuple[str, str, int]) -> tuple[list[str], list[float]]:
        """A continuation's tokens and their log-probabilities."""
        context, text, _ = asked
        whole = f"{context} {text}"
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
            if end > len(context) and start < len(whole) and value is not None:
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
