"""Words of a text as the contamination pass compares them, and hashes of its n-grams by the array.

Normalisation: Unicode NFKC and case folding; letters, marks and digits make words, everything else (spaces,
punctuation, symbols, controls) parts them. In scripts written without spaces (Han, kana, Thai, Lao, Khmer,
Burmese, Tibetan) each letter with its marks is a word. The n-gram's text is its words joined by single spaces.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Sequence

import numpy as np

#: Code points of scripts that do not part words by spaces.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # Han marks that repeat, and zero
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)

_SPACE = 0x20
#: Bytes of a batch, usually; only a larger one makes new tables of powers.
_USUAL = 1 << 19
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_MULTIPLIER, -1, 1 << 64)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def _ascii_table() -> np.ndarray:
    """By byte, the byte it becomes; UTF-8's others have been folded before."""
    table = np.full(256, _SPACE, np.uint8)
    for byte in range(256):
        if byte >= 0x80 or chr(byte).isalnum():
            table[byte] = ord(chr(byte).lower()) if byte < 0x80 else byte
    return table


_TABLE = _ascii_table()


def _byte_values() -> np.ndarray:
    """A fixed number for each byte that looks random (splitmix64), the same with every version of NumPy."""
    values = []
    for byte in range(1, 257):
        value = byte * _MULTIPLIER % (1 << 64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            value = (value ^ value >> shift) * factor % (1 << 64)
        values.append(value)
    return np.asarray(values, np.uint64)


_VALUES = _byte_values()


class _Folding(dict):
    """What a folded character becomes, found as it is needed."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)[0]
        if kind not in "LNM":
            folded = " "
        elif kind != "M" and any(first <= code <= last for first, last in _UNSPACED):
            folded = f" {character}"
        else:
            folded = character
        self[code] = folded
        return folded


_FOLDING = _Folding()


def normalise(text: str) -> str:
    """The text's words, each followed or parted by spaces, any number of them."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text).casefold().translate(_FOLDING)


def words(text: str) -> list[str]:
    """The words of a text."""
    return [word for word, _, _ in spans(text)[1]]


def spans(text: str) -> tuple[str, list[tuple[str, int, int]]]:
    """The text to show, which is `text` in NFKC, and its words with their places in it.

    For people's eyes and for tests: character by character, far slower than `Grams`.
    """
    shown = unicodedata.normalize("NFKC", text)
    found: list[tuple[str, int, int]] = []
    word, start = "", 0
    for place, character in enumerate(shown):
        for piece in character.casefold().translate(_FOLDING):
            if piece == " ":
                if word:
                    found.append((word, start, place))
                word = ""
            else:
                start = start if word else place
                word += piece
    if word:
        found.append((word, start, len(shown)))
    return shown, found


@dataclasses.dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of a batch of texts; none runs from one text into the next.

    Attributes:
      hashes: uint64 [grams]; equal n-grams have equal hashes, the reverse is for `same_text` to say.
      text_ids: int32 [grams], the number of the text that each comes from, ascending.
      starts: int64 [grams], where in `data` the n-gram begins.
      lengths: int32 [grams], its length in bytes.
      data: uint8 [bytes], all words of all texts in UTF-8, each followed by one space.
    """

    hashes: np.ndarray
    text_ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    data: np.ndarray


def grams(texts: Sequence[str], n: int, bits: int = 64) -> Grams:
    """All n-grams of a batch of texts, in order.

    The hash is a polynomial over the n-gram's bytes modulo 2**64, taken from one running sum.

    Args:
      texts: a batch; some hundred kilobytes together are fastest.
      n: words of an n-gram.
      bits: bits of the hash that are kept; fewer than 64 only to make them collide.
    """
    encoded = [normalise(text).encode("utf-8", "replace") for text in texts]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    raw = _TABLE[np.frombuffer(b" ".join([*encoded, b""]), np.uint8)]
    is_word = raw != _SPACE
    # One space after each word; those before the first word and all further ones go.
    kept = is_word.copy()
    kept[1:] |= is_word[:-1]
    data = raw[kept]
    ends = np.flatnonzero(data == _SPACE)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    first = is_word
    first[1:] &= raw[:-1] == _SPACE
    bounds = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(lengths + 1, out=bounds[1:])
    first_word = np.searchsorted(np.flatnonzero(first), bounds)

    counts = np.maximum(np.diff(first_word) - (n - 1), 0)
    text_ids = np.repeat(np.arange(len(encoded), dtype=np.int32), counts)
    places = ragged_arange(first_word[:-1], counts)
    begins, finishes = starts[places], ends[places + (n - 1)]
    powers, inverses = _powers(max(_USUAL, 1 << len(data).bit_length()))
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(_VALUES[data] * powers[: len(data)], out=sums[1:])
    hashes = (sums[finishes] - sums[begins]) * inverses[begins]
    hashes ^= hashes >> np.uint64(29)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(32)
    if bits < 64:
        hashes &= np.uint64((1 << bits) - 1)
    return Grams(hashes, text_ids, begins, (finishes - begins).astype(np.int32), data)


def same_text(
    data: np.ndarray, starts: np.ndarray, other: np.ndarray, other_starts: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Whether pieces of two byte arrays are equal, byte by byte; bool [pieces].

    Args:
      data, other: uint8, where the pieces lie.
      starts, other_starts: int64 [pieces], where each begins.
      lengths: int [pieces], their lengths, the same in both.
    """
    same = np.ones(len(lengths), bool)
    order = np.argsort(lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[order], prepend=-1, append=-1))
    for low, high in itertools.pairwise(edges.tolist()):
        length = int(lengths[order[low]])
        for block in range(low, high, max(1, (1 << 20) // max(1, length))):
            chosen = order[block : min(high, block + max(1, (1 << 20) // max(1, length)))]
            across = np.arange(length)
            left = data[starts[chosen][:, None] + across]
            same[chosen] = (left == other[other_starts[chosen][:, None] + across]).all(axis=1)
    return same


def ragged_arange(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`starts[i], starts[i] + 1, ...`, `counts[i]` of them, for one i after the other; int64."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - before, counts)


@functools.lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the multiplier and of its inverse, modulo 2**64."""
    both = []
    for base in (_MULTIPLIER, _INVERSE):
        powers = np.full(size, base, np.uint64)
        powers[0] = 1
        both.append(np.cumprod(powers, out=powers))
    return both[0], both[1]
