"""Every shape in a public signature of course_lib is checked while the tests run, and not while benchmarks do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

sys.path.insert(0, str(Path(__file__).parent))  # tests share tests/reference/recipe.py and the like
for name in ("DATA", "PROFILE", "KINETICS", "SSV2", "KEEPS_TRAINED"):  # what somebody chose for the lessons
    os.environ.pop(f"COURSE_{name}", None)
torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings


def pytest_configure(config: pytest.Config) -> None:
    asked = [Path(path.split("::")[0]).name for path in config.args]
    if any(name.startswith("bench") for name in asked):
        config.addinivalue_line("filterwarnings", "default")  # other libraries are measured too
    else:  # the checks would cost time, and break compiled graphs to pieces
        install_import_hook("course_lib", "shapecheck.check")


@pytest.fixture
def all_cores():
    """For full-size networks."""
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder of real videos, good and broken: $COURSE_CLIPS or ../shared/clips; tests that need it skip without."""
    folder = Path(os.environ.get("COURSE_CLIPS") or Path(__file__).parents[2] / "shared" / "clips")
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}: set COURSE_CLIPS to a folder of videos")
    return folder


@pytest.fixture(scope="session")
def sandbox():
    """The box this machine can hold; tests that need it skip without, and say why."""
    from course_lib.grading.box import NoSafeBox, find_sandbox

    try:
        return find_sandbox()
    except NoSafeBox as error:
        pytest.skip(str(error))
