"""Imports run one way, and what lies below the example store knows neither TensorFlow nor SeqIO."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: What each package of iml may import of iml. Entry points may import everything.
ALLOWED = {
    "bench": {"bench", "errors"},
    "data": {"data", "bench", "errors"},
    "models": {"models", "bench", "errors"},
    "training": {"training", "data", "models", "bench", "errors"},
    "browser": {"browser", "data", "bench", "errors", "markup"},
    "evaluation": {"evaluation", "training", "data", "models", "bench", "errors", "markup", "console"},
}
#: What each package within iml.evaluation may import of it. Its modules at the top may import everything.
ALLOWED_IN_EVALUATION = {
    "engines": {"engines"},
    "metrics": {"metrics"},
    "scores": {"scores", "metrics"},
    "results": {"results", "scores", "metrics"},
    "reports": {"reports", "results", "scores", "metrics"},
}
#: The only modules of iml that may import what makes datasets.
ABOVE_THE_STORE = {"prepare", "seqio_bridge"}
DATASET_LIBRARIES = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio"}
#: Libraries for tests and peers alone, which no module of the project may need.
PEERS = {"torch", "transformers", "lm_eval", "promptsource"}


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path):
    """(name, whether the import stands at the top of the module) of all that a file imports."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, id(node) in top
            yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_downwards_only(package):
    files = modules(f"iml/{package}")
    assert files
    for path in files:
        for name, _ in imports(path):
            if name.startswith("iml."):
                assert name.split(".")[1] in ALLOWED[package], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", ALLOWED_IN_EVALUATION)
def test_packages_of_evaluation_import_one_way(package):
    files = modules(f"iml/evaluation/{package}")
    assert files
    for path in files:
        for name, _ in imports(path):
            if name.startswith("iml.evaluation."):
                allowed = ALLOWED_IN_EVALUATION[package]
                assert name.split(".")[2] in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_only_what_prepares_imports_dataset_libraries():
    for path in modules("iml"):
        module = path.relative_to(ROOT / "iml").parts[0].removesuffix(".py")
        for name, _ in imports(path):
            assert name.split(".")[0] not in DATASET_LIBRARIES or module in ABOVE_THE_STORE, (path, name)


def test_no_module_needs_a_peer_to_be_imported():
    for folder in ("iml", "tasks"):
        for path in modules(folder):
            for name, at_the_top in imports(path):
                assert not (at_the_top and name.split(".")[0] in PEERS), (path, name)


def test_tasks_know_the_bench_and_the_registry_only():
    for path in modules("tasks"):
        for name, _ in imports(path):
            if name.startswith("iml."):
                assert name.split(".")[1] in {"bench", "errors", "seqio_bridge"}, (path, name)
