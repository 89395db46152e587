"""Fixtures shared by all tests: where the real data are, and how a test says that it needs them."""

import os
import pathlib
import signal

import hypothesis
import pytest

# The same examples in every run, and no judgement by how long they take to make: what fails, fails because of what
# was changed. Others are drawn with `--hypothesis-profile=default`.
hypothesis.settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("same")

# In a shell's background interrupts are ignored, and so they would be by every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: The folder of real data files, or None where it is absent.
DATA = next(
    (
        path
        for path in (
            pathlib.Path(os.environ.get("IML_TEST_DATA", "")) if os.environ.get("IML_TEST_DATA") else None,
            pathlib.Path(__file__).resolve().parents[2] / "shared" / "data",
        )
        if path is not None and path.is_dir()
    ),
    None,
)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    if DATA is None:
        pytest.skip("needs the real data files: set IML_TEST_DATA to their folder")
    return DATA
