"""The box holds: tried from the inside, as a student would."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tiny_homework as tiny

from course_lib.grading import box as boxes
from course_lib.grading import engine, kernels
from course_lib.grading.box import Box, NoSafeBox

SECRET = "hidden-answer-7f3a"
SLEEP = f"7771{os.getpid():010}"  # seconds, by which a process is found

LOOK = """
import ctypes, json, os, resource, socket, subprocess
libc, said = ctypes.CDLL(None, use_errno=True), {}

def tried(name, do):
    try:
        said[name] = repr(do())
    except BaseException as error:
        said[name] = f"{type(error).__name__} {getattr(error, 'errno', '')}"

def call(name, *arguments):
    ctypes.set_errno(0)
    return getattr(libc, name)(*arguments), ctypes.get_errno()

for path in ("/etc/passwd", "/etc/shadow", "/home", "/root/.bashrc", "/proc/1/root/etc/passwd", SECRET_PATH):
    tried("read " + path, lambda: os.listdir(path) if os.path.isdir(path) else open(path).read())
for path in ("/usr/x", "/x", "/course/x", "/dev/x", "/in/x", VENV + "/x", "/proc/sys/kernel/core_pattern"):
    tried("write " + path, lambda: open(path, "w").write("x"))
tried("replace answer", lambda: os.unlink("/answer"))
tried("move answer", lambda: os.rename("/answer", "/tmp/answer"))
tried("link answer", lambda: os.link("/answer", "/tmp/answer"))
if CLOSED:
    tried("sockets", lambda: os.unlink(KERNEL + "/k.json"))
    tried("new socket", lambda: os.mkdir(KERNEL + "/x"))
for address in (("127.0.0.1", PORT), ("8.8.8.8", 53)):
    tried("connect " + address[0], lambda: socket.create_connection(address, timeout=2))
tried("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
tried("unshare", lambda: call("unshare", 0x10000000))
tried("ptrace", lambda: call("ptrace", 0, 0, 0, 0))
tried("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
tried("memory of no process", lambda: os.memfd_create("x"))
for name, arguments in {"shmget": (0, 1 << 20, 0o1600), "msgget": (0, 0o1600), "semget": (0, 9, 0o1600)}.items():
    tried(name, lambda: call(name, *arguments))
tried("setuid", lambda: os.setuid(0))
tried("memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)))
tried("limits", lambda: [resource.getrlimit(which) for which in (resource.RLIMIT_NPROC, resource.RLIMIT_CORE)])
tried("processes", lambda: sorted(int(each) for each in os.listdir("/proc") if each.isdigit()))
tried("status", lambda: open("/proc/self/status").read())
tried("environment", lambda: dict(os.environ))
tried("course_lib", lambda: __import__("course_lib"))
tried("large file", lambda: os.truncate(os.open("large", os.O_CREAT | os.O_WRONLY), FILE + 1))
def fill(folder):
    for number in range(20):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(bytes(8 << 20))
for folder in ("/tmp", "/dev/shm", "/home/student"):
    tried("fill " + folder, lambda: fill(folder))
    for number in range(20):
        if os.path.exists(f"{folder}/{number}"):
            os.unlink(f"{folder}/{number}")
tried("suid", lambda: subprocess.run(["su", "-c", "id"], capture_output=True, stdin=subprocess.DEVNULL).returncode)
tried("daemon", lambda: subprocess.Popen(["setsid", "sleep", SLEEP], start_new_session=True).pid)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def before() -> set[Path]:
    return tiny.work_folders()


@pytest.fixture(scope="module")
def said(sandbox, tmp_path_factory, before):
    """What one kernel in the box could do."""
    folder = tmp_path_factory.mktemp("hidden")
    folder.chmod(0o755)
    (folder / "answers").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        names = {
            "SECRET_PATH": str(folder / "answers"), "PORT": server.getsockname()[1],
            "VENV": os.path.abspath(boxes.sys.prefix), "FILE": tiny.LIMITS.file_mb << 20,
            "CLOSED": sandbox.steps_down, "SLEEP": SLEEP,
        }  # fmt: skip
        head = "\n".join(f"{name} = {value!r}" for name, value in names.items())
        head += "\nimport glob; KERNEL = glob.glob('/tmp/homework-*/kernel')[0]\n"
        limits = replace(tiny.LIMITS, cell_s=60)
        run = engine.run_box(Box(sandbox, limits), [head + LOOK], 120)
        with pytest.raises(TimeoutError):
            server.accept()
    assert not run.stopped and not run.cells[0].error, run
    return json.loads(run.cells[0].text)


def test_no_file_of_the_machine_is_read(said):
    read = {name: what for name, what in said.items() if name.startswith("read ")}
    assert read.pop("read /home") == "['student']"
    assert all("Error" in what for what in read.values()), read
    assert SECRET not in json.dumps(said)


def test_nothing_outside_is_written(said):
    written = {name: what for name, what in said.items() if name.startswith("write ")}
    assert len(written) == 7 and all("Error" in what for what in written.values()), written


def test_the_answer_is_no_link_and_has_no_second_name(said):
    assert all("OSError" in said[f"{what} answer"] for what in ("replace", "move", "link")), said


def test_nothing_is_made_beside_the_sockets_once_they_are_there(said, sandbox):
    if not sandbox.steps_down:
        pytest.skip("an ordinary user's own folder; the watcher ends the box instead")
    assert "PermissionError" in said["sockets"] and "PermissionError" in said["new socket"]


def test_no_network_is_reached(said):
    assert all("Error" in said[f"connect {address}"] for address in ("127.0.0.1", "8.8.8.8"))
    assert "OSError 97" in said["vsock"]


def test_no_right_is_gained(said):
    for name in ("unshare", "mount", "ptrace"):
        assert said[name] == "(-1, 1)", (name, said[name])
    assert "Error" in said["setuid"] and "Error" in said["memory"] and said["suid"] != "0"
    status = dict(line.split(":\\t", 1) for line in said["status"].split("\\n") if ":\\t" in line)
    assert status["CapEff"] == status["CapBnd"] == "0" * 16
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert not status["Uid"].startswith("0\\t")


def test_limits_are_those_of_the_homework(said):
    assert f"({tiny.LIMITS.processes}, {tiny.LIMITS.processes}), (0, 0)" in said["limits"]
    assert "OSError 27" in said["large file"]  # EFBIG
    assert all("OSError 28" in said[f"fill {folder}"] for folder in ("/tmp", "/dev/shm", "/home/student"))  # ENOSPC


def test_no_memory_is_had_that_no_process_holds(said):
    assert said["memory of no process"] == "PermissionError 1"
    assert [said[name] for name in ("shmget", "msgget", "semget")] == ["(-1, 1)"] * 3


def test_other_processes_and_the_graders_environment_are_not_seen(said):
    assert len(json.loads(said["processes"])) < 12
    assert set(eval(said["environment"])) - set(boxes.environment(1)) <= {"PWD", "JPY_SESSION_NAME", "KERNEL_ID",
        "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "PAGER", "GIT_PAGER", "PYDEVD_USE_FRAME_EVAL", "SHLVL",
        "OLDPWD", "_", "LC_CTYPE", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}  # fmt: skip


def test_course_lib_which_holds_the_answers_is_not_there(said):
    assert "ModuleNotFoundError" in said["course_lib"]


def test_nothing_outlives_its_box(said, before):
    assert said["daemon"].isdigit()
    assert not [each for each in psutil.process_iter(["cmdline"]) if SLEEP in (each.info["cmdline"] or [])]
    assert not (tiny.work_folders() - before)


BOMBS = {
    "time": "while True: pass",
    "memory": "import os, time\nfor _ in range(3):\n    if not os.fork():\n"
    "        x = b'x' * (400 << 20); time.sleep(60)\ntime.sleep(60)",
    "output": "while True: print('x' * 1000, flush=True)",
    "died": "import os; os._exit(0)",
}


@pytest.mark.parametrize("why", BOMBS)
def test_a_box_ends_at_its_limit_and_says_which(why, sandbox):
    start = time.monotonic()
    limits = replace(tiny.LIMITS, cell_s=5 if why == "time" else 60)
    run = engine.run_box(Box(sandbox, limits), ["print('before')", BOMBS[why], "print('after')"], 100)
    assert (run.stopped, run.at) == (why, 1)
    assert run.cells[0].text == "before\n" and len(run.cells) == 2
    assert time.monotonic() - start < 100


MANY = """
import os
made = 0
try:
    while True:
        os.close(os.open(f"/tmp/{made}", os.O_CREAT | os.O_WRONLY))
        made += 1
except OSError as error:  # as many as this machine lets a box have, by whatever limit
    print(made, error)
"""


@pytest.mark.parametrize("forked", [True, False], ids=["forked", "a process of its own"])
def test_a_box_ends_when_it_makes_more_files_than_memory_should_hold(forked, sandbox):
    forking = kernels.Kernels.start(boxes.environment(1)) if forked else None
    try:
        if forking:
            forking.ready()
        box = Box(sandbox, replace(tiny.LIMITS, cell_s=60), kernels=forking)
        run = engine.run_box(box, ["print('before')", MANY], 120)
    finally:
        if forking:
            forking.end()
    assert (run.stopped, run.at) == ("disk", 1), run


BESIDE = "import glob, mmap, os, time\nplace = glob.glob('/tmp/homework-*/kernel')[0] + '/x'\n"
FILLS = {
    "a folder": BESIDE + "os.mkdir(place)\ntime.sleep(60)",
    "a file without a name": BESIDE + "file = open(place, 'wb')\nos.unlink(place)\nfile.write(bytes(1 << 20))\n"
    "time.sleep(60)",
    "a map of a file without a name": BESIDE + "file = open(place, 'w+b')\nfile.write(bytes(1 << 20)); file.flush()\n"
    "m = mmap.mmap(file.fileno(), 1 << 20)\nos.unlink(place)\nfile.close()\nfor fd in range(3, 99):\n"
    "    try:\n        if '(deleted)' in os.readlink(f'/proc/self/fd/{fd}'): os.close(fd)\n    except OSError: pass\n"
    "time.sleep(60)",
}  # fmt: skip


@pytest.mark.parametrize("what", FILLS)
def test_a_box_of_an_ordinary_user_ends_when_it_fills_the_folder_of_its_sockets(what, sandbox):
    if sandbox.steps_down:
        pytest.skip("nothing can be made there")
    run = engine.run_box(Box(sandbox, replace(tiny.LIMITS, cell_s=40)), [FILLS[what]], 100)
    assert (run.stopped, run.at) == ("disk", 0), run


FORKS = """
import os, time
made, until = 0, time.time() + 2
while time.time() < until:
    try:
        if not os.fork():
            time.sleep(60)
            os._exit(0)
        made += 1
    except OSError:
        time.sleep(0.05)
print(made)
"""


def test_forks_stop_at_the_limit_text_is_harmless_and_a_cell_that_raises_does_not_stop_the_rest(sandbox):
    cells = [
        "1 / 0", "import sys; sys.exit(0)", r"print('\x1b[31mred\x1b[0m \u202eleft\x07')",
        "from IPython.display import HTML, display\ndisplay(HTML('<script>'))", "print('x' * 100_000)", FORKS,
    ]  # fmt: skip
    run = engine.run_box(Box(sandbox, tiny.LIMITS), cells, 100)
    assert not run.stopped
    assert [cell.error for cell in run.cells[:3]] == ["ZeroDivisionError", "SystemExit", ""]
    assert run.cells[2].text == "red left\n" and "<script" not in run.cells[3].text
    assert len(run.cells[4].text) == engine.KEPT_OF_CELL
    assert 10 < int(run.cells[5].text) <= tiny.LIMITS.processes


def test_the_second_arrangement_of_root_holds_too(sandbox):
    if os.geteuid():
        pytest.skip("only root can close a box without a user namespace")
    assert boxes.faults(boxes.ROOT_ONLY) == ""


def test_the_filter_refuses_what_it_should_on_both_machines():
    """Interprets the program as the kernel would."""
    for column, machine in enumerate(boxes.ARCHITECTURE):
        program = [struct.unpack("HBBI", one) for one in zip_bytes(boxes.seccomp_filter(machine))]

        def ends(number: int, argument: int = 0, machine: str = machine, program: list = program) -> int:
            data = struct.pack("<iIQ6Q", number, boxes.ARCHITECTURE[machine], 0, argument, 0, 0, 0, 0, 0)
            value = at = 0
            while True:
                code, true, false, operand = program[at]
                at += 1
                if code == 0x20:
                    (value,) = struct.unpack_from("<I", data, operand)
                elif code == 0x06:
                    return operand
                else:
                    hit = {0x15: value == operand, 0x35: value >= operand, 0x45: value & operand}[code]
                    at += true if hit else false

        allowed, refused = 0x7FFF0000, 0x00050001
        for name, numbers in boxes.DENIED.items():
            assert ends(numbers[column]) == refused, name
        assert ends(boxes.CLONE3[column]) == 0x00050000 | 38
        assert ends(boxes.CLONE[column], boxes.NEW_USER | 17) == refused and ends(boxes.CLONE[column], 17) == allowed
        assert [ends(boxes.SOCKET[column], family) == allowed for family in (1, 2, 10, 16, 38, 40)] == [True] * 4 + [
            False
        ] * 2
        assert ends(0) == allowed and ends(boxes.CLONE[column], 0x3D0F00) == allowed
    assert boxes.seccomp_filter("riscv64") is None


def zip_bytes(program: bytes | None) -> list[bytes]:
    assert program is not None
    return [program[at : at + 8] for at in range(0, len(program), 8)]


@pytest.mark.parametrize(
    ("platform", "missing", "remedy"),
    [("darwin", "", "virtual"), ("linux", "bwrap", "apt install bubblewrap"), ("linux", "setpriv", "util-linux")],
)
def test_a_machine_without_a_safe_box_is_refused_with_a_remedy(platform, missing, remedy, monkeypatch):
    monkeypatch.setattr(boxes.sys, "platform", platform)
    monkeypatch.setattr(boxes.shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    with pytest.raises(NoSafeBox, match=remedy):
        boxes.find_sandbox()


def test_a_box_that_does_not_close_is_refused(monkeypatch):
    monkeypatch.setattr(boxes, "faults", lambda sandbox: "bwrap: setting up uid map: Permission denied")
    monkeypatch.setattr(boxes.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(NoSafeBox, match="AppArmor"):
        boxes.find_sandbox()


def test_a_box_with_a_capability_or_a_network_is_not_taken(monkeypatch, sandbox):
    real = boxes.argv
    monkeypatch.setattr(boxes, "argv", lambda *given: [each for each in real(*given) if each != "--unshare-net"])
    assert "network" in boxes.faults(sandbox)
    monkeypatch.setattr(boxes, "argv", lambda *given: ["sh", "-c", "echo 'CapEff: 000001ffffffffff'"])
    assert "CapEff" in boxes.faults(sandbox)


def test_deep_and_locked_folders_of_a_box_are_removed(tmp_path):
    deep = tmp_path / "work"
    subprocess.run(
        ["sh", "-c", f'mkdir -p "{deep}"; cd "{deep}"; for i in $(seq 2000); do mkdir d; cd d; done'], check=True
    )
    (deep / "locked").mkdir(mode=0o000)
    boxes.remove(deep)
    assert not deep.exists()


def test_folders_of_dead_graders_are_swept_and_those_of_living_ones_stay():
    dead = subprocess.Popen(["true"])
    dead.wait()
    folders = [Path(f"{boxes.PREFIX}{pid}-test") for pid in (dead.pid, os.getpid())]
    for folder in folders:
        folder.mkdir()
    try:
        boxes.sweep()
        assert [folder.exists() for folder in folders] == [False, True]
    finally:
        folders[1].rmdir()


def test_two_graders_may_sweep_at_the_same_time(monkeypatch):
    gone = Path("/tmp/homework-999999999-gone")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([gone]))
    boxes.sweep()
