"""What of a text fits a model behind a server, which is sent characters and counts tokens."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence

from iml.data.vocabulary import Vocabulary
from iml.errors import InputError
from iml.evaluation.engines.engine import without_demonstrations

#: Positions that no text is given: for a token that the server may put before it, and for the one that a server
#: generates behind a text whose log-probabilities it tells.
_KEPT_FREE = 2


class Window:
    """The longest sequence of a served model, in tokens of its tokenizer."""

    def __init__(self, tokenizer: str | os.PathLike[str], max_length: int):
        """
        Args:
          tokenizer: a vocabulary folder of OPT's, or a `tokenizer.json` as Hugging Face's libraries write it.
          max_length: positions of the model.

        Raises:
          InputError: the tokenizer cannot be read, or nothing fits.
        """
        if max_length < _KEPT_FREE + 2:
            raise InputError(
                f"must be at least {_KEPT_FREE + 2}, not {max_length}", field="CompletionEndpoint.max_length"
            )
        self._max_length, self._room = max_length, max_length - _KEPT_FREE
        self._starts, self.fingerprint = _read(pathlib.Path(tokenizer))

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self._starts(text))

    def context(self, context: str, texts: Sequence[str]) -> str:
        """The end of a context that leaves room for any of the texts after a space.

        One token of it stays even if the longest text leaves no room at all.
        """
        longest = max((self.count(f" {text}") for text in texts), default=0)
        return self.end(context, max(1, self._room - longest))

    def end(self, text: str, room: int | None = None) -> str:
        """As much of the end of a text as so many tokens hold, or all that there is room for."""
        room = self._room if room is None else room
        starts = self._starts(text)
        # What is cut in another place may fall into other, and more, tokens.
        while len(starts) > room:
            text = text[max(1, starts[-room]) :]
            starts = self._starts(text)
        return text

    def prompt(self, source: str, parts: Sequence[int], new_tokens: int) -> tuple[str, int]:
        """A prompt shortened as `Engine.generate` says, to leave room for an answer; how many tokens it has lost.

        Raises:
          InputError: the answer leaves no room.
        """
        room = self._max_length - 1 - new_tokens
        if room < 1:
            raise InputError(
                f"leaves no room for a prompt in {self._max_length} positions",
                field="Decoding.max_new_tokens",
            )
        kept = without_demonstrations(source, parts, lambda text: self.count(text) <= room)
        kept = self.end(kept, room)
        return kept, self.count(source) - self.count(kept)


def _read(path: pathlib.Path) -> tuple[Callable[[str], list[int]], str]:
    """What tells at which characters the tokens of a text begin, and a hash of the tokenizer."""
    if path.is_dir() and not (path / "tokenizer.json").exists():
        vocabulary = Vocabulary(str(path))
        return vocabulary.starts, vocabulary.fingerprint
    import tokenizers

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        content = file.read_bytes()
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # The library raises nothing more particular.
        raise InputError(
            f"not a tokenizer ({error})",
            path=file,
            field="CompletionEndpoint.tokenizer",
            remedy="Give a vocabulary folder of OPT's or a tokenizer.json",
        ) from error
    # Files may bring a limit of their own, or padding.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def starts(text: str) -> list[int]:
        return [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]

    return starts, hashlib.sha256(content).hexdigest()
