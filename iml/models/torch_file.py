"""Reads files of `torch.save` without torch, and without running what they say.

Such a file is a zip archive: a pickle that describes the tensors, and an entry of raw bytes for each storage.
A pickle can call anything, so this reader knows the few names that a file of weights needs and refuses all
others. Tensors are read from the archive only when asked for, and only the parts asked for.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import pickle
import struct
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from iml.errors import InputError

_STORAGES = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}

#: A zip entry's local header: its mark, and the lengths of the name and the extra field that follow.
_HEADER = struct.Struct("<4s22xHH")


@dataclasses.dataclass(frozen=True)
class _Storage:
    entry: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """A tensor that is still in its file.

    Attributes:
      shape: its shape.
      dtype: its numpy type; bfloat16 is ml_dtypes'.
    """

    path: str
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype

    def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Reads a part of the tensor, and of its storage little more.

        Args:
          index: slices, one for each axis; none for the whole.

        Raises:
          InputError: the file is damaged.
        """
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)[index]
        span = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        itemsize = self.dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive:
                entry = archive.getinfo(self.storage.entry)
                if entry.file_size < (self.offset + span) * itemsize:
                    raise InputError(f"storage {self.storage.entry!r} is cut short", path=self.path)
                if entry.compress_type == zipfile.ZIP_STORED:
                    begin = _begin(self.path, entry) + self.offset * itemsize
                    flat = np.memmap(self.path, self.dtype, "r", begin, (span,))
                else:
                    with archive.open(entry) as stream:
                        stream.seek(self.offset * itemsize)
                        flat = np.frombuffer(stream.read(span * itemsize), self.dtype)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot read a tensor ({error})", path=self.path) from error
        strides = tuple(step * itemsize for step in self.stride)
        whole = np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)
        return np.array(whole[index], order="C")


def _begin(path: str, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: after a header of its own, which the archive's table does not size."""
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(entry.header_offset)
        header = file.read(_HEADER.size)
    signature, name, extra = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0)
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header")
    return entry.header_offset + _HEADER.size + name + extra


class Namespace:
    """Stands for argparse.Namespace, in which metaseq keeps its settings."""


def load(path: str | os.PathLike[str]) -> Any:
    """The object in a file of `torch.save`, with `TorchTensor` in place of tensors.

    Raises:
      InputError: the file is absent, damaged, of the format before torch 1.6, or names anything but tensors
        and plain containers.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):  # noqa: PTH113
        raise InputError("no such file", path=path)
    if not zipfile.is_zipfile(path):
        raise InputError(
            "not a zip archive of torch.save", path=path, remedy="Save it again with torch 1.6 or later"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError("holds no data.pkl: not a file of torch.save", path=path)
            root = pickles[0].removesuffix("data.pkl")
            if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
                raise InputError("was written on a big-endian machine", path=path)
            with archive.open(pickles[0]) as stream:
                return _Unpickler(stream, path, root, frozenset(names)).load()
    except InputError:
        raise
    # A damaged or hostile pickle can fail in any way; none of them is a fault of this program.
    except Exception as error:
        raise InputError(f"damaged: {type(error).__name__}: {error}", path=path) from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, path: str, root: str, entries: frozenset[str]):
        super().__init__(stream, encoding="utf-8")
        self._path, self._root, self._entries = path, root, entries

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("argparse", "Namespace"):
            return Namespace
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _StorageType(name)
        raise InputError(
            f"refuses to run {module}.{name}: a file of weights needs no such thing",
            path=self._path,
            remedy="Do not trust this file; get the weights as safetensors",
        )

    def persistent_load(self, reference: Any) -> _Storage:
        kind, storage_type, key, _, size = reference
        entry = f"{self._root}data/{key}"
        if kind != "storage" or not isinstance(storage_type, _StorageType) or entry not in self._entries:
            raise InputError(f"names a storage {key!r} that it does not hold", path=self._path)
        return _Storage(entry, _STORAGES[storage_type.name], int(size))

    def _tensor(self, storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> TorchTensor:
        shape, stride = tuple(map(int, shape)), tuple(map(int, stride))
        sound = len(shape) == len(stride) and min((offset, *shape, *stride)) >= 0
        if sound and math.prod(shape):
            last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
            sound = last < storage.size
        if not sound:
            raise InputError(f"a tensor of shape {shape} reaches outside its storage", path=self._path)
        return TorchTensor(self._path, storage, offset, shape, stride)


@dataclasses.dataclass(frozen=True)
class _StorageType:
    name: str


def _parameter(tensor: TorchTensor, *_: Any) -> TorchTensor:
    return tensor
