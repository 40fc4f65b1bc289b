"""A forked kernel is closed in as any other, and begins with nothing that another student's has left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_homework as tiny

from course_lib.grading import box as boxes
from course_lib.grading import engine, kernels
from course_lib.grading.box import Box

LEAVE = """
import os, sys, torch, numpy, builtins, json
torch.left = numpy.left = builtins.left = json.left = sys.left = "LEFT"
sys.modules["left"] = torch
torch.manual_seed(7); torch.set_default_dtype(torch.float64); os.environ["LEFT"] = "LEFT"; sys.path.append("/LEFT")
for place in ("/tmp", "/dev/shm", "/home/student"):
    open(place + "/left", "w").write("LEFT")
"""
FIND = """
import os, sys, torch, numpy, builtins, json
print([part.__name__ for part in (torch, numpy, builtins, json, sys) if hasattr(part, "left")], "left" in sys.modules)
print(torch.get_default_dtype(), torch.initial_seed() == 7, "LEFT" in os.environ, "/LEFT" in sys.path)
print([place for place in ("/tmp", "/dev/shm", "/home/student") if os.path.exists(place + "/left")])
print(sorted(name for name in sys.modules if name.startswith("course_lib")))
"""


@pytest.fixture(scope="module")
def box(sandbox):
    forking = kernels.Kernels.start(boxes.environment(1))
    forking.ready()
    yield replace(Box(sandbox, replace(tiny.LIMITS, cell_s=60)), kernels=forking)
    forking.end()


def test_nothing_of_one_student_is_in_the_next_ones_kernel(box):
    assert not engine.run_box(box, [LEAVE], 120).stopped
    found = engine.run_box(box, [FIND], 120)
    assert not found.stopped and found.cells[0].text == "[] False\ntorch.float32 False False False\n[]\n[]\n", found


def test_a_kernel_that_is_not_closed_in_is_refused_before_it_runs_anything(box, monkeypatch):
    monkeypatch.setattr(boxes, "seccomp_filter", lambda: b"")
    real = kernels.Kernels.fork
    more = {"RLIMIT_NOFILE": (999, 999)}
    monkeypatch.setattr(
        kernels.Kernels, "fork", lambda self, anchor, told, hold: real(self, anchor, told | {"limits": more}, hold)
    )
    with pytest.raises(kernels.NotForked, match="limits"):
        engine.run_box(box, ["1"], 120)


def test_forks_that_would_share_more_than_imports_are_refused(monkeypatch):
    forking = kernels.Kernels.start(boxes.environment(1) | {"SECRET": "x"})
    forking.environment = boxes.environment(1)
    try:
        with pytest.raises(kernels.NotForked, match="SECRET"):
            forking.ready()
    finally:
        forking.end()
