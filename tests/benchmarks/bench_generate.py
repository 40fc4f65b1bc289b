"""How long a generated set takes to make: drawing and encoding, on all cores.

`make bench` prints it; nothing is asserted, since it depends on the machine.
"""

from __future__ import annotations

import os
import time

import pytest

from course_lib.synthetic.render import CLASSES
from course_lib.synthetic.write import make

CLIPS = 480


@pytest.mark.parametrize("name", CLASSES)
def test_clips_per_second(name, tmp_path, capsys):
    cores, start = os.cpu_count() or 1, time.perf_counter()
    make(tmp_path, name, CLIPS, workers=cores, progress=False)
    rate = CLIPS / (time.perf_counter() - start)
    with capsys.disabled():
        print(
            f"\n  {name}: {rate:.0f} clips a second of 32 frames at 128 pixels on {cores} cores, "
            f"{1000 * cores / rate:.0f} ms a clip and core; 10 000 in {10_000 / rate / 60:.1f} minutes"
        )
