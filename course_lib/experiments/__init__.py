"""Controlled experiments: data in memory (data), one run and its record (runs), records side by side (records), which
arms a claim compares (claims)."""

from course_lib.experiments.data import Data, load_set, to_clips, varied
from course_lib.experiments.recipes import with_recipe
from course_lib.experiments.records import by_seed, records
from course_lib.experiments.runs import Arm, learn, recipe, run, score

__all__ = [
    "Arm",
    "Data",
    "by_seed",
    "learn",
    "load_set",
    "recipe",
    "records",
    "run",
    "score",
    "to_clips",
    "varied",
    "with_recipe",
]
