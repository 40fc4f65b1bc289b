"""The command line of benchmarks, with the standard library alone."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib.bench.record import RECORDS, run
from course_lib.bench.table import write_tables
from course_lib.paths import DATA


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all parts are there, 3 some are left, 1 could not, 130 stopped."""
    parser = argparse.ArgumentParser(
        "course bench", description="Time networks, their peers and reading on this device into a record; goes on."
    )
    parser.add_argument("--out", type=Path, help=f"the record, such as {RECORDS / 'h200.json'}")
    parser.add_argument("--only", default="", help="parts whose names this regular expression finds: training/eager")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins later than this; else 8")
    parser.add_argument(
        "--table", action="store_true", help="write the tables of README.md and data/README.md from the records"
    )
    options = parser.parse_args(arguments)
    try:
        re.compile(options.only)
    except re.error as error:
        parser.error(f"--only {options.only}: no regular expression, {error}; a part's name will do: training/eager")
    if options.out is None and not options.table:
        parser.error("name the record with --out, or give --table")
    try:
        done = run(options.out, options.only, options.minutes) if options.out else True
        if options.table:
            write_tables(DATA.parent)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())
