"""OPT's byte-level BPE: text to ids and back, with the very ids of metaseq.

metaseq encodes with `ByteLevelBPETokenizer` and registers no special token, so a literal `</s>` in a text is
ordinary characters and never id 2: nothing in the data can end a document.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from etils import epath

from iml.errors import InputError

if TYPE_CHECKING:
    import tokenizers

# Parallelism is the stream's (threads over lanes); a second pool inside every call would only fight with it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

#: (vocabulary, merges) as metaseq and as Hugging Face name them.
_FILE_NAMES = (("gpt2-vocab.json", "gpt2-merges.txt"), ("vocab.json", "merges.txt"))
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_REMEDY = "A vocabulary folder holds gpt2-vocab.json and gpt2-merges.txt, or vocab.json and merges.txt"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE read from a folder, local or remote; loaded when first used.

    Lone surrogates, which are not text and which metaseq's tokenizer refuses, are encoded as U+FFFD.

    Attributes:
      directory: the folder of the vocabulary's two files.
    """

    directory: str
    BOS: ClassVar[int] = 0
    PAD: ClassVar[int] = 1
    EOS: ClassVar[int] = 2
    UNK: ClassVar[int] = 3

    def __reduce__(self):
        # The loaded tokenizer stays behind: reading it again is quicker than moving it.
        return type(self), (self.directory,)

    @property
    def files(self) -> tuple[epath.Path, epath.Path]:
        """The vocabulary file and the merges file.

        Raises:
          InputError: the folder does not hold both.
        """
        folder = epath.Path(self.directory)
        for names in _FILE_NAMES:
            paths = tuple(folder / name for name in names)
            if all(path.exists() for path in paths):
                return paths
        raise InputError("no vocabulary here", path=self.directory, remedy=_REMEDY)

    @functools.cached_property
    def _contents(self) -> tuple[bytes, bytes]:
        vocabulary, merges = self.files
        try:
            return vocabulary.read_bytes(), merges.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the vocabulary ({error})", path=self.directory) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over both files."""
        return hashlib.sha256(
            b"\0".join(hashlib.sha256(part).digest() for part in self._contents)
        ).hexdigest()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        path = self.files[0]
        try:
            ids = json.loads(self._contents[0])
        except ValueError as error:
            raise InputError(f"not JSON ({error})", path=path, remedy=_REMEDY) from error
        if not isinstance(ids, dict) or sorted(map(repr, ids.values())) != sorted(map(repr, range(len(ids)))):
            raise InputError("must map every token to one of the ids 0, 1, 2, ... without gaps", path=path)
        for number, token in enumerate(_SPECIAL):
            if ids.get(token) != number:
                raise InputError(f"{token} must have id {number}, not {ids.get(token)}", path=path)
        return ids

    @functools.cached_property
    def _merges(self) -> list[tuple[str, str]]:
        path, ids, merges = self.files[1], self._ids, []
        try:
            lines = self._contents[1].decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 ({error})", path=path, remedy=_REMEDY) from error
        for number, line in enumerate(lines, start=1):
            line = line.removesuffix("\r")
            if not line or line.startswith("#version"):
                continue
            parts = line.split(" ")
            if len(parts) != 2:
                raise InputError(
                    f"a merge is two tokens and a space, not {line!r:.60}", path=path, line=number
                )
            if "".join(parts) not in ids or parts[0] not in ids or parts[1] not in ids:
                raise InputError(f"a merge of tokens that have no id: {line!r:.60}", path=path, line=number)
            if "".join(parts) in _SPECIAL:
                raise InputError("a merge that makes a special token out of text", path=path, line=number)
            merges.append((parts[0], parts[1]))
        return merges

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers

        missing = set(pre_tokenizers.ByteLevel.alphabet()) - set(self._ids)
        if missing:
            raise InputError(
                f"{len(missing)} of the 256 byte symbols have no id, {min(missing)!r} for one",
                path=self.files[0],
                remedy="Train the BPE with the whole byte alphabet",
            )
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab=self._ids, merges=self._merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    @functools.cached_property
    def size(self) -> int:
        """Number of entries."""
        return len(self._ids)

    @property
    def padded_size(self) -> int:
        """Rows of the embedding: the size rounded up to a multiple of 8."""
        return -(-self.size // 8) * 8

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no BOS, no EOS."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, in one call that lets other threads run meanwhile."""
        whole = [_without_surrogates(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(whole)]

    def starts(self, text: str) -> list[int]:
        """At which characters of a text its tokens begin."""
        return [start for start, _ in self._tokenizer.encode(_without_surrogates(text)).offsets]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special ids and padding rows are dropped, broken UTF-8 becomes U+FFFD."""
        first, size = len(_SPECIAL), self.size
        return self._tokenizer.decode([int(i) for i in ids if first <= i < size], skip_special_tokens=False)


def _without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
