"""The `course` command."""

from __future__ import annotations

import typer

from course_lib.cli import data, export
from course_lib.cli.course import bench, claims, doctor, experiment, notebooks
from course_lib.cli.export import plans
from course_lib.cli.homework import feedback, grade, gradebook, release, similar
from course_lib.training.run import evaluate, train, watch

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(data.app, name="data")
app.add_typer(export.app, name="export")
for command in (
    *(train, evaluate, watch, doctor, experiment, claims, notebooks),
    *(release, grade, feedback, gradebook, similar, plans),
):
    app.command()(command)
ITS_OWN = {"allow_extra_args": True, "ignore_unknown_options": True}  # options that the program behind it reads
app.command(context_settings=ITS_OWN, add_help_option=False)(bench)
