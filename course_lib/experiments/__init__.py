"""Controlled experiments: data in memory (data), one run and its record (runs), records side by side (records), which
arms a claim compares (claims); what papers claim (paper_claims) and what the records say of it (claims_page)."""

from course_lib.experiments.data import Data, load_set, to_clips, varied
from course_lib.experiments.recipes import with_recipe
from course_lib.experiments.records import by_seed, matching, paired, records, same_seeds, training_loss
from course_lib.experiments.runs import Arm, learn, recipe, run, score

__all__ = [
    "Arm",
    "Data",
    "by_seed",
    "learn",
    "load_set",
    "matching",
    "paired",
    "recipe",
    "records",
    "run",
    "same_seeds",
    "score",
    "to_clips",
    "training_loss",
    "varied",
    "with_recipe",
]
