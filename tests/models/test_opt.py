import dataclasses
import functools
import pathlib
import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from iml import configuration
from iml.errors import InputError
from iml.models import attention
from iml.models.attention import document_attention
from iml.models.config import REMAT, OPTConfig
from iml.models.losses import target_loss, token_nll
from iml.models.opt import OPT
from tests.models.peers import KINDS

LENGTH = 24
#: OPT's parameter counts; each equals that of transformers' OPTForCausalLM (test below).
COUNTS = {
    "125m": 125_239_296,
    "350m": 331_196_416,
    "1.3b": 1_315_758_080,
    "2.7b": 2_651_596_800,
    "6.7b": 6_658_473_984,
    "13b": 12_853_473_280,
    "30b": 29_974_540_288,
    "66b": 65_719_701_504,
    "175b": 174_604_468_224,
}


def take_model(model: OPTConfig) -> OPTConfig:
    return model


def _gin_config(size: str) -> OPTConfig:
    bindings = ("take_model.model = @OPTConfig()",)
    return configuration.configure(take_model, (OPTConfig,), (f"models/opt_{size}.gin",), bindings)()


@pytest.fixture(scope="module", params=sorted(KINDS))
def model(request):
    opt = OPT(KINDS[request.param])
    params = opt.init(jax.random.key(0))
    # Biases and scales away from 0 and 1, weights large enough for sharp attention.
    noise = iter(jax.random.split(jax.random.key(1), 64))
    return opt, jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(noise), leaf.shape), params)


def _pack(documents, rows, length=LENGTH):
    """Batch of documents laid out by `rows`, lists of document numbers; and where each document went."""
    tokens = np.ones((len(rows), length), np.int32)
    segments, positions, places = np.zeros_like(tokens), np.zeros_like(tokens), {}
    for row, numbers in enumerate(rows):
        start = 0
        for segment, number in enumerate(numbers, 1):
            end = start + len(documents[number])
            tokens[row, start:end] = documents[number]
            segments[row, start:end] = segment
            positions[row, start:end] = np.arange(end - start)
            places[number] = (row, slice(start, end))
            start = end
    return (tokens, segments, positions), places


@pytest.mark.parametrize("size", COUNTS)
def test_sizes_have_the_parameters_of_opt(size):
    config = _gin_config(size)
    assert config.num_parameters() == COUNTS[size]
    leaves = jax.tree.leaves(OPT(config).abstract_params())
    assert sum(leaf.size for leaf in leaves) == COUNTS[size]


def test_counts_equal_those_of_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for size in COUNTS:
        config = _gin_config(size)
        theirs = transformers.OPTConfig(
            hidden_size=config.embed_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            ffn_dim=config.ffn_dim,
            word_embed_proj_dim=config.word_dim,
            do_layer_norm_before=config.pre_norm,
        )
        with torch.device("meta"):
            model = transformers.OPTForCausalLM(theirs)
        assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[size], size


def test_logical_axes_name_every_dimension(model):
    opt, params = model
    is_axes = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    axes = jax.tree.leaves(opt.logical_axes(), is_leaf=is_axes)
    assert [len(names) for names in axes] == [leaf.ndim for leaf in jax.tree.leaves(params)]
    abstract = opt.abstract_params()
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )


@functools.partial(jax.jit, static_argnums=0)
def _loss_and_gradient(opt, params, tokens, segments, positions):
    def loss(params):
        logits = opt.apply(params, tokens, segments, positions)
        # Tokens are their own targets: any fixed function of each document's logits will do.
        total, count = target_loss(logits, tokens, segments > 0)
        return total / count, logits

    return jax.value_and_grad(loss, has_aux=True)(params)


@hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_packed_rows_give_the_logits_and_gradients_of_single_documents(model, data):
    """The acceptance test of metaseq's pull request 104, on random packings."""
    opt, params = model
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=4, max_size=4))
    order = data.draw(st.permutations(range(4)))
    random = np.random.default_rng(sum(lengths))
    documents = [random.integers(0, opt.config.vocab_size, length) for length in lengths]
    packed, places = _pack(documents, [order[:2], order[2:], [], []])
    single, single_places = _pack(documents, [[0], [1], [2], [3]])
    step = functools.partial(_loss_and_gradient, opt)
    (packed_loss, packed_logits), packed_grads = step(params, *packed)
    (single_loss, single_logits), single_grads = step(params, *single)
    assert abs(packed_loss - single_loss) < 1e-5
    for number in range(4):
        np.testing.assert_allclose(
            packed_logits[places[number]], single_logits[single_places[number]], rtol=1e-5, atol=1e-5
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), packed_grads, single_grads
    )
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((packed_grads, packed_logits)))


def test_a_poisoned_neighbour_changes_nothing(model):
    opt, params = model
    documents = [np.arange(5, 11), np.arange(20, 27), np.arange(40, 46)]
    batch, places = _pack(documents, [[0, 1, 2]])
    documents[1] = documents[1][::-1] + 30
    poisoned, _ = _pack(documents, [[0, 1, 2]])
    poisoned[0][0, 19:] = 7  # padding too
    apply = jax.jit(opt.apply)
    before, after = apply(params, *batch), apply(params, *poisoned)
    for number in (0, 2):
        np.testing.assert_array_equal(before[places[number]], after[places[number]])
    assert abs(before[places[1]] - after[places[1]]).max() > 1e-2
    assert np.isfinite(after).all()


@functools.cache
def _gradient(remat):
    """With dropout, which must be the same when it is computed again."""
    config = dataclasses.replace(KINDS["pre_norm"], attention_dropout=0.1)
    params = jax.jit(OPT(config).init)(jax.random.key(0))
    batch, _ = _pack([np.arange(9)], [[0]])
    opt, key = OPT(dataclasses.replace(config, remat=remat)), jax.random.key(3)
    loss = lambda params: target_loss(opt.apply(params, *batch, dropout_key=key), *batch[:2])[0]  # noqa: E731
    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("remat", ["full", "attention", "dots"])
def test_recomputing_changes_no_gradient(remat):
    expected, found = _gradient(OPTConfig().remat), _gradient(remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), expected, found)


@pytest.mark.slow
def test_policies_save_ever_less_and_change_no_gradient():
    rows = jnp.tile(jnp.arange(256), (4, 1))
    batch = (rows % 64, rows // 100 + 1, rows % 100)

    def compiled(remat):
        config = OPTConfig(64, 4, 64, 2, max_positions=256, dropout=0.0, dtype="float32", remat=remat)
        opt = OPT(dataclasses.replace(config, attention="blocks"))

        def loss(params):
            states = opt.hidden(params, *batch)
            return (states * jnp.sin(jnp.arange(states.size)).reshape(states.shape)).sum()

        return opt, jax.jit(jax.grad(loss)).lower(opt.abstract_params()).compile()

    found = {remat: compiled(remat) for remat in REMAT}
    params = found["none"][0].init(jax.random.key(0))
    sizes = [program.memory_analysis().temp_size_in_bytes for _, program in found.values()]
    assert sizes == sorted(set(sizes), reverse=True)
    # Saved attention is not computed again: neither of the loops over its blocks is there twice.
    loops = {remat: program.as_text().count(" while(") for remat, (_, program) in found.items()}
    assert loops["attention"] == loops["dots"] == loops["none"] < loops["full"]
    expected = found["none"][1](params)
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for _, program in found.values():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * largest),
            program(params),
            expected,
        )


def test_attention_that_saves_nothing_by_name_is_refused(monkeypatch):
    kernel = dataclasses.replace(attention.IMPLEMENTATIONS["blocks"], saves=False)
    monkeypatch.setitem(attention.IMPLEMENTATIONS, "blocks", kernel)
    with pytest.raises(InputError, match=r"OPTConfig\.remat"):
        OPT(OPTConfig(64, 1, 32, 2, remat="attention", attention="blocks"))


def test_dropout_needs_a_key_and_differs_by_layer_and_place():
    config = dataclasses.replace(KINDS["pre_norm"], dropout=0.5)
    opt = OPT(config)
    params = jax.jit(opt.init)(jax.random.key(0))
    batch, _ = _pack([np.arange(9)], [[0]])
    apply = jax.jit(opt.apply)
    plain = apply(params, *batch)
    one, again, other = (apply(params, *batch, dropout_key=jax.random.key(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert abs(one - other).max() > 1e-3 < abs(one - plain).max()
    np.testing.assert_array_equal(plain, apply(params, *batch))


def test_compile_does_not_grow_with_depth():
    def lines(layers):
        opt = OPT(dataclasses.replace(KINDS["pre_norm"], num_layers=layers))
        ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
        return len(jax.jit(opt.apply).lower(opt.abstract_params(), ids, ids, ids).as_text().splitlines())

    assert lines(2) == lines(40)


def test_bfloat16_keeps_the_logits_float32():
    opt = OPT(dataclasses.replace(KINDS["pre_norm"], dtype="bfloat16"))
    params = opt.init(jax.random.key(0))
    batch, _ = _pack([np.arange(9)], [[0]])
    logits = opt.apply(params, *batch)
    exact = OPT(KINDS["pre_norm"]).apply(params, *batch)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact, atol=0.05)


def test_an_id_outside_the_vocabulary_is_noticed():
    opt = OPT(KINDS["pre_norm"])
    batch, _ = _pack([np.array([5, opt.config.vocab_size])], [[0]])
    assert np.isnan(opt.apply(opt.init(jax.random.key(0)), *batch)[0, 1]).all()


def test_loss_counts_targets_only():
    logits = jax.random.normal(jax.random.key(0), (2, 5, 7))
    targets = jnp.arange(10).reshape(2, 5) % 7
    weights = jnp.array([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])
    expected = -jax.nn.log_softmax(logits)[jnp.arange(2)[:, None], jnp.arange(5), targets]
    np.testing.assert_allclose(token_nll(logits, targets), expected, rtol=1e-5)
    spoiled = logits.at[0, 1].set(jnp.nan)  # a position that is no target
    total, count = target_loss(spoiled, targets, weights)
    np.testing.assert_allclose(total, (expected * weights).sum(), rtol=1e-5)
    assert count == 3


def test_unknown_attention_is_refused():
    query = jnp.zeros((1, 4, 2, 8))
    with pytest.raises(InputError, match="unknown attention 'flash'"):
        document_attention(query, query, query, jnp.ones((1, 4), int), implementation="flash")
    with pytest.raises(InputError, match="xla"):
        OPT(dataclasses.replace(KINDS["pre_norm"], attention="flash"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_heads", 5), ("dropout", 1.0), ("remat", "some"), ("dtype", "int8"), ("ffn_dim", 0)],
)
def test_impossible_configurations_are_refused(field, value):
    with pytest.raises(InputError, match=re.escape(f"OPTConfig.{field}")):
        dataclasses.replace(KINDS["pre_norm"], **{field: value})


def test_every_size_has_a_gin_file():
    folder = pathlib.Path(configuration.CONFIG_DIR) / "models"
    assert {f"opt_{size}.gin" for size in (*COUNTS, "tiny")} <= {path.name for path in folder.iterdir()}
