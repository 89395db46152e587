"""Reading behind a context, in a tree, and token by token in a ring: always the plain forward pass' states."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iml.models import cached
from iml.models.config import OPTConfig
from iml.models.opt import OPT
from tests.models import double

SHAPE = {
    "vocab_size": 64,
    "num_layers": 2,
    "embed_dim": 32,
    "num_heads": 2,
    "max_positions": 40,
    "dropout": 0.0,
}
#: 350M's kind has its norms after the sums and projects its words.
KINDS = {"pre_norm": {}, "post_norm": {"word_embed_dim": 16, "pre_norm": False, "final_norm": False}}
WIDTH = 16


@pytest.fixture(autouse=True, scope="module")
def float64():
    """The weights below make a rounding error a thousand times as large: float32's would hide what is wrong."""
    with double.float64():
        yield


@functools.cache
def model(kind):
    opt = OPT(OPTConfig(**SHAPE, **KINDS[kind], **double.DOUBLE))
    params = jax.jit(opt.init)(jax.random.key(0))
    # Weights with opinions, so that a wrong mask shows in full.
    return opt, jax.tree.map(lambda x: x * 10 if x.ndim > 1 else x, params)


@functools.cache
def compiled(kind, name, logits=None):
    """A function of the model; one for each number of logits above which heads are taken one by one."""
    opt = model(kind)[0]
    return jax.jit(opt.hidden if name == "hidden" else functools.partial(getattr(cached, name), opt))


def plain(kind, ids):
    """States of one document by the plain forward pass."""
    params = model(kind)[1]
    tokens = np.ones((1, 32), np.int32)
    tokens[0, : len(ids)] = ids
    places = np.arange(32, dtype=np.int32)[None]
    hidden = compiled(kind, "hidden")(params, tokens, (places < len(ids)).astype(np.int32), places)
    return np.asarray(hidden)[0, : len(ids)]


words = st.integers(4, 63)


@pytest.mark.parametrize("logits", [0, 2**22])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(
    st.lists(words, max_size=8),
    st.lists(words, min_size=1, max_size=6),
    st.lists(st.lists(words, max_size=4)),
)
def test_a_tree_behind_a_context_reads_as_its_paths_do(kind, logits, context, trunk, branches):
    """`context` is read before and shared, `trunk` is a row's own, of which every branch goes on by itself."""
    tokens, branch, places = list(trunk), [0] * len(trunk), list(range(len(trunk)))
    kept = []
    for ids in branches:
        if len(tokens) + len(ids) <= WIDTH:
            kept.append((ids, len(tokens)))
            tokens += ids
            branch += [len(kept)] * len(ids)
            places += range(len(trunk), len(trunk) + len(ids))
    mask = np.zeros((1, WIDTH, WIDTH), bool)
    for i in range(len(tokens)):
        for j in range(i + 1):
            mask[0, i, j] = branch[j] in (0, branch[i])
    padding = WIDTH - len(tokens)
    row = np.array([tokens + [1] * padding], np.int32)
    positions = np.array([places + [0] * padding], np.int32) + len(context)
    params, shared = model(kind)[1], None
    read = compiled(kind, "read", logits)
    with mock.patch.object(cached, "_CACHED_LOGITS", logits):
        if context:
            before = np.array([context + [1] * (8 - len(context))], np.int32)
            _, cache = read(params, before, np.arange(8)[None], np.tril(np.ones((1, 8, 8), bool)))
            shared = cached.Shared(cache, np.int32(len(context)))
        hidden, _ = read(params, row, positions, mask, shared)
    for ids, start in [([], len(trunk)), *kept]:
        found = np.concatenate([hidden[0, : len(trunk)], hidden[0, start : start + len(ids)]])
        expected = plain(kind, context + trunk + ids)[len(context) :]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ring_reads_as_documents_do_whenever_they_enter(kind, apart):
    opt, params = model(kind)
    random = np.random.default_rng(0)
    documents = [random.integers(4, 64, n) for n in (9, 5, 11, 7)]
    if apart:
        params = cached.layers_apart(params)
    columns, step = 12, compiled(kind, "step")
    insert = jax.jit(cached.insert)
    cache = cached.empty_cache(opt, 2, columns, apart)
    entered: dict[int, list[int]] = {}
    # (step, row, document, tokens read at once); the second pair enters rows that were used before.
    events = [(0, 0, 0, 4), (3, 1, 1, 1), (7, 0, 2, 6), (9, 1, 3, 0)]
    for time in range(13):
        for _, row, number, count in (event for event in events if event[0] == time):
            tokens = np.ones((1, 6), np.int32)
            tokens[0, 6 - count :] = documents[number][:count]
            seen = np.arange(6) >= 6 - count
            places = np.maximum(0, np.arange(6) - (6 - count))[None]
            _, new = compiled(kind, "read")(
                model(kind)[1], tokens, places, (seen[None, :] & np.tril(np.ones((6, 6), bool)))[None]
            )
            source = np.where(np.arange(2) == row, 0, -1)
            cache = insert(cache, new, source, time)
            entered[row] = [number, count]
        tokens, filled, live = np.ones(2, np.int32), np.zeros(2, np.int32), []
        for row, (number, count) in entered.items():
            if count < len(documents[number]):
                tokens[row], filled[row] = documents[number][count], count
                live.append((row, number, count))
                entered[row][1] += 1
        hidden, cache = step(params, tokens, filled, jnp.int32(time), cache)
        for row, number, count in live:
            expected = plain(kind, documents[number].tolist())[count]
            np.testing.assert_allclose(hidden[row], expected, rtol=1e-9, atol=1e-9)
