"""Models in float64: what two ways of computing the same then differ by is what they compute, not rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from iml.models import config as config_lib

#: Fields of an `OPTConfig`.
DOUBLE = {"dtype": "float64", "param_dtype": "float64"}


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Lets a model be of float64, also in what it computes in float32 whatever its dtype is."""
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(jnp, "float32", jnp.float64)
        for name in ("_DTYPES", "_PARAM_DTYPES"):
            patch.setattr(config_lib, name, ("float64",))
        yield
