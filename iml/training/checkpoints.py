"""Checkpoints of runs and directories of parameters, both written by Orbax.

A run keeps `checkpoints/<step>/{params,opt_state,meta}`, where `params` are the trained parameters (an optimiser
without state has no `opt_state`), and once for all steps `frozen/`, the others, if there are any. A directory of
parameters is `params/`, `model.json` and `vocabulary/`. Orbax writes beside the final name and renames, so what has
a final name is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from iml.errors import InputError
from iml.training import tunings
from iml.training.tuning import join, make_tuning, merge, spread_like

if TYPE_CHECKING:
    from iml.models.adapters import LoRA
    from iml.models.config import OPTConfig

Tree = Any
#: Shardings in the shape of the parameters, or what makes them of the configuration.
Shardings = Tree | Callable[["OPTConfig"], Tree] | None


@dataclasses.dataclass(frozen=True)
class Location:
    """Where parameters lie.

    Attributes:
      folder: holds `params/`, and `model.json` or `meta/`.
      config: the model they belong to.
      vocabulary: the folder of their vocabulary, if one was kept.
      step: the training step, if they belong to a run.
      tuning: which of them the run trains; None for all.
    """

    folder: epath.Path
    config: OPTConfig
    vocabulary: str | None
    step: int | None = None
    tuning: tunings.Settings = None


def locate(path: str | os.PathLike[str]) -> Location:
    """Finds the parameters of a run (its latest checkpoint), of one checkpoint, or of a parameter directory.

    Raises:
      InputError: there is nothing of the kind.
    """
    folder = epath.Path(path)
    if (folder / "params").exists() and (folder / "model.json").exists():
        config = _read_config(folder / "model.json")
        return Location(folder, config, _vocabulary(folder / "vocabulary"))
    if (folder / "params").exists() and (folder / "meta").exists():
        return _locate_step(folder)
    if steps := complete_steps(folder):
        return _locate_step(folder / "checkpoints" / str(steps[-1]))
    if steps := complete_steps(folder.parent) if folder.name == "checkpoints" else ():
        return _locate_step(folder / str(steps[-1]))
    raise InputError(
        "no parameters of iml here",
        path=path,
        remedy="Name a run with a complete checkpoint, a checkpoint, or a folder that iml.convert wrote",
    )


def load_config(path: str | os.PathLike[str]) -> OPTConfig:
    """The configuration that belongs to parameters; `path` as in `locate`."""
    return locate(path).config


def load_params(path: str | os.PathLike[str], shardings: Shardings = None) -> tuple[OPTConfig, Tree]:
    """Reads a model's plain parameters, with adapters merged into them, each device only its part.

    Args:
      path: a run folder, a checkpoint's folder or a directory of parameters.
      shardings: how they are to lie on the devices, a tree of shardings or a function that makes it of the
        configuration; None puts them whole on this process's first device.

    Raises:
      InputError: they are missing, damaged, or of another shape than their configuration says.
    """
    import jax

    from iml.models.opt import OPT

    found = locate(path)
    tuning = make_tuning(found.tuning)
    tree = shardings(found.config) if callable(shardings) else shardings
    abstract = OPT(found.config).abstract_params()
    if tree is None:
        single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        tree = jax.tree.map(lambda _: single, abstract)
    if tuning.lora:
        abstract = OPT(found.config, lora=tuning.lora).abstract_params()
    placed = place(abstract, spread_like(tree, abstract))
    trained, frozen = tuning.split(placed)
    params = restore_tree(found.folder / "params", trained)
    if frozen:
        params = join(params, restore_frozen(found.folder.parent.parent, frozen))
    return found.config, merge(tuning.lora, found.config, params, tree) if tuning.lora else params


def load_adapters(path: str | os.PathLike[str]) -> tuple[LoRA, Tree]:
    """The adapters that a run trains, on this process's first device; `path` as in `locate`.

    Raises:
      InputError: it trains none, or they are damaged.
    """
    import jax

    from iml.models.opt import OPT

    found = locate(path)
    tuning = make_tuning(found.tuning)
    if tuning.lora is None:
        raise InputError("this run trains no adapters", path=path, field="train.tuning")
    trained, _ = tuning.split(OPT(found.config, lora=tuning.lora).abstract_params())
    single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return tuning.lora, restore_tree(
        found.folder / "params", place(trained, jax.tree.map(lambda _: single, trained))
    )


def save_params(
    path: str | os.PathLike[str],
    config: OPTConfig,
    params: Tree,
    vocabulary: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a directory of parameters; the parameters come last, so that an unfinished one is not taken.

    Args:
      path: the directory; an earlier one there is replaced.
      vocabulary: the folder whose files are copied beside them.
    """
    import orbax.checkpoint as ocp

    folder = _absolute(path)
    folder.mkdir(parents=True, exist_ok=True)
    with _writing(folder), ocp.StandardCheckpointer() as checkpointer:
        if (folder / "params").exists():
            (folder / "params").rmtree()
        write_config(folder / "model.json", config)
        copy_vocabulary(vocabulary, folder / "vocabulary")
        checkpointer.save(folder / "params", params)
        checkpointer.wait_until_finished()


def place(abstract: Tree, shardings: Tree) -> Tree:
    """Abstract arrays with their shardings."""
    import jax

    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def restore_tree(path: epath.Path, abstract: Tree) -> Tree:
    """Reads one tree that Orbax wrote.

    Args:
      abstract: arrays with the shapes, types and shardings to restore.

    Raises:
      InputError: it is missing or damaged, or of another shape.
    """
    import orbax.checkpoint as ocp

    with _reading(path), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(_absolute(path), abstract)


def complete_steps(run_dir: str | os.PathLike[str]) -> tuple[int, ...]:
    """The steps of a run's complete checkpoints, in order."""
    folder = epath.Path(run_dir) / "checkpoints"
    if not folder.exists():
        return ()
    return tuple(sorted(int(child.name) for child in folder.iterdir() if child.name.isdigit()))


def read_meta(run_dir: str | os.PathLike[str], step: int) -> dict[str, Any]:
    """What a checkpoint says of itself: step, model, fingerprints, stream, config.

    Raises:
      InputError: it is missing or damaged.
    """
    return _read_meta(epath.Path(run_dir) / "checkpoints" / str(step))


def restore_state(
    run_dir: str | os.PathLike[str], step: int, params: Tree, opt_state: Tree
) -> tuple[Tree, Tree]:
    """Parameters and optimiser state of a run's checkpoint.

    Args:
      params: abstract arrays with shardings.
      opt_state: likewise.

    Raises:
      InputError: the checkpoint is missing or damaged.
    """
    folder = epath.Path(run_dir) / "checkpoints" / str(step)
    params = restore_tree(folder / "params", params)
    return params, restore_tree(folder / "opt_state", opt_state) if _has_arrays(opt_state) else opt_state


def has_opt_state(folder: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint holds a state of the optimiser."""
    return (epath.Path(folder) / "opt_state").exists()


def _has_arrays(tree: Tree) -> bool:
    """LOMO's state has none, and Orbax writes no empty trees."""
    import jax

    return bool(jax.tree.leaves(tree))


def save_frozen(run_dir: str | os.PathLike[str], frozen: Tree) -> None:
    """Writes what a run does not train beside its checkpoints; nothing where it trains all."""
    import orbax.checkpoint as ocp

    folder = _absolute(run_dir) / "frozen"
    if not frozen:
        return
    with _writing(folder), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, frozen, force=True)


def restore_frozen(run_dir: str | os.PathLike[str], frozen: Tree) -> Tree:
    """What `save_frozen` wrote; `frozen` are abstract arrays with shardings.

    Raises:
      InputError: it is missing or damaged.
    """
    return restore_tree(epath.Path(run_dir) / "frozen", frozen) if frozen else {}


class Checkpoints:
    """The checkpoints of one run, written while training goes on.

    All processes of a run call every method together.
    """

    def __init__(self, run_dir: str | os.PathLike[str], keep: int | None):
        """
        Args:
          run_dir: the run's folder.
          keep: how many of the latest checkpoints are kept; None for all.
        """
        import orbax.checkpoint as ocp

        self._run_dir = _absolute(run_dir)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(
            self._run_dir / "checkpoints", options=options, item_names=("params", "opt_state", "meta")
        )

    def save(self, step: int, params: Tree, opt_state: Tree, meta: Mapping[str, Any]) -> None:
        """Begins to write; returns once the arrays are copied, so they may be donated."""
        import orbax.checkpoint as ocp

        items = {"params": ocp.args.StandardSave(params), "meta": ocp.args.JsonSave(dict(meta))}
        if _has_arrays(opt_state):
            items["opt_state"] = ocp.args.StandardSave(opt_state)
        with _writing(self._run_dir / "checkpoints" / str(step)):
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def wait(self) -> None:
        """Waits until what has begun is written.

        Raises:
          InputError: it could not be written.
        """
        with _writing(self._run_dir / "checkpoints"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the writing threads."""
        with _writing(self._run_dir / "checkpoints"):
            self._manager.close()


def check_fingerprints(path: str, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under other settings.

    Raises:
      InputError: names every setting that differs.
    """
    names = dict.fromkeys([*current, *saved])
    differing = [name for name in names if saved.get(name) != current.get(name)]
    if not differing:
        return
    details = "; ".join(f"{name}: {_shown(saved.get(name), current.get(name))}" for name in differing)
    raise InputError(
        f"this run was begun with other settings ({details})",
        path=path,
        remedy="Give back the settings it was begun with, or another train.run_dir",
    )


def write_config(path: epath.Path, config: OPTConfig) -> None:
    """Writes `model.json`."""
    path.write_text(config.dumps())


def copy_vocabulary(source: str | os.PathLike[str] | None, target: epath.Path) -> None:
    """Copies a vocabulary's files; nothing where there is none."""
    if source is None or epath.Path(source) == target:
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in epath.Path(source).iterdir():
        if file.is_file() and file.suffix in (".json", ".txt"):
            if _local(file) and _local(target):
                shutil.copyfile(file, target / file.name)
            else:
                (target / file.name).write_bytes(file.read_bytes())


def _locate_step(folder: epath.Path) -> Location:
    meta = _read_meta(folder)
    vocabulary = _vocabulary(folder.parent.parent / "vocabulary")
    config = _make_config(meta["model"], folder)
    return Location(folder, config, vocabulary, meta["step"], tunings.from_json(meta.get("tuning")))


def _read_meta(folder: epath.Path) -> dict[str, Any]:
    path = folder / "meta" / "metadata"
    with _reading(folder):
        meta = json.loads(path.read_text())
        if missing := {"step", "model", "fingerprints", "stream"} - meta.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return meta


def _read_config(path: epath.Path) -> OPTConfig:
    try:
        return _make_config(json.loads(path.read_text()), path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot be read ({error})", path=path) from error


def _make_config(fields: Mapping[str, Any], path: epath.Path) -> OPTConfig:
    from iml.models.config import OPTConfig

    try:
        return OPTConfig.from_json(fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"not a model's configuration ({error})", path=path) from error


def _vocabulary(folder: epath.Path) -> str | None:
    return os.fspath(folder) if folder.exists() else None


def _local(path: str | os.PathLike[str]) -> bool:
    return "://" not in os.fspath(path)


def _absolute(path: str | os.PathLike[str]) -> epath.Path:
    """Orbax refuses relative paths."""
    return epath.Path(path).resolve() if _local(path) else epath.Path(path)


def _shown(saved: Any, current: Any) -> str:
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        names = [name for name in {**saved, **current} if saved.get(name) != current.get(name)]
        return ", ".join(f"{name} was {saved.get(name)!r}, is {current.get(name)!r}" for name in names[:4])
    return f"was {saved!r}, is {current!r}"


@contextlib.contextmanager
def _reading(path: epath.Path) -> Iterator[None]:
    """Orbax and what lies below it raise many kinds of errors on a damaged file; the user needs one."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        missing = not path.exists()
        reason = "there is no such checkpoint" if missing else f"damaged checkpoint ({_first_line(error)})"
        raise InputError(
            reason,
            path=path,
            remedy="Name another one"
            if missing
            else "Remove the folder of this step to go on from the checkpoint before it",
        ) from error


@contextlib.contextmanager
def _writing(path: epath.Path) -> Iterator[None]:
    """The file system's errors come as they are or, from TensorStore, as values that say what failed."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot write the checkpoint ({_first_line(error)})",
            path=path,
            remedy="Is the disk full? Earlier checkpoints are whole: started again, the run goes on from there",
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
