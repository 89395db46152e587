"""Training mixtures as SeqIO mixtures, for whoever reads the registry through SeqIO rather than from the store."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

from iml import seqio_bridge
from iml.bench import registry
from iml.bench.mixing import Mixture
from iml.errors import InputError
from iml.seqio_bridge import seqio

OPT_IML = Mixture()


def add_mixture(name: str = "opt_iml", mixture: Mixture = OPT_IML) -> seqio.Mixture:
    """Registers a SeqIO mixture over the tasks that are registered now and have a train split. Opens no file.

    The rates are the draws of an epoch, as `Mixture.counts` gives them to training. Which tasks are supervised
    and how many examples they have is found out once a dataset is asked for; all others get rate 0, which keeps
    them out.

    Args:
      name: the mixture's name.
      mixture: which tasks, and in which proportions; by default all supervised ones of OPT-IML's split scheme,
        each as many times as it has examples, at most 4096.

    Raises:
      InputError: the mixture is restricted to some of its tasks' examples.
      ValueError: there is already a mixture of this name, or no task has a train split.
    """
    if mixture.examples is not None:
        raise InputError(
            "SeqIO draws from all examples of a task", field="Mixture.examples", remedy="Train from the store"
        )
    tasks = tuple(task for task in registry.names() if "train" in seqio.TaskRegistry.get(task).splits)

    @functools.cache
    def rates() -> Mapping[str, int]:
        cards = {task: registry.card(task) for task in tasks}
        chosen = mixture.select(cards)
        return mixture.counts({task: (cards[task].benchmark, _count(task, mixture.eps)) for task in chosen})

    def rate(task: seqio.Task) -> float:
        return float(rates().get(task.name, 0))

    return seqio.MixtureRegistry.add(name, [(task, rate) for task in tasks])


def _count(task: str, limit: int | None) -> int:
    """Examples of a train split, of which several rows may be renderings; stops at `limit`."""
    seen: set[str] = set()
    uids = (fields["uid"] for fields in seqio_bridge.read_fields(task, "train"))
    fresh = (uid for uid in uids if not (uid in seen or seen.add(uid)))
    return sum(1 for _ in itertools.islice(fresh, limit))
