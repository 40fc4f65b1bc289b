"""What tests in a real browser share: one Chromium, and a place for the figures that they measure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import chromium_path, launch


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; the tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if chromium_path() is None:
        pytest.skip("needs Chromium: install it (apt install chromium) or name it in COURSE_CHROMIUM")
    playwright.expect.set_options(timeout=60_000)  # many tests may share the processor
    with playwright.sync_playwright() as driver:
        chromium = launch(driver)
        yield chromium
        chromium.close()


@pytest.fixture
def figures(capsys: pytest.CaptureFixture) -> Callable[[str, dict[str, float]], None]:
    """Print measured figures past pytest's capture; add them to the JSON file that COURSE_FIGURES names, if any."""

    def record(name: str, measured: dict[str, float]) -> None:
        with capsys.disabled():
            print(f"\n  {name}: " + ", ".join(f"{key} {value:g}" for key, value in measured.items()))
        if path := os.environ.get("COURSE_FIGURES"):
            file = Path(path)
            known = json.loads(file.read_text()) if file.exists() else {}
            temporary = file.with_name(f".{file.name}.{os.getpid()}")
            temporary.write_text(json.dumps(known | {name: measured}, indent=1) + "\n")
            os.replace(temporary, file)

    return record
