"""What lies on `gs://` is found and read as local files are; a local folder stands in for the bucket."""

import pathlib
import shutil

import pytest

pytest.importorskip("seqio")

from etils.epath import gpath

from iml import seqio_bridge
from iml.bench import registry
from tasks import (
    bbh,
    crossfit,
    dialogue,
    flan,
    instruction_sets,
    metaicl,
    mmlu,
    natural_instructions_v1,
    opt_tasks,
    pretraining,
    promptsource,
    raft,
    reasoning,
    super_natural_instructions,
    t5,
    unified_skg,
    zero_shot_cot,
)
from tasks.promptsource.rows import find_rows
from tests.tasks import registered

BUCKET = "gs://bucket"
PACKAGE = pathlib.Path(flan.__file__).parents[1]
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
    super_natural_instructions: ("super_natural_instructions/splits", "super_natural_instructions/tasks"),
    promptsource: (
        "promptsource/templates/super_glue/copa",
        "promptsource/templates/banking77",
        "promptsource/templates/glue/cola",
        "promptsource/templates/dream",
        "raw/banking77",
        "raw/dream",
        "t5/glue/CoLA",
        "hf_raw/super_glue/copa",
    ),
    crossfit: ("crossfit/tsv/ai2_arc", "crossfit/tsv/glue-cola"),
    metaicl: ("metaicl/data/ai2_arc",),
    flan: ("hf_raw/super_glue/copa", "raw/cosmos_qa", "unifiedskg/e2e", "t5/glue/MRPC"),
    t5: ("t5/glue", "hf_raw/super_glue"),
}


@pytest.fixture(autouse=True)
def empty_registries():
    registered.clear()
    find_rows.cache_clear()  # every test fills the bucket anew
    yield
    registered.clear()


class Bucket:
    """The operations on files that reading needs, on the files of a local folder."""

    def __init__(self, home):
        self.home = home

    def _local(self, path):
        if not path.startswith(BUCKET):  # the package's own definitions
            assert pathlib.Path(path).is_relative_to(PACKAGE), path
            return pathlib.Path(path)
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
    expected = {name: registered.read(name) for name in registry.names()}
    registered.clear()
    monkeypatch.setattr(gpath.PosixGPath, "_backend", property(lambda path: Bucket(tmp_path)))
    module.register(BUCKET)
    assert {name: registered.read(name) for name in registry.names()} == expected and expected
    for name in registry.names():
        files = seqio_bridge.describe_source(name)[1]
        assert any(file.startswith(BUCKET) for file in files)
        assert not any(file.startswith(str(tmp_path)) for file in files)
