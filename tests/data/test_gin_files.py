"""The gin files of mixtures and of prompts set what they say."""

import re

import pytest

from iml import configuration
from iml.bench import mixing
from iml.bench.mixing import Mixture
from iml.bench.subsets import CategorySubset, TaskSubset
from iml.data import prompts
from iml.data.prompts import PromptFormat
from iml.data.random import Draws

FILES = sorted(
    str(path.relative_to(configuration.CONFIG_DIR))
    for folder in ("mixtures", "formats")
    for path in (configuration.CONFIG_DIR / folder).glob("*.gin")
)


def settings(mixture: Mixture, prompt_format: PromptFormat) -> tuple[Mixture, PromptFormat]:
    return mixture, prompt_format


def _settings(files, *bindings):
    names = ["settings.mixture = @Mixture()", "settings.prompt_format = @PromptFormat()"]
    known = (*mixing.CONFIGURABLES, *prompts.CONFIGURABLES)
    return configuration.configure(settings, known, files, [*names, *bindings])()


@pytest.mark.parametrize("file", FILES)
def test_every_file_can_be_read(file):
    text = (configuration.CONFIG_DIR / file).read_text(encoding="utf-8")
    required = re.findall(r"^(\w+) = %gin\.REQUIRED$", text, re.MULTILINE)
    mixture, prompt_format = _settings([file], *(f"{name} = 'sentiment'" for name in required))
    assert isinstance(mixture, Mixture) and isinstance(prompt_format, PromptFormat)


def test_metaicl():
    for exponent, percent in ((2, "67.05"), (4, "92.50")):
        for suffix in ("", "_suffix"):
            _, form = _settings([f"mixtures/metaicl_zipf{exponent}{suffix}.gin"])
            assert f"{100 * form.shots_distribution[0]:.2f}" == percent
            assert len(form.shots_distribution) == 6 and form.separator == "\n\n\n"
            assert form.suffix_loss == bool(suffix)


def test_flan():
    _, form = _settings(["formats/flan_2022.gin"], "FEW_SHOT = 0.2")
    assert form.shots_distribution[0] == 0.8 and form.inversion.rate == 0.3
    drawn = {form.draw_shots(Draws(0, number)) for number in range(500)}
    assert drawn == {0, 2, 3, 5}


def test_opt_imls_prompts_are_the_default():
    assert _settings(["formats/opt_iml.gin"])[1] == PromptFormat()


def test_studies_of_scale():
    mixture, _ = _settings(["mixtures/opt_iml.gin", "mixtures/task_subset.gin"], "TASKS = 256")
    assert mixture.subset == TaskSubset(256) and mixture.proportions["flan"] == 0.2
    mixture, _ = _settings(["mixtures/opt_iml.gin", "mixtures/category_subset.gin"])
    assert isinstance(mixture.subset, CategorySubset) and len(mixture.subset.always) == 3
    mixture, _ = _settings(["mixtures/reasoning_ablation.gin"], "REASONING_SHARE = 0.1")
    assert mixture.extra_shares == {"reasoning": 0.1}
