"""Mixtures of other splits than OPT-IML's: each goes with the base run and names a scheme that there is."""

import pytest

from iml import configuration
from iml.bench.levels import leave_one_out_schemes, load_split_scheme
from iml.errors import InputError
from iml.train import CONFIGURABLES, train
from tests.data.small_vocabulary import write_vocabulary


class Stopped(Exception):
    pass


@pytest.fixture
def mixture_of(tmp_path, monkeypatch):
    """The mixture that a run with a gin file and bindings would train on."""

    def configured(name, *bindings):
        called = {}

        def record(store, vocabulary, mixture, *_, **__):
            called["mixture"] = mixture
            raise Stopped

        monkeypatch.setattr("iml.data.stream.TrainStream", record)
        monkeypatch.setattr("iml.data.store.ExampleStore", lambda path: None)
        vocabulary = write_vocabulary(tmp_path).directory
        bindings = ['STORE_DIR = "s"', f'VOCABULARY_DIR = "{vocabulary}"', 'RUN_DIR = "r"', *bindings]
        files = ["models/opt_125m.gin", f"mixtures/{name}.gin", "runs/finetune.gin"]
        with pytest.raises(Stopped):
            configuration.configure(train, CONFIGURABLES, files, bindings)(dry_run=True)
        return called["mixture"]

    return configured


@pytest.mark.parametrize(
    ("name", "scheme"), [("t0", "t0"), ("t0", "t0_plus_plus"), ("super_ni", "super_ni_official")]
)
def test_a_mixture_goes_with_the_base_run(mixture_of, name, scheme):
    bindings = [] if scheme in ("t0", "super_ni_official") else [f'Mixture.split_scheme = "{scheme}"']
    assert mixture_of(name, *bindings).split_scheme == scheme
    assert load_split_scheme(scheme).name == scheme


def test_flan_asks_which_cluster_is_left_out(mixture_of):
    left_out = leave_one_out_schemes()[0]
    mixture = mixture_of("flan_leave_one_out", f'LEFT_OUT = "{left_out}"')
    assert (mixture.split_scheme, mixture.eps, mixture.tasks) == (left_out, 3000, ("flan.*",))
    with pytest.raises(InputError, match="LEFT_OUT"):
        mixture_of("flan_leave_one_out")
