"""The results of a small class, graded once in this process, for tests of feedback and of the gradebook."""

from __future__ import annotations

from pathlib import Path

import tiny_homework as tiny

from course_lib.grading import box as boxes
from course_lib.grading import results, run

ANN, BOB = "=<b>ann & co", "bob"
ODD = 'print("<script>alert(1)</script>", "\\x1b[31mred\\x1b[0m", "a\\u202eb")\nprint("<!-- & -->")  # '
RAW = "\x1b[31mraw\x1b[0m \u202e\x07"  # colours and turned writing, in the file itself
WRONG_1 = "def double(x):\n    # </pre><img src=x onerror=alert(1)> &amp;\n    return 3 * x"
STOPS_3 = "def count(x):\n    raise KeyError('my words', float(x[0]))"


def grade_class(folder: Path) -> Path:
    """ann: q1 wrong, q2 right by a right q1, q3 stops; bob has handed nothing in. The folder of results."""
    tiny.release(folder / "tiny")
    (folder / "class" / ANN).mkdir(parents=True)
    (folder / "class" / BOB).mkdir()
    content = tiny.notebook(tiny.cell(tiny.SETUP), tiny.cell(ODD + RAW), *tiny.answers(q1=WRONG_1, q3=STOPS_3))
    (folder / "class" / ANN / "tiny.ipynb").write_bytes(content)
    plan = run.Plan(folder / "tiny", folder / "class", folder / "out", boxes.NONE, tiny.LIMITS)
    marker = run.Marker(plan)
    results.About.of(marker.release).write(plan.out)
    for student in (ANN, BOB):
        results.store(plan.out, student, marker(run.Task(student, "key")), "first")
    return plan.out
