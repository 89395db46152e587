"""Models that are not run by this project's own code, as gin names them: `evaluate.model = @TransformersModel()`.

A baseline is then asked exactly the same prompts. What opens them needs libraries that evaluation itself does
not: `transformers` and `torch`, or `openai`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from iml.errors import InputError

if TYPE_CHECKING:
    from iml.evaluation.engines.engine import Engine


@dataclasses.dataclass(frozen=True)
class TransformersModel:
    """A causal language model that transformers loads.

    Attributes:
      path: its folder, or its name where a hub can be reached.
      dtype: computation.
      device: where torch runs it: "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one.
      bos: begin every sequence with the token that the tokenizer has for that.
      batch_size: sequences in a batch.
      max_length: longest sequence in tokens, answer included; None for the model's.
    """

    path: str
    dtype: str = "float32"
    device: str = "auto"
    bos: bool = False
    batch_size: int = 8
    max_length: int | None = None

    @property
    def name(self) -> str:
        return self.path

    def open(self) -> Engine:
        """Loads the model.

        Raises:
          InputError: a library or the model is missing, or a setting is impossible.
        """
        from iml.evaluation.engines.transformers_engine import TransformersEngine

        return TransformersEngine(self)


@dataclasses.dataclass(frozen=True)
class CompletionEndpoint:
    """A server with OpenAI's completions interface (`POST {url}/completions`): vLLM, llama.cpp, a vendor's.

    Attributes:
      url: where it is, with the version: "http://localhost:8000/v1".
      served: the model's name there.
      api_key_variable: the environment variable that holds the key; a server that asks for none gets none.
      requests: requests under way at once.
      timeout: seconds that one may take.
      retries: how often one that failed is sent again, later each time.
      tokenizer: the model's, by which prompts that are too long are shortened as other engines do: a vocabulary
        folder of OPT's or a `tokenizer.json`. None to send all as they are.
      max_length: longest sequence of the model in tokens, answer included; it goes with `tokenizer`.
    """

    url: str
    served: str
    api_key_variable: str = "OPENAI_API_KEY"
    requests: int = 8
    timeout: float = 120.0
    retries: int = 5
    tokenizer: str | None = None
    max_length: int | None = None

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"not an address: {self.url!r}",
                field="CompletionEndpoint.url",
                remedy="Write http://localhost:8000/v1",
            )
        if self.requests < 1:
            raise InputError("must be at least 1", field="CompletionEndpoint.requests")
        if (self.tokenizer is None) != (self.max_length is None):
            raise InputError(
                "goes with CompletionEndpoint.tokenizer: prompts are shortened by both, or not at all",
                field="CompletionEndpoint.max_length",
            )

    @property
    def name(self) -> str:
        return f"{self.served} at {self.url}"

    def open(self) -> Engine:
        """Makes ready to ask.

        Raises:
          InputError: the library or the tokenizer is missing.
        """
        from iml.evaluation.engines.endpoint_engine import EndpointEngine

        return EndpointEngine(self)


Backend = TransformersModel | CompletionEndpoint
CONFIGURABLES = (TransformersModel, CompletionEndpoint)
