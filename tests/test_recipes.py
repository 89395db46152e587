"""The recipes of OPT-IML's models say what was published (arXiv 2212.12017, table 3; names of checkpoints)."""

import pytest

from iml import configuration, precompile
from iml.models.config import OPTConfig
from iml.train import CONFIGURABLES, train

#: Parameters, steps, rows of a batch.
PUBLISHED = {
    "30b": (30e9, 4000, 256),
    "175b": (175e9, 8000, 128),
    "max_30b": (30e9, 6000, 256),
    "max_175b": (175e9, 12000, 128),
    "max_1.3b": (1.3e9, 6000, 256),
}


@pytest.fixture
def job_of(monkeypatch):
    """What a recipe would train, and the name of its scheme of splits."""

    def job(*files):
        found = []
        monkeypatch.setattr(precompile, "precompile", lambda job, *_: found.append(job))
        bindings = ['STORE_DIR = "s"', 'VOCABULARY_DIR = "v"', 'RUN_DIR = "r"']
        configuration.configure(train, CONFIGURABLES, list(files), bindings)(topology="h200:1")
        return found[0]

    return job


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_settings(name, job_of):
    size, steps, rows = PUBLISHED[name]
    job = job_of(f"runs/opt_iml/{name}.gin")
    assert job.model.num_parameters() == pytest.approx(size, rel=0.02)
    assert (job.steps, job.batch_size, job.length) == (steps, rows, 2048)
    adam = job.optimizer
    assert (adam.learning_rate, adam.warmup_steps, adam.decay_steps) == (5e-5, 60, None)
    assert (adam.b1, adam.b2, adam.clip) == (0.9, 0.95, 1.0)
    assert job.model.dropout == 0.1 and job.model.embed_dropout
    scheme = "opt_iml_max" if name.startswith("max") else "opt_iml"
    assert f"'{scheme}'" in configuration.operative()


def test_a_small_model_takes_a_recipe(job_of):
    job = job_of("runs/opt_iml/1.3b.gin", "models/opt_125m.gin")
    assert job.model.num_parameters() == OPTConfig().num_parameters()
