"""Opens the models that are evaluated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iml.evaluation.engines.backends import Backend, CompletionEndpoint, TransformersModel
from iml.training.mesh import MeshConfig
from iml.training.rules import PartitionRules

if TYPE_CHECKING:
    from iml.evaluation.engines.engine import Engine
    from iml.evaluation.engines.opt_engine import OPTEngine


class Engines:
    """Opens models. Checkpoints of one model are opened by one engine, which compiles once for all."""

    def __init__(
        self,
        vocabulary_dir: str | None,
        mesh: MeshConfig,
        max_length: int | None,
        batch_size: int,
        bos: bool,
        dtype: str | None,
        rules: PartitionRules,
    ):
        self._vocabulary_dir = None if vocabulary_dir is None else os.fspath(vocabulary_dir)
        self._mesh, self._settings = mesh, (max_length, batch_size, bos, dtype, rules)
        self._engine: OPTEngine | None = None

    def open(self, model: str | TransformersModel | CompletionEndpoint) -> Engine:
        """The engine of a model; the one opened before is of no use any more."""
        if isinstance(model, Backend):
            return model.open()
        from iml.evaluation.engines.loading import load_model
        from iml.evaluation.engines.opt_engine import OPTEngine
        from iml.training.mesh import make_mesh

        if self._engine is not None:
            self._engine.load(None)
        loaded = load_model(os.fspath(model), self._vocabulary_dir, make_mesh(self._mesh), *self._settings)
        if self._engine is not None and self._engine.takes(loaded):
            self._engine.load(loaded.params)
        else:
            self._engine = OPTEngine(loaded)
        return self._engine
