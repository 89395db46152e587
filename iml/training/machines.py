"""Machines that are named and not at hand: a TPU slice such as "v5p:4x4x4", or GPUs, "h200:8"."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from iml.errors import InputError
from iml.training.chips import CHIPS, Chip

_REMEDY = "Write v5p:4x4x4, v5e:16x16, v6e:8x8, v4:4x4x4, or h200:8 for eight GPUs"
#: There is no TPU to ask, libtpu must not look for one, and need not say that it found none.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def parse(topology: str) -> tuple[Chip, int]:
    """The chip, and how many of them.

    Raises:
      InputError: it names no machine.
    """
    name, _, shape = topology.partition(":")
    chip = next((chip for chip in CHIPS if chip.name == name.lower()), None)
    if chip is None or not re.fullmatch(r"\d+(x\d+)*", shape):
        raise InputError(f"no such machine: {topology!r}", field="--topology", remedy=_REMEDY)
    return chip, math.prod(map(int, shape.split("x")))


def tpu_devices(topology: str) -> list[Any]:
    """Devices of a TPU slice, to compile for.

    Raises:
      InputError: libtpu is not installed, or does not know the slice.
    """
    from jax.experimental import topologies

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        # Two cores of a v4 are one device, as they are where such a slice is used.
        fused = {"chip_config_name": "megacore"} if topology.startswith("v4") else {}
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **fused)
        return list(found.devices)
    except Exception as error:
        if "libtpu" in str(error) and "not found" in str(error).lower():
            raise InputError(
                "compiling for TPUs needs libtpu", field="--topology", remedy='pip install -e ".[tpu]"'
            ) from error
        raise InputError(
            f"libtpu knows no topology {topology!r} ({str(error).splitlines()[0][:200]})",
            field="--topology",
            remedy=_REMEDY,
        ) from error
