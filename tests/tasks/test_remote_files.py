"""What lies on `gs://` is found and read as local files are; a local folder stands in for the bucket."""

import shutil

import pytest

pytest.importorskip("seqio")

from etils.epath import gpath

from iml import seqio_bridge
from iml.bench import registry
from tasks import (
    bbh,
    dialogue,
    instruction_sets,
    mmlu,
    natural_instructions_v1,
    opt_tasks,
    pretraining,
    raft,
    reasoning,
    unified_skg,
    zero_shot_cot,
)
from tests.tasks import registered

BUCKET = "gs://bucket"
FOLDERS = {
    unified_skg: ("unifiedskg/spider", "unifiedskg/wikitq", "unifiedskg/multiwoz", "unifiedskg/tab_fact"),
    reasoning: ("reasoning/gsm8k", "reasoning/cos_e", "reasoning/zero_shot_cot"),
    dialogue: ("dialogue/sgd", "dialogue/chatterbot_corpus"),
    pretraining: ("pretrain_text",),
    mmlu: ("mmlu/data",),
    bbh: ("bbh",),
    raft: ("raft",),
    opt_tasks: ("opt_tasks", "hf_raw/glue/rte", "t5/superglue/RTE", "t5/superglue/WSC"),
    zero_shot_cot: ("reasoning/svamp", "reasoning/asdiv", "reasoning/csqa2"),
    instruction_sets: ("instruction",),
    natural_instructions_v1: ("super_natural_instructions/drafts_2021",),
}


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    yield
    registered.clear()


class Bucket:
    """The operations on files that reading needs, on the files of a local folder."""

    def __init__(self, home):
        self.home = home

    def _local(self, path):
        assert path.startswith(BUCKET), path
        return self.home / path.removeprefix(BUCKET).lstrip("/")

    def exists(self, path):
        return self._local(path).exists()

    def isdir(self, path):
        return self._local(path).is_dir()

    def listdir(self, path):
        return [entry.name for entry in self._local(path).iterdir()]

    def glob(self, pattern):
        found = self.home.glob(pattern.removeprefix(f"{BUCKET}/"))
        return [f"{BUCKET}/{path.relative_to(self.home)}" for path in found]

    def open(self, path, mode):
        return self._local(path).open(mode)


@pytest.mark.parametrize("module", FOLDERS, ids=lambda module: module.__name__)
def test_a_bucket_is_read_as_a_folder_is(module, real_data, tmp_path, monkeypatch):
    for folder in FOLDERS[module]:
        shutil.copytree(real_data / folder, tmp_path / folder)
    module.register(str(tmp_path))
    expected = registered.read_all()
    registered.clear()
    monkeypatch.setattr(gpath.PosixGPath, "_backend", property(lambda path: Bucket(tmp_path)))
    module.register(BUCKET)
    assert registered.read_all() == expected and expected
    for name in registry.names():
        files = seqio_bridge.describe_source(name)[1]
        assert any(file.startswith(BUCKET) for file in files)
        assert not any(file.startswith(str(tmp_path)) for file in files)
