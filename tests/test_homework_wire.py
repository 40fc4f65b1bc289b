"""What comes out of a box is data or nothing."""

from __future__ import annotations

import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save

from course_lib.grading import probe, wire


def test_tensors_numbers_texts_lists_and_dictionaries_come_back_as_they_were():
    value = {"x": torch.arange(6.0).reshape(2, 3), "n": 3, "f": 0.5, "t": "äß", "b": True, "none": None, "l": [1, [2]]}
    found = wire.plain(value)
    assert torch.equal(found.pop("x"), value.pop("x"))
    assert found == value


@pytest.mark.parametrize("dtype", probe.DTYPES, ids=str)
def test_every_kind_of_number_keeps_its_kind(dtype):
    tensor = torch.tensor([0, 1, 1]).to(dtype)
    found = wire.plain(tensor)
    assert found.dtype == dtype and torch.equal(found, tensor)


def test_numpy_is_torch_and_strides_gradients_and_tuples_do_not_matter():
    leaf = torch.ones(2, 3, requires_grad=True)
    found = wire.plain((np.float64(2.5), np.arange(3)[::-1], leaf.t() * 2, np.int64(7), range(2)))
    assert found[0] == 2.5 and found[3] == 7 and found[4] == [0, 1]
    assert found[1].tolist() == [2, 1, 0] and found[2].tolist() == [[2.0] * 2] * 3


UNSIGNED = [np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_unsigned_numbers_are_whole_numbers(dtype):
    array = np.array([0, 1, np.iinfo(np.uint16).max], dtype)
    for value in (array, torch.from_numpy(array)):
        found = wire.plain(value)
        assert found.dtype == torch.int64 and found.tolist() == [0, 1, 65535]
    assert wire.plain(dtype(7)) == 7


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">i8", ">u4", np.longdouble])
def test_the_order_of_bytes_and_more_precision_than_torch_has_do_not_matter(dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]], dtype)
    found = wire.plain(array[:, ::-1])
    assert found.tolist() == [[2, 1, 0], [5, 4, 3]] and found.is_floating_point() == (array.dtype.kind == "f")
    assert wire.plain(array[0, 2]) == 2


def test_whole_numbers_that_int64_does_not_hold_are_told_apart(tmp_path):
    largest = np.array([2**63 - 1], np.uint64)
    assert wire.plain(largest).tolist() == [2**63 - 1]
    with pytest.raises(probe.TooLarge):
        wire.pack(largest + np.uint64(1))
    assert ask({"f": lambda x: largest + np.uint64(x)}, CALL, ["f"], [{"x": 1}], tmp_path) == {"unsent": "TooLarge"}
    np.seterr(all="raise")
    try:
        assert wire.plain(np.array([np.finfo(np.longdouble).max]))[0] >= np.finfo(np.float64).max
    finally:
        np.seterr(all="warn", under="ignore")


@pytest.mark.parametrize(
    "odd",
    [object(), {1, 2}, 1j, torch.ones(1, dtype=torch.complex64), np.array([None])],
    ids=lambda odd: type(odd).__name__,
)
def test_what_is_no_data_is_not_sent(odd):
    with pytest.raises(probe.NotData):
        wire.pack(odd)


def forged(tree: object, **tensors: torch.Tensor) -> bytes:
    return save(tensors, metadata={"tree": json.dumps(tree)})


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        os.urandom(1000),
        pickle.dumps(Attack()),
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        save({"0": torch.ones(2)}),
        forged({"tensor": "absent"}),
        forged({"tensor": ["0"]}),
        forged({"pickle": "x"}),
        forged({"dict": [[[1], 2]]}),
        forged({"dict": [1]}),
        forged([0] * (wire.MOST_PARTS + 1)),
        forged("x" * (wire.LONGEST + 1)),
        forged(1 << 300),
        save({}, metadata={"tree": "[" * 100_000}),
        save({}, metadata={"tree": "9" * 10_000}),
        forged({"tensor": "0"}, **{"0": torch.ones(2, dtype=torch.float8_e4m3fn)}),
    ],
    ids=range(18),
)
def test_a_forged_file_is_unreadable_and_nothing_else(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(wire.Unreadable):
        wire.read(content)
    assert not list(tmp_path.iterdir())


def test_a_deep_tree_is_unreadable():
    tree: list = []
    for _ in range(wire.DEEPEST + 1):
        tree = [tree]
    with pytest.raises(wire.Unreadable, match="too many parts"):
        wire.read(forged(tree))


def test_a_truth_value_that_is_neither_0_nor_1_is_true():
    content = bytearray(wire.pack(torch.tensor([True, False])))
    content[-2] = 7
    found = wire.read(bytes(content))
    assert found.double().tolist() == [1.0, 0.0]


def test_a_link_a_pipe_a_folder_and_a_second_name_are_not_read(tmp_path):
    good = tmp_path / "good"
    good.write_bytes(b"data")
    assert wire.read_file(good, 10) == b"data"
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "absent"):
        with pytest.raises(wire.Unreadable):
            wire.read_file(tmp_path / name, 10)
    os.link(good, tmp_path / "second")
    with pytest.raises(wire.Unreadable, match="more than one name"):
        wire.read_file(good, 10)


def test_a_file_larger_than_allowed_is_not_read(tmp_path):
    (tmp_path / "answer").write_bytes(bytes(11))
    with pytest.raises(wire.Unreadable, match="larger"):
        wire.read_file(tmp_path / "answer", 10)


def ask(user: dict, call: str, names: list[str], cases: list[dict], folder) -> object:
    """What the probe's cell brings back, run here as it is in a kernel."""
    (folder / "asked").write_bytes(wire.pack(cases))
    (folder / "answer").write_bytes(b"")
    exec(wire.probe_cell(call, names, str(folder / "asked"), str(folder / "answer")), user)
    return wire.read((folder / "answer").read_bytes())


CALL = "def call(answers, x):\n    return answers.f(x)\n"


def test_the_probe_answers_every_case_though_names_are_taken(tmp_path):
    user = {"f": lambda x: x + 1, "exec": None, "json": 3, "torch": "mine", "globals": 0, "open": None, "np": ()}
    assert ask(user, CALL, ["f"], [{"x": 1}, {"x": 2}], tmp_path) == {"cases": [{"gives": 2}, {"gives": 3}]}
    assert not {"probe", "pack", "Silent"} & set(user), "it leaves nothing in the student's names"


def test_the_probe_tells_an_error_by_its_nearest_builtin_class_and_not_its_message(tmp_path):
    class Mine(KeyError):
        pass

    def fail(x):
        raise Mine("hidden input")

    (case,) = ask({"f": fail}, CALL, ["f"], [{"x": 1}], tmp_path)["cases"]
    assert case["stops"] == "KeyError" and "hidden" not in str(case)


def test_the_probe_says_what_is_not_defined(tmp_path):
    assert ask({}, CALL, ["f"], [{"x": 1}], tmp_path) == {"missing": ["f"]}


def test_one_case_does_not_see_what_another_changed_of_its_input(tmp_path):
    def spoil(x):
        return x.mul_(0).sum().item()

    given = torch.ones(2)
    found = ask({"f": spoil}, CALL, ["f"], [{"x": given}, {"x": given}], tmp_path)
    assert found == {"cases": [{"gives": 0.0}, {"gives": 0.0}]} and given.sum() == 2


def test_prints_warnings_made_errors_and_another_default_kind_cost_nothing(tmp_path, capsys):
    import warnings

    def noisy(x):
        print("x" * 1000)
        warnings.warn("look", stacklevel=1)
        return str(torch.ones(1).dtype)

    torch.set_default_dtype(torch.float64)
    try:
        found = ask({"f": noisy}, CALL, ["f"], [{"x": 1}], tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == {"cases": [{"gives": "torch.float32"}]}
    assert capsys.readouterr().out == ""
