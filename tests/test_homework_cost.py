"""What the teacher's page says of speed is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = json.loads((ROOT / "data" / "results" / "grading" / "vtn.json").read_text())
PAGE = (ROOT / "notebooks" / "homework" / "README.md").read_text(encoding="utf-8")


def test_the_teachers_page_tells_what_was_measured():
    ours, theirs = RECORD["course grade"], RECORD["nbgrader autograde"]
    rates = [round(3600 / each["processor_seconds"], -1) for each in (ours, theirs)]
    said = re.search(r"marks ([\d,]+) submissions an hour a core, nbgrader ([\d.]+) ([\d,]+)", PAGE)
    assert said and said[2] == RECORD["nbgrader"]
    assert [int(said[at].replace(",", "")) for at in (1, 3)] == rates
    clock = re.search(r"by the clock, .*? ([\d,]+) and ([\d,]+)\.", PAGE, re.DOTALL)
    assert clock and [int(each.replace(",", "")) for each in clock.groups()] == [
        round(3600 / each["seconds"], -1) for each in (ours, theirs)
    ]
    assert theirs["processor_seconds"] / ours["processor_seconds"] >= 2 and theirs["seconds"] / ours["seconds"] >= 2


def test_what_a_class_of_300_costs_is_ten_times_a_class_of_30():
    both = RECORD["class_on_two_cores"]
    said = re.search(
        r"class of 30 took (\d+) s on two cores .*?(\d+) s of processor time.*?class of 300 (\d+) minutes", PAGE, re.S
    )
    assert said and RECORD["submissions"] == 30
    assert [int(said[at]) for at in (1, 2)] == [round(both["seconds"]), round(both["processor_seconds"])]
    assert int(said[3]) == round(both["seconds"] * 10 / 60)
