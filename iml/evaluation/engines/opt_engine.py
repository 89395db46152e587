"""An OPT model on the mesh as an engine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from iml.evaluation.engines.engine import Decoding, Generated, Likelihood, Tell, tell_nobody
from iml.evaluation.engines.generation import Generator
from iml.evaluation.engines.likelihoods import Scorer
from iml.evaluation.engines.loading import LoadedModel, hash_params
from iml.models.opt import Params


class OPTEngine:
    """Scores and generates on the devices of the model's mesh; see `engine.Engine`."""

    def __init__(self, model: LoadedModel):
        self.model = model
        self._scorer = Scorer(model)
        self._generators: dict[Decoding, Generator] = {}

    def load(self, params: Params | None) -> None:
        """Takes other parameters of the same model, as training makes them; what was compiled stays.

        None lets go of those it has: there may be no memory for both.
        """
        self.model = dataclasses.replace(self.model, params=params)
        self.__dict__.pop("facts", None)
        for part in (self._scorer, *self._generators.values()):
            part.load(self.model)

    def takes(self, model: LoadedModel) -> bool:
        """Whether a model differs from this engine's in nothing but its parameters."""

        def settings(one: LoadedModel) -> tuple[Any, ...]:
            sizes = one.max_length, one.batch_size, one.bos
            return one.opt.config, one.vocabulary.fingerprint, one.mesh, sizes

        return settings(self.model) == settings(model)

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        config = self.model.opt.config
        devices = self.model.mesh.devices
        return {
            "engine": "iml",
            "model_hash": hash_params(self.model.params),
            "model_config": config.to_json(),
            "devices": f"{devices.size} x {devices.flat[0].device_kind}",
            "dtype": config.dtype,
            "bos": self.model.bos,
            "max_length": self.model.max_length,
            "vocabulary": self.model.vocabulary.fingerprint,
        }

    def likelihoods(
        self, pairs: Sequence[tuple[str, Sequence[str]]], tell: Tell = tell_nobody
    ) -> list[list[Likelihood]]:
        return self._scorer.likelihoods(pairs, tell)

    def generate(
        self,
        sources: Sequence[str],
        decoding: Decoding,
        parts: Sequence[Sequence[int]] | None = None,
        tell: Tell = tell_nobody,
    ) -> list[Generated]:
        if decoding not in self._generators:
            self._generators[decoding] = Generator(self.model, decoding)
        return self._generators[decoding].generate(sources, parts, tell)
