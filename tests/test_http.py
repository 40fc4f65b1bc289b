"""Downloads end with the file as it is on the server, or with an error; no byte that is there comes twice."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import requests
from web import serving

from course_lib.datasets.download import http as module
from course_lib.datasets.download.http import DownloadError, RetryPolicy, download, size

CONTENT = np.random.default_rng(0).bytes(400_000)
WAYS_TO_FAIL = ("500", "503", "429", "stall", "close", "reset", "corrupt", "no range", "other", "long", "short")


@pytest.fixture
def site():
    with serving() as site:
        site.files["/film"] = CONTENT
        yield site


@pytest.fixture
def policy():
    with requests.Session() as session:
        session.trust_env = False  # no proxy between here and here
        yield RetryPolicy(connect=30.0, stall=30.0, waits=(0.0, 0.0, 0.0), session=session)


def impatient(policy: RetryPolicy, *faults: str) -> RetryPolicy:
    """A stall is soon over; a server that is only late then passes for one, so there are tries to spare."""
    return replace(policy, stall=0.3, waits=(0.0,) * 99) if "stall" in faults else policy


def left(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(site, policy, tmp_path):
    path = download(f"{site.url}/film", tmp_path / "deep" / "film", policy)
    assert path.read_bytes() == CONTENT and left(path.parent) == {"film"}
    assert size(f"{site.url}/film", policy) == len(CONTENT)


def test_a_file_that_is_there_is_not_asked_for(site, policy, tmp_path):
    (tmp_path / "film").write_bytes(b"mine")
    download(f"{site.url}/film", tmp_path / "film", policy)
    assert (tmp_path / "film").read_bytes() == b"mine" and not site.log


@pytest.mark.parametrize("fault", WAYS_TO_FAIL)
def test_one_failure_is_overcome(fault, site, policy, tmp_path):
    site.faults["/film"] = [fault]
    path = download(f"{site.url}/film", tmp_path / "film", impatient(policy, fault))
    assert path.read_bytes() == site.files["/film"] and left(tmp_path) == {"film"}


@pytest.mark.parametrize("first", ["stall", "close", "reset"])
@pytest.mark.parametrize("second", WAYS_TO_FAIL)
def test_a_failure_after_half_the_file_is_overcome(first, second, site, policy, tmp_path):
    site.faults["/film"] = [first, second]
    path = download(f"{site.url}/film", tmp_path / "film", impatient(policy, first, second))
    assert path.read_bytes() == site.files["/film"]


@pytest.mark.parametrize("fault", ["close", "stall"])
def test_what_has_arrived_is_not_fetched_again(fault, site, policy, tmp_path):
    site.faults["/film"] = [fault]
    patient = replace(policy, stall=3.0 if fault == "stall" else policy.stall)  # a late server adds no third request
    assert download(f"{site.url}/film", tmp_path / "film", patient).read_bytes() == CONTENT
    half, rest = site.gets("/film")
    start = int(rest.range.removeprefix("bytes=").removesuffix("-"))
    assert half.range is None and start > half.sent - module.CHUNK and rest.sent == len(CONTENT) - start


def test_the_next_run_goes_on_where_the_last_one_gave_up(site, policy, tmp_path):
    site.faults["/film"] = ["close", "500", "500", "500", "500"]
    with pytest.raises(
        DownloadError, match=r"film: the server answers 500 .* given up after 5 tries, the same command"
    ):
        download(f"{site.url}/film", tmp_path / "film", policy)
    assert left(tmp_path) == {"film.part", "film.part.json"}
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT
    assert site.gets("/film")[-1].sent < len(CONTENT) * 0.6


def test_a_run_stopped_after_the_last_byte_asks_for_nothing(site, policy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "course_lib.files.os.replace", lambda a, b: shutil.move(a, b) if str(b).endswith(".json") else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            download(f"{site.url}/film", tmp_path / "film", policy)
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT
    assert len(site.gets("/film")) == 1


@pytest.mark.parametrize("etag", ['W/"weak"', ""])
def test_without_a_strong_etag_a_file_is_begun_anew(etag, site, policy, tmp_path):
    site.etags["/film"], site.faults["/film"] = etag, ["close"]
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT
    assert [asked.range for asked in site.gets("/film")] == [None, None]


def test_a_part_of_another_address_is_not_used(site, policy, tmp_path):
    site.files["/other"], site.etags = CONTENT[::-1], {"/film": '"same"', "/other": '"same"'}
    site.faults["/other"] = ["close", "403"]
    with pytest.raises(DownloadError, match="no permission"):
        download(f"{site.url}/other", tmp_path / "film", policy)
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT


def test_a_file_changed_between_two_runs_is_never_spliced(site, policy, tmp_path):
    site.etags["/film"], site.faults["/film"] = '"first-2"', ["close", "404"]
    with pytest.raises(DownloadError, match=r"404 .*no such file"):
        download(f"{site.url}/film", tmp_path / "film", policy)
    site.files["/film"], site.etags["/film"] = CONTENT[::-1], '"second-2"'
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT[::-1]
    assert len(site.gets("/film")) == 3, "a range of the other file was asked for"


@pytest.mark.parametrize("fault", ["wrong range", "416"])
def test_an_answer_that_is_not_the_rest_begins_anew(fault, site, policy, tmp_path):
    site.faults["/film"] = ["close", fault]
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT
    assert site.gets("/film")[-1].range is None


@pytest.mark.parametrize("fault", ["corrupt", "long"])
def test_damage_that_stays_is_an_error_in_the_end(fault, site, policy, tmp_path):
    site.faults["/film"] = [fault] * 9
    with pytest.raises(DownloadError, match=r"/film: .*(MD5|bytes|Incomplete).*given up after [45] tries"):
        download(f"{site.url}/film", tmp_path / "film", policy)
    assert not (tmp_path / "film").exists()


@pytest.mark.parametrize("fault", ["404", "403", "410", "html", "html type"])
def test_what_no_other_try_can_mend_is_an_error_at_once(fault, site, policy, tmp_path):
    site.faults["/film"] = ["close", fault]
    with pytest.raises(DownloadError, match=f"answers {fault}" if fault.isdecimal() else "a web page came instead"):
        download(f"{site.url}/film", tmp_path / "film", policy)
    assert len(site.gets("/film")) == 2
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT
    assert site.gets("/film")[-1].range, "the half that was there is lost"


def test_tries_that_bring_something_do_not_count_as_failures(site, policy, tmp_path):
    site.faults["/film"] = ["close"] * 3 + ["500"] * 3 + ["close"]
    assert download(f"{site.url}/film", tmp_path / "film", policy).read_bytes() == CONTENT
    site.faults["/film"] = ["no range", "close"] * 3
    site.etags["/film"] = ""  # each try starts from nothing: no progress
    with pytest.raises(DownloadError, match="given up after"):
        site.faults["/film"] = ["close"] * 20
        download(f"{site.url}/film", tmp_path / "again", policy)


def test_waits_grow_as_asked(site, policy, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    site.faults["/film"] = ["500"] * 9
    with pytest.raises(DownloadError):
        download(f"{site.url}/film", tmp_path / "film", RetryPolicy(waits=(1.0, 5.0, 20.0), session=policy.session))
    assert slept == [1.0, 5.0, 20.0]


def test_a_server_that_is_not_there_is_named(policy, tmp_path):
    with serving() as gone:
        pass
    for call in (
        lambda: size(f"{gone.url}/film", policy),
        lambda: download(f"{gone.url}/film", tmp_path / "x", policy),
    ):
        with pytest.raises(DownloadError, match=r"/film: .*given up after 4 tries"):
            call()
    with pytest.raises(DownloadError, match="Invalid URL"):
        download("film", tmp_path / "x", policy)
