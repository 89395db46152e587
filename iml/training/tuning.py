"""Parameters that are trained and parameters that stay as they are, as two trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from iml.models import lora as lora_lib
from iml.models.adapters import LoRA
from iml.models.config import OPTConfig
from iml.training.tunings import BitFit, Settings

#: A nested dict, of arrays or of what describes them.
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Which parameters a run trains.

    Attributes:
      trains: whether it trains the parameter at a path of names in the tree.
      settings: what it was made of.
    """

    trains: Callable[[tuple[str, ...]], bool] = lambda path: True
    settings: Settings = None

    @property
    def lora(self) -> LoRA | None:
        """The adapters that the model has, if any."""
        return self.settings if isinstance(self.settings, LoRA) else None

    def split(self, tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> tuple[Tree, Tree]:
        """What is trained and what is frozen of a model's tree, which may hold arrays, axes or shardings."""
        trained: Tree = {}
        frozen: Tree = {}
        for name, child in tree.items():
            below = (*path, name)
            if isinstance(child, Mapping):
                parts = self.split(child, below)
                for part, whole in zip(parts, (trained, frozen), strict=True):
                    if part:
                        whole[name] = part
            else:
                (trained if self.trains(below) else frozen)[name] = child
        return trained, frozen


def join(trained: Tree, frozen: Tree) -> Tree:
    """The model's tree, of the two that `Tuning.split` gives."""
    joined = dict(frozen)
    for name, child in trained.items():
        joined[name] = join(child, frozen[name]) if name in frozen else child
    return joined


def make_tuning(settings: Settings) -> Tuning:
    """The tuning that settings describe."""
    if isinstance(settings, LoRA):
        return Tuning(lambda path: path[-1] in ("lora_a", "lora_b"), settings)
    if isinstance(settings, BitFit):
        names = ("bias", "scale") if settings.norms else ("bias",)
        return Tuning(lambda path: path[-1] in names, settings)
    return Tuning()


def make_store(lora: LoRA, shardings: Tree) -> Callable[[tuple[str, ...], jax.Array], Any]:
    """Makes of each leaf of plain parameters what a model with adapters keeps of it; the leaf is given up.

    Args:
      shardings: of all parameters of the model with adapters.
    """

    def store(path: tuple[str, ...], leaf: jax.Array) -> Any:
        placed: Any = shardings
        for name in path:
            placed = placed[name]
        kept = jax.jit(lambda leaf: lora_lib.store(lora, path, leaf), out_shardings=placed)(leaf)
        jax.block_until_ready(kept)
        return kept

    return store


def merge(lora: LoRA, config: OPTConfig, params: Tree, shardings: Tree) -> Tree:
    """The plain parameters that compute what a model with adapters does, laid out by `shardings`."""
    return jax.jit(lambda tree: lora_lib.merge(lora, config, tree), out_shardings=shardings)(params)


def spread_like(shardings: Tree, abstract: Tree) -> Tree:
    """Shardings for a model with adapters, of those for its plain parameters.

    A frozen weight lies as its plain one does where its shape can be divided so, else whole on every device.
    """

    def spread(shardings: Any, abstract: Any) -> Any:
        if not isinstance(abstract, Mapping):
            return _fitting(shardings, abstract.shape)
        if not isinstance(shardings, Mapping):
            return {name: spread(shardings, child) for name, child in abstract.items()}
        # Adapters have no plain counterpart.
        return {
            name: spread(shardings.get(name, shardings.get("kernel")), child)
            for name, child in abstract.items()
        }

    return spread(shardings, abstract)


def _fitting(sharding: jax.sharding.Sharding, shape: tuple[int, ...]) -> jax.sharding.Sharding:
    try:
        sharding.check_compatible_aval(shape)  # as many axes
        sharding.shard_shape(shape)
        return sharding
    except ValueError:
        return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
