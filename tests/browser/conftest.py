"""A small site with hostile data, exported and served."""

import threading

import pytest

from iml.bench.mixing import Mixture
from iml.browser.catalogue import Catalogue
from iml.browser.export import export
from iml.browser.server import Server
from iml.browser.site import Site, Stream
from iml.data.prompts import PromptFormat
from tests.browser.pages import EVIL, HOSTILE, PLAIN, RANKED
from tests.data.small_vocabulary import write_vocabulary
from tests.stores import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    plain = [(f"\n\nWhere is the thing {i}? 漢字 é", f"There {i} \U0001f600") for i in range(30)]
    evil = {"source": HOSTILE, "target": HOSTILE, "instruction": HOSTILE, "rationale": HOSTILE}
    ranked = [
        {
            "source": f"Is {i} even?",
            "target": "yes",
            "candidates": ["yes", "no"],
            "instruction": "Tell the parity.",
        }
        for i in range(6)
    ]
    card = {"category": HOSTILE, "source": HOSTILE, "url": "javascript:window.owned=6", "licence": HOSTILE}
    evil_rows = [
        {**evil, "uid": f"{HOSTILE}{i}", "template": HOSTILE, "references": [HOSTILE, "other"],
         "candidates": [HOSTILE, "other"]}
        for i in range(5)
    ]  # fmt: skip
    return make_store(
        tmp_path_factory.mktemp("browse"),
        {
            PLAIN: {"card": {"url": "https://example.org/?a=1&b=2"}, "train": plain, "test": plain[:7]},
            EVIL: {"card": {**card, "instruction_level": "task"}, "train": evil_rows},
            RANKED: {
                "card": {
                    "category": "Question Answering",
                    "instruction_level": "task",
                    "metrics": ["accuracy"],
                },
                "validation": ranked,
            },
        },
    )


@pytest.fixture(scope="module")
def site(store, tmp_path_factory):
    vocabulary = write_vocabulary(tmp_path_factory.mktemp("vocabulary"))
    stream = Stream(Mixture(split_scheme="opt_iml_max"), batch_size=2, length=512, segments=8)
    return Site(
        Catalogue(store, "opt_iml"), PromptFormat(), vocabulary, stream, shots=(0, 2), most_characters=6000
    )


@pytest.fixture(scope="module")
def exported(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "pages"
    export(site, folder)
    return folder


@pytest.fixture(scope="module")
def server(site):
    server = Server(site, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
