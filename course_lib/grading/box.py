"""The box a submission runs in: bubblewrap around one kernel, with nothing in it but Python and what the task needs.

No network, no capability, a uid of its own, a read-only environment, and limits on memory, processes, files and
output. Code in the box owns its kernel; what it cannot do is reach another student, the release, or the machine.
"""

from __future__ import annotations

import errno
import functools
import os
import platform
import shutil
import site
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from course_lib.grading.kernels import Kernels
from course_lib.grading.manifest import Limits

MB = 1 << 20
FIRST_UID = 60001  # a grader that is root steps down to this one and, in a pool, those after it
HOME = "/home/student"
IN_MEMORY = ("/tmp", "/dev/shm")  # beside it, what a box can write that lies in memory
INODES = 100_000  # files and folders that a box may hold in memory; each costs about 1 KB that no process has
PREFIX = "/tmp/homework-"  # of work folders; short, because the path of a unix socket has at most 107 bytes


class NoSafeBox(RuntimeError):
    """This machine cannot hold a submission; the sentence says why and what to do."""


@dataclass(frozen=True)
class Sandbox:
    """One way to close the box. Without a user namespace the grader must be root."""

    name: str
    steps_down: bool  # root becomes another user before anything else
    user_namespace: bool


ROOT = Sandbox("bubblewrap, own uid, user namespace", True, True)
USER = Sandbox("bubblewrap, user namespace", False, True)
ROOT_ONLY = Sandbox("bubblewrap, own uid, no user namespace", True, False)
NONE = Sandbox("none", False, False)  # chosen only by --trust-submissions


@dataclass(frozen=True)
class Box:
    """What one kernel gets. `slot`: its number among those that run at a time. `mounts`: {path inside: path}."""

    sandbox: Sandbox
    limits: Limits = Limits()
    slot: int = 0
    mounts: dict[str, Path] = field(default_factory=dict)
    threads: int = 1
    kernels: Kernels | None = None  # forks the kernel; without, each imports everything anew

    @property
    def uid(self) -> int:
        return FIRST_UID + self.slot if self.sandbox.steps_down else os.geteuid()


# The filter of system calls

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
DENIED = {  # what a notebook never needs and attacks on the kernel do: (x86_64, aarch64)
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "vmsplice": (278, 75), "personality": (135, 92), "quotactl": (179, 60),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89), "syslog": (103, 116),
    # they hold memory that is in no process, where nobody counts it
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190),
}  # fmt: skip
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
NEW_USER = 0x10000000
# unix, IPv4, IPv6, netlink (ZeroMQ asks it); vsock would leave a virtual machine in spite of the network namespace
FAMILIES = (1, 2, 10, 16)


def seccomp_filter(machine: str = "") -> bytes | None:
    """A program for bwrap --seccomp; None for a machine whose numbers of system calls are not in the table."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURE:
        return None
    column = list(ARCHITECTURE).index(machine)
    load, equal, at_least, any_bit, back = 0x20, 0x15, 0x35, 0x45, 0x06
    refuse, allow, kill = 0x00050000, 0x7FFF0000, 0x80000000

    def line(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    def refused(why: int) -> bytes:
        return line(back, refuse | why)

    number, architecture, argument = 0, 4, 16  # offsets in seccomp_data
    program = [line(load, architecture), line(equal, ARCHITECTURE[machine], 1, 0), line(back, kill)]
    program += [line(load, number)]
    if machine == "x86_64":  # the x32 numbers
        program += [line(at_least, 0x40000000, 0, 1), refused(errno.EPERM)]
    for numbers in sorted(DENIED.values()):
        program += [line(equal, numbers[column], 0, 1), refused(errno.EPERM)]
    # the flags of clone3 lie in memory, where a filter cannot look: without it libc falls back to clone
    program += [line(equal, CLONE3[column], 0, 1), refused(errno.ENOSYS)]
    program += [line(equal, CLONE[column], 0, 4), line(load, argument), line(any_bit, NEW_USER, 0, 1)]
    program += [refused(errno.EPERM), line(back, allow)]
    program += [line(equal, SOCKET[column], 0, len(FAMILIES) + 2), line(load, argument)]
    program += [line(equal, family, len(FAMILIES) - i, 0) for i, family in enumerate(FAMILIES)]
    program += [refused(errno.EAFNOSUPPORT)]
    return b"".join([*program, line(back, allow)])


# The command


def resource_limits(limits: Limits) -> dict[str, tuple[int, int]]:
    """Soft and hard, of each process, by prlimit's names."""
    kept = {
        "as": limits.address_mb * MB, "fsize": limits.file_mb * MB, "nproc": limits.processes,
        "nofile": limits.files, "core": 0,
    }  # fmt: skip
    return {"cpu": (limits.cpu_s, limits.cpu_s + 2)} | {name: (most, most) for name, most in kept.items()}


def environment(threads: int) -> dict[str, str]:
    """All that a kernel in the box sees of the environment."""
    return {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "HOME": HOME, "USER": "student", "LOGNAME": "student",
        "LANG": "C.UTF-8", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "MALLOC_ARENA_MAX": "2",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/course", "JUPYTER_RUNTIME_DIR": "/tmp/runtime",
        "IPYTHONDIR": "/tmp/ipython", "MPLBACKEND": "agg", "MPLCONFIGDIR": "/tmp/matplotlib",
    }  # fmt: skip


def outside() -> dict[str, str]:
    """The environment of bwrap itself: a kernel in the box can read it in /proc/1/environ, so it has nothing secret."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


def prefixes() -> list[str]:
    """Where Python and its packages lie, besides /usr."""
    found = dict.fromkeys(os.path.abspath(each) for each in (sys.base_prefix, sys.prefix))
    return [each for each in found if not _within(each, "/usr")]


def _within(path: str, folder: str) -> bool:
    return (os.path.realpath(path) + "/").startswith(os.path.realpath(folder).rstrip("/") + "/")


def visible(path: str | Path) -> str:
    """The folder through which every box could read a path; "" if there is none."""
    return next((each for each in ("/usr", *prefixes()) if _within(str(path), each)), "")


def argv(box: Box, work: Path, command: Sequence[str]) -> list[str]:
    """What runs `command` in the box with the folder `work` (see `work_folder`)."""
    limits = box.limits
    # before bwrap: its own process inside has the uid of the student, who can write into its memory
    most = {name: f"--{name}={soft}:{hard}" for name, (soft, hard) in resource_limits(limits).items()}
    processes = most.pop("nproc")
    inner = ["prlimit", *most.values(), "--"]
    inner += ["bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    inner += ["--unshare-uts", "--unshare-cgroup-try", "--hostname", "box", "--clearenv"]
    if box.sandbox.user_namespace:
        inner += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    inner += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            inner += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            inner += ["--ro-bind", name, name]
    inner += ["--proc", "/proc", "--dev", "/dev"]
    for name, size in (*((each, limits.tmp_mb) for each in IN_MEMORY), (HOME, limits.folder_mb)):
        # the one who runs without a user namespace is still root while these are made
        inner += ["--perms", "1777", "--size", str(size * MB), "--tmpfs", name]
    sources = {**{each: Path(each) for each in prefixes()}, **box.mounts}
    made: set[str] = {"/", "/tmp", "/home", HOME, "/usr"}
    for inside in [*sources, f"{work}/kernel"]:  # parents that bwrap makes by itself are closed to others
        for parent in [str(each) for each in reversed(Path(inside).parents)]:
            if parent not in made and parent not in sources:
                inner += ["--perms", "0755", "--dir", parent]
                made.add(parent)
    for inside, source in sources.items():
        inner += ["--ro-bind", os.path.realpath(source), inside]
    for hidden in course_packages():
        inner += ["--size", "4096", "--tmpfs", hidden, "--remount-ro", hidden]
    inner += ["--ro-bind", f"{work}/in", "/in", "--bind", f"{work}/answer", "/answer"]
    inner += ["--bind", f"{work}/kernel", f"{work}/kernel"]
    inner += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", HOME]
    for name, value in environment(box.threads).items():
        inner += ["--setenv", name, value]
    filtered = (work / "filter").exists()
    if filtered:
        inner += ["--seccomp", "9"]
    step_down = ["setpriv", f"--reuid={box.uid}", f"--regid={box.uid}", "--clear-groups", "--bounding-set=-all"]
    step_down += ["--no-new-privs", "--"]
    inner += ["--", *([] if box.sandbox.user_namespace else [*step_down[:-2], "--inh-caps=-all", *step_down[-2:]])]
    # this one inside: outside, it would count all that the grader's own user runs
    inner += ["choom", "-n", "1000", "--", "prlimit", processes, "--", *command]
    if filtered:
        inner = ["sh", "-c", 'exec "$@" 9<"$0"', f"{work}/filter", *inner]
    if box.sandbox.steps_down and box.sandbox.user_namespace:
        return [*_reachable(work, [*map(str, sources.values())]), "--", *step_down, *inner]
    return inner


def _reachable(work: Path, sources: Sequence[str]) -> list[str]:
    """A first bwrap, run by root, in which another user reaches `sources` even below a folder closed to him."""
    # a pid namespace of its own: killing this one would leave the inner one alive; no --proc, which bars the inner one
    command = ["bwrap", "--die-with-parent", "--unshare-pid", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    command += ["--bind", "/proc", "/proc"]  # the inner one writes its map of uids there
    closed: dict[str, list[str]] = {}
    for source in dict.fromkeys(os.path.realpath(each) for each in sources):
        barred = [str(each) for each in reversed(Path(source).parents) if not os.stat(each).st_mode & 1]
        if barred:
            closed.setdefault(barred[0], []).append(source)
    for folder, inside in closed.items():
        command += ["--perms", "0755", "--tmpfs", folder]
        made = {folder}
        for source in inside:
            for parent in reversed(Path(source).parents):  # those that bwrap makes by itself are closed again
                if _within(str(parent), folder) and str(parent) not in made:
                    command += ["--perms", "0755", "--dir", str(parent)]
                    made.add(str(parent))
            command += ["--ro-bind", source, source]
    return [*command, "--bind", str(work), str(work)]


@functools.cache
def course_packages() -> tuple[str, ...]:
    """course_lib where it is installed as a copy: it holds the answers, and is covered in the box."""
    folders = [Path(each) / "course_lib" for each in site.getsitepackages()]
    return tuple(str(each) for each in folders if each.is_dir())


# The folder of one box


@contextmanager
def work_folder(box: Box) -> Iterator[Path]:
    """in/ (what is asked), answer (the one file that comes back), kernel/ (sockets), filter; gone afterwards.

    The answer is a file that is mounted by itself: in the box it can be written, not replaced by a link or a pipe.
    """
    work = Path(tempfile.mkdtemp(prefix=f"{Path(PREFIX).name}{os.getpid()}-", dir=Path(PREFIX).parent))
    try:
        for name in ("in", "kernel"):
            (work / name).mkdir(mode=0o755)
        (work / "answer").touch(mode=0o600)
        program = seccomp_filter()
        try:
            if program:
                (work / "filter").write_bytes(program)
        except OSError as error:  # a disk that is full does not say where
            raise OSError(error.errno, error.strerror, str(work)) from error
        if box.sandbox.steps_down:
            for name in ("answer", "kernel"):
                os.chown(work / name, box.uid, box.uid)
            os.chown(work, 0, box.uid)  # nobody else on this machine may look inside
            work.chmod(0o710)
        yield work
    finally:
        remove(work)


def remove(work: Path) -> None:
    """However deep and however locked what lies there."""
    if subprocess.run(["rm", "-rf", "--", str(work)], stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(work)], stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", "--", str(work)], stderr=subprocess.DEVNULL)


def sweep() -> None:
    """Remove the folders of graders that are no more."""
    for work in Path(PREFIX).parent.glob(Path(PREFIX).name + "*"):
        pid = work.name.removeprefix(Path(PREFIX).name).split("-")[0]
        try:
            found = work.lstat()
        except FileNotFoundError:  # another grader sweeps too
            continue
        mine = found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode)
        if mine and pid.isdigit() and not psutil.pid_exists(int(pid)):
            remove(work)


def end(process: subprocess.Popen, seconds: float = 10) -> None:
    """End everything in the box and return when it is ended."""
    # not bwrap itself, but the first process inside: when that dies the kernel ends all others before bwrap returns
    if process.poll() is not None:
        return
    try:
        for child in psutil.Process(process.pid).children():
            child.kill()
    except psutil.Error:
        pass
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def processes(process: subprocess.Popen, kernel: int | None = None) -> list[psutil.Process]:
    """All of a box. `kernel`: one that was forked into it, which is no child of the box's own process."""
    found: list[psutil.Process] = []
    with suppress(psutil.Error):
        found += psutil.Process(process.pid).children(recursive=True)
    if kernel is not None:
        with suppress(psutil.Error):
            found += [psutil.Process(kernel), *psutil.Process(kernel).children(recursive=True)]
    return found


def resident(process: subprocess.Popen, most: int, kernel: int | None = None) -> int:
    """Bytes in memory of all processes of a box; pages that they share count once where the sum is above `most`."""
    children = processes(process, kernel)
    total = sum(_memory(child, exact=False) for child in children)
    # forks share nearly all they have: counting that exactly takes milliseconds each, so only where it matters
    return total if total <= most else sum(_memory(child, exact=True) for child in children)


def _memory(process: psutil.Process, exact: bool) -> int:
    try:
        return process.memory_full_info().pss if exact else process.memory_info().rss
    except psutil.AccessDenied:
        return _memory(process, exact=False) if exact else 0
    except psutil.Error:
        return 0


def opened(process: subprocess.Popen, kernel: int | None = None) -> list[int]:
    """Descriptors of the folders of a box that lie in memory: what its processes do later hides nothing from them."""
    if kernel is None:  # bwrap's own processes see the machine, the last of them is in the box
        (kernel,) = [each.pid for each in processes(process) if not each.children()]
    found: list[int] = []
    try:
        for name in (*IN_MEMORY, HOME):
            found.append(os.open(f"/proc/{kernel}/root{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except BaseException:
        close(found)
        raise
    return found


def close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def inodes(folders: Sequence[int]) -> int:
    """How many files and folders lie in what `opened` gave."""
    found = [os.fstatvfs(each) for each in folders]
    return sum(each.f_files - each.f_ffree for each in found)


def unlinked(process: subprocess.Popen, folder: Path, kernel: int | None = None) -> bool:
    """Does a process of a box hold a file of the disk of `folder` that has no name any more, so that nobody sees it?"""
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return False
    for child in processes(process, kernel):
        try:
            with os.scandir(f"/proc/{child.pid}/fd") as descriptors:
                if any(_nameless(each.path, device) for each in descriptors):
                    return True
            maps = Path(f"/proc/{child.pid}/maps").read_bytes().splitlines()
            if any(os.fsencode(folder) in line and line.endswith(b"(deleted)") for line in maps):
                return True
        except OSError:  # it has ended
            continue
    return False


def _nameless(descriptor: str, device: int) -> bool:
    try:
        found = os.stat(descriptor)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == device


# Which box this machine can hold

REMEDIES = {
    "userns": "user namespaces are forbidden here: load AppArmor's profile bwrap-userns-restrict (Ubuntu: "
    "/usr/share/apparmor/extra-profiles), run the grader as root, or in a virtual machine",
    "bwrap": "bubblewrap is not installed: apt install bubblewrap (0.8 or later)",
    "linux": "submissions run in a box only on Linux: use a Linux machine or a virtual one",
}


def find_sandbox() -> Sandbox:
    """The safest box of this machine, tried from the inside. NoSafeBox says what to do if there is none."""
    if sys.platform != "linux":
        raise NoSafeBox(REMEDIES["linux"])
    if missing := [name for name in ("bwrap", "setpriv", "prlimit", "choom") if not shutil.which(name)]:
        raise NoSafeBox(REMEDIES["bwrap"] if "bwrap" in missing else f"{missing[0]} of util-linux is not installed")
    why = []
    for sandbox in (ROOT, ROOT_ONLY) if os.geteuid() == 0 else (USER,):
        wrong = faults(sandbox)
        if not wrong:
            return sandbox
        why.append(f"{sandbox.name}: {wrong}")
    raise NoSafeBox(f"no safe box on this machine ({'; '.join(why)}). {REMEDIES['userns']}")


def faults(sandbox: Sandbox) -> str:
    """What is wrong with a sandbox on this machine, seen by a process inside; "" if it is as it should be."""
    box = Box(sandbox)
    look = "cat /proc/self/status; cat /proc/net/dev; id -u; ls -A / /tmp"
    with work_folder(box) as work:
        try:
            done = subprocess.run(
                argv(box, work, ["sh", "-c", look]),
                capture_output=True,
                text=True,
                timeout=30,
                stdin=subprocess.DEVNULL,
                env=outside(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]
    status = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    wanted = {"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1"}
    if seccomp_filter():
        wanted["Seccomp"] = "2"
    for name, value in wanted.items():
        if status.get(name, "").strip() != value:
            return f"{name} is {status.get(name, 'missing').strip()} in the box, not {value}"
    interfaces = [line for line in done.stdout.splitlines() if ":" in line and line.split(":")[0].strip() in _network()]
    if interfaces:
        return f"the network interface {interfaces[0].split(':')[0].strip()} is in the box"
    if sandbox.steps_down and "Uid:\t0" in done.stdout:
        return "its processes are root"
    return ""


def _network() -> set[str]:
    return {name for name in psutil.net_if_addrs() if name != "lo"}
