"""What CVDF publishes of Kinetics, and where: lists of archives, and csv files with labels.

Addresses: README and scripts of https://github.com/cvdfoundation/kinetics-dataset. The archives of Kinetics-400 and
-700-2020 hold clips of many classes each. Of Kinetics-600, CVDF itself calls the csv files of train and val incomplete.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from course_lib.datasets.download.archive import clip_name
from course_lib.datasets.download.http import RetryPolicy, download
from course_lib.files import read_csv

SITE = "https://s3.amazonaws.com/kinetics"
VERSIONS = {"400": ("400", "k400"), "600": ("600", "k600"), "700": ("700_2020", "k700_2020")}
SPLITS = ("train", "val", "test")
REPLACEMENT = "replacement_for_corrupted_k400"
COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class Archive(NamedTuple):
    """One archive: its address, the split it belongs to, the folder for its clips, where it is spooled and recorded."""

    url: str
    split: str
    folder: str
    spool: Path
    record: Path


def wanted_clips(
    root: Path, version: str, split: str, classes: Collection[str] | None, site: str, policy: RetryPolicy
) -> tuple[frozenset[str], int]:
    """File names of the wanted clips of a split, and how many the csv lists in all."""
    table = download(
        f"{site}/{VERSIONS[version][0]}/annotations/{split}.csv", root / "annotations" / f"{split}.csv", policy
    )
    names, seen, number = set(), set(), 0
    for number, (_, row) in enumerate(read_csv(table, COLUMNS), 1):
        seen.add(row["label"])
        if classes is None or row["label"] in classes:
            try:
                names.add(clip_name(row["youtube_id"], int(row["time_start"]), int(row["time_end"])))
            except ValueError as error:
                raise ValueError(f"{table}: row {number} names no clip ({error}); delete the file") from error
    if unknown := sorted(set(classes or ()) - seen):
        raise ValueError(f"{table}: no class {unknown[0]!r} among its {len(seen)}, such as {min(seen, default='')!r}")
    return frozenset(names), number


def list_archives(
    root: Path, version: str, split: str, chosen: range | None, site: str, policy: RetryPolicy
) -> list[Archive]:
    folder, short = VERSIONS[version]
    name = f"{short}_{split}_path.txt"
    state = root / ".fetch" / split
    addresses = download(f"{site}/{folder}/{split}/{name}", state / name, policy)
    urls = [url.strip() for url in addresses.read_text(encoding="utf-8").split("\n") if url.strip()]
    names = [PurePosixPath(unquote(urlsplit(url).path)).name for url in urls]
    fits = all(url.startswith("http") and name.endswith(".tar.gz") for url, name in zip(urls, names, strict=True))
    if not urls or not fits or len(set(names)) < len(names):
        raise ValueError(f"{addresses}: is no list of addresses of different tar.gz archives; delete it and try again")
    found = [Archive(u, split, split, state / n, state / f"{n}.json") for u, n in zip(urls, names, strict=True)]
    if chosen is not None:
        if not chosen or chosen[-1] >= len(found) or chosen[0] < 0:
            raise ValueError(f"{split} has the archives 0 to {len(found) - 1}, not {chosen.start} to {chosen.stop - 1}")
        found = [found[number] for number in chosen]
    if (version, split) == ("400", "train"):
        name = f"{REPLACEMENT}.tgz"
        state = root / ".fetch" / "replacement"
        url = f"{site}/{folder}/{name}"
        found.append(Archive(url, split, f"replacement/{REPLACEMENT}", state / name, state / f"{name}.json"))
    return found


def numbers(text: str) -> range:
    """What "0-3" or "7" means, both ends included."""
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        raise ValueError(f"archives {text!r}: give a number or two, such as 7 or 0-3")
    return range(int(first), int(last or first) + 1)
