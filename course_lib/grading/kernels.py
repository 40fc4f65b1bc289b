"""Kernels in half the time of a box: a process that has imported PyTorch forks, and the fork steps into the box.

bubblewrap makes the box as ever and keeps in it a process that only waits. The fork joins the box's namespaces, gives
up every right, takes the limits and the filter of system calls, and becomes the kernel. The process that forks never
runs a line of a student's: it imports, waits and forks, so each kernel begins with what was imported and nothing else.
It knows nothing hidden either; it is started with the environment of the box, and this file alone of course_lib.

This file is run as a program too (`serve`), and so imports nothing of course_lib at its top.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
NO_RIGHTS = {name: "0" * 16 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
ANCHOR = ("sh", "-c", "echo; read _")  # says that the box is there, and ends when nobody holds its other end
START = 60.0
IMPORTED = (
    "torch", "numpy", "safetensors.torch", "einops", "ipykernel.kernelapp", "ipykernel.ipkernel", "IPython",
)  # fmt: skip


class NotForked(RuntimeError):
    """A kernel could not be forked into a box, or is not closed in as it should be; the sentence says why."""


# In the process that forks


def serve(descriptor: int) -> None:
    """Fork a kernel for every message, until nobody is left who could send one."""
    for name in IMPORTED:
        __import__(name)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    channel = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    channel.send(json.dumps(state()).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 32)
        if not message:
            os._exit(0)
        if not os.fork():
            try:
                channel.close()
                _watch_over(json.loads(message), descriptors)
            finally:
                os._exit(1)
        for each in descriptors:
            os.close(each)


def state() -> dict[str, Any]:
    """What the forks of this process could share with it or inherit from it beside memory that is copied."""
    with open("/proc/self/maps") as maps:
        shared = [line.split(maxsplit=5)[-1].strip() for line in maps if line.split()[1][1::2] == "ws"]
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "shared": shared,
        "course": sorted(name for name in sys.modules if name.startswith("course_lib")),
        "environment": dict(os.environ),
    }


def _watch_over(told: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Between the two: forks the kernel into the box, and holds the end whose closing ends the box."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    answer, hold, *rest = descriptors
    namespaces = dict(zip(NAMESPACES, rest, strict=True))
    if not told["root"]:  # the owner of the box's first user namespace has every right in it
        _join(fcntl.ioctl(namespaces["user"], 0xB702))  # NS_GET_PARENT
    _join(namespaces["pid"])  # for children
    child = os.fork()
    if not child:
        try:
            os.close(hold)
            _step_in(told, namespaces)
            os.closerange(3, 1 << 16)
            _become_kernel(told["connection_file"])
        finally:
            os._exit(1)
    os.write(answer, str(child).encode())
    for each in (answer, *rest):
        os.close(each)
    os.waitpid(child, 0)
    os._exit(0)


def _step_in(told: Mapping[str, Any], namespaces: Mapping[str, int]) -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    os.setsid()
    if told["root"]:
        os.setgroups([])
    for name in ("net", "ipc", "uts", "cgroup", "mnt"):
        _join(namespaces[name])
    uid, own_user = told["uid"], told["user_namespace"]
    if not own_user:
        _drop_bounds()
    if told["root"]:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if own_user:
        _join(namespaces["user"])
        _drop_bounds()
    for name, (soft, hard) in told["limits"].items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _call("capset", header, none)
    _call("prctl", 47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
    _call("prctl", 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    _call("prctl", 4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its own /proc is its own again, as after an exec
    os.chdir(told["home"])
    program = bytes.fromhex(told["filter"])
    if program:
        kept = ctypes.create_string_buffer(program, len(program))
        whole = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(kept))
        _call("prctl", 22, 2, ctypes.create_string_buffer(whole, len(whole)), 0, 0)  # PR_SET_SECCOMP, a filter


def _drop_bounds() -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for number in range(last + 1):
        _call("prctl", 24, number, 0, 0, 0)  # PR_CAPBSET_DROP


def _join(namespace: int) -> None:
    _call("setns", namespace, 0)


libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} {arguments[0] if name == 'prctl' else ''}: {os.strerror(number)}")


def _become_kernel(connection_file: str) -> None:
    import importlib

    import numpy
    from ipykernel.kernelapp import IPKernelApp

    importlib.invalidate_caches()  # /course was not there
    numpy.random.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["ipykernel_launcher", "-f", connection_file]
    IPKernelApp.launch_instance()
    os._exit(0)


# In the grader


@dataclass
class Kernels:
    """The process that forks, as the grader has it. One box at a time."""

    process: subprocess.Popen
    channel: socket.socket
    environment: Mapping[str, str]

    @classmethod
    def start(cls, environment: Mapping[str, str]) -> Kernels:
        """It imports while the caller goes on; see `ready`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [os.path.abspath(sys.executable), __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=dict(environment), cwd="/", pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        return cls(process, ours, environment)

    def ready(self) -> None:
        """NotForked if it does not start, or if its forks would inherit more than imports."""
        self.channel.settimeout(START)
        try:
            found = json.loads(self.channel.recv(1 << 20) or "{}")
        except (OSError, ValueError) as error:
            raise NotForked(f"the process that forks did not start: {error}") from error
        if not found:
            raise NotForked("the process that forks ended before it began")
        if found["threads"] != 1 or found["shared"] or found["course"]:
            raise NotForked(f"forks would share more than imports: {found}")
        if more := set(found["environment"].items()) - set(self.environment.items()):
            raise NotForked(f"it was started with {sorted(name for name, _ in more)}")

    def fork(self, anchor: int, told: Mapping[str, Any], hold: int) -> int:
        """Fork a kernel into the box in which the process `anchor` waits; its pid. `hold`: the anchor's other end."""
        opened = [os.open(f"/proc/{anchor}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in NAMESPACES]
        answer, theirs = os.pipe()
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs, hold, *opened]))]
            self.channel.sendmsg([json.dumps(told).encode()], ancillary)
            os.close(theirs)
            theirs = -1
            said = os.read(answer, 32)
        except OSError as error:
            raise NotForked(f"the process that forks is gone: {error}") from error
        finally:
            for each in (answer, theirs, *opened):
                if each >= 0:
                    os.close(each)
        if not said.isdigit():
            raise NotForked("the fork could not join the box")
        return int(said)

    def end(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


def waiting_in(process: subprocess.Popen) -> int:
    """The process that waits in the box, once it is there."""
    import psutil

    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if child.cmdline() == list(ANCHOR):
                return child.pid
    raise NotForked("nothing waits in the box")


def check(kernel: int, anchor: int, uid: int, filtered: bool) -> None:
    """NotForked unless a kernel is closed in like the process that bubblewrap started there: seen from outside."""
    try:
        with open(f"/proc/{kernel}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        wanted = NO_RIGHTS | {"NoNewPrivs": "1", "Groups": "", "Seccomp": "2" if filtered else "0"}
        wanted |= {"Uid": "\t".join([str(uid)] * 4)}
        wrong = [name for name, value in wanted.items() if status.get(name, "").strip() != value]
        for name in NAMESPACES:
            if os.readlink(f"/proc/{kernel}/ns/{name}") != os.readlink(f"/proc/{anchor}/ns/{name}"):
                wrong.append(f"namespace {name}")
        roots = [os.stat(f"/proc/{pid}/root/") for pid in (kernel, anchor)]
        if (roots[0].st_dev, roots[0].st_ino) != (roots[1].st_dev, roots[1].st_ino):
            wrong.append("root")
        with open(f"/proc/{kernel}/limits") as one, open(f"/proc/{anchor}/limits") as other:
            if one.read() != other.read():
                wrong.append("limits")
    except OSError as error:
        raise NotForked(f"the kernel is gone: {error.strerror}") from error
    if wrong:
        raise NotForked(f"a forked kernel is not closed in: {', '.join(wrong)}")


def wait_for_anchor(descriptor: int, seconds: float = START) -> None:
    """NotForked if the box does not say in time that it is there."""
    import select

    until = time.monotonic() + seconds
    while not select.select([descriptor], [], [], max(0, until - time.monotonic()))[0]:
        if time.monotonic() > until:
            raise NotForked("the box did not open in time")
    if os.read(descriptor, 1) != b"\n":
        raise NotForked("the box did not open")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, which holds the grader
    serve(int(sys.argv[1]))
