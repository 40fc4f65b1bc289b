"""papermill's engine "box": papermill runs outside, the kernel inside the box, and they speak through unix sockets.

So times, limits and what counts as an end are decided by a process that never ran a student's code. A cell that raises
does not stop the notebook. Of what a kernel says only text is kept, and none once the grader has begun to ask.
"""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
import zmq
import zmq.asyncio
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets import Any as AnyTrait

from course_lib.grading import box as boxes
from course_lib.grading.box import MB, Box
from course_lib.grading.extract import harmless
from course_lib.grading.kernels import ANCHOR, check, wait_for_anchor, waiting_in

KEPT, KEPT_OF_CELL = 200_000, 20_000  # bytes of text a submission and a cell
POLL = 0.2  # seconds between two looks at memory
START = 60.0  # seconds a kernel may take to start
# what every question needs is loaded before a student's time begins, and a forgotten exit() will not end the kernel; it
# leaves no name behind
WARM_UP = (
    "__import__('torch'), __import__('safetensors.torch'), __import__('numpy'), "
    "setattr(get_ipython(), 'ask_exit', lambda: None)"
)


class Stopped(Exception):
    """The box is no more. `why` is one of `judge.STOPS`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class CellRun:
    """What one cell did; `error` is the class of what it raised, as the kernel tells it."""

    seconds: float
    text: str
    error: str = ""


@dataclass
class BoxRun:
    """What one box did. `stopped` is "" or why it ended early, in the cell `at`, or while asking if that is None."""

    cells: list[CellRun] = field(default_factory=list)
    stopped: str = ""
    at: int | None = None
    start_seconds: float = 0.0
    seconds: float = 0.0
    peak_mb: int = 0


Ask = Callable[[str, float], None]  # a cell's source, seconds: runs it in the kernel


class TolerantSession(Session):
    """Passes over a message that cannot be read: a process that a cell forked may send halves of some."""

    def deserialize(self, msg_list: Any, content: bool = True, copy: bool = True) -> Any:
        try:
            return super().deserialize(msg_list, content, copy)
        except Exception:
            return {
                "header": {}, "msg_id": "", "msg_type": "unreadable", "parent_header": {}, "metadata": {},
                "content": {}, "buffers": [],
            }  # fmt: skip


class BoxKernelManager(AsyncKernelManager):
    """Starts the kernel in a box. Without a sandbox (people one trusts) it starts in the work folder."""

    box = AnyTrait()
    work = AnyTrait()
    forked: int | None = None  # the kernel's pid, where the box's own process only waits
    folders: tuple[int, ...] = ()  # see `boxes.opened`

    def format_kernel_cmd(self, extra_arguments: Any = None) -> list[str]:
        assert self.kernel_spec is not None
        self.kernel_spec.interrupt_mode = "message"  # a signal would hit bwrap, not the kernel
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]
        if self.box.sandbox == boxes.NONE:
            return command
        if self.box.sandbox.steps_down:
            os.chown(self.connection_file, self.box.uid, self.box.uid)
        inside = ANCHOR if self.box.kernels else [os.path.abspath(sys.executable), *command[1:]]
        return boxes.argv(self.box, self.work, inside)

    def client(self, **kwargs: Any) -> Any:
        made = super().client(context=self.context, **kwargs)  # it would make a context of its own, without limits
        start_channels = functools.partial(made.start_channels, hb=False)  # the heartbeat's thread leaks
        vars(made)["start_channels"] = start_channels
        return made

    @property
    def process(self) -> subprocess.Popen | None:
        return getattr(self.provisioner, "process", None) if self.provisioner else None

    def kill(self) -> None:
        if self.process is not None and self.box.sandbox == boxes.NONE:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        elif self.process is not None:
            boxes.end(self.process)

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
        self.kill()
        await super().shutdown_kernel(now=True, restart=restart)


class BoxClient(PapermillNotebookClient):
    """Runs the cells, counts what they say, and then lets `ask` put questions."""

    run = AnyTrait()
    box = AnyTrait()
    work = AnyTrait()
    deadline = AnyTrait()
    ask = AnyTrait(allow_none=True)
    said = 0
    keeping = False

    def papermill_execute_cells(self) -> None:
        start = time.monotonic()
        with suppress(Stopped):
            self._ask(WARM_UP, START)
        self.run.start_seconds = round(self.run.start_seconds + time.monotonic() - start, 3)
        if self.run.stopped:
            self.run.stopped = "no start"
            return
        self._close_the_door()
        self.keeping = True
        for index, cell in enumerate(self.nb.cells):
            if cell.cell_type != "code":
                self.run.cells.append(CellRun(0.0, ""))
                continue
            self.texts: list[str] = []
            self.kept = 0
            start, error = time.monotonic(), ""
            self.nb_man.cell_start(cell, index)
            try:
                self._execute(cell, index, self.box.limits.cell_s)
            except CellExecutionError as raised:
                error = harmless(str(raised.ename)[:600])[:60]
                self.nb_man.cell_exception(cell, cell_index=index, exception=raised)
            except Stopped as stopped:
                self.run.stopped, self.run.at = stopped.why, index
                return
            finally:
                self.nb_man.cell_complete(cell, cell_index=index)
                seconds = time.monotonic() - start
                self.run.cells.append(CellRun(round(seconds, 3), "".join(self.texts)[:KEPT_OF_CELL], error))
        if self.ask is not None:
            self.keeping = False
            try:
                self.ask(self._ask)
            except Stopped as stopped:
                self.run.stopped = stopped.why

    def _ask(self, source: str, seconds: float) -> None:
        cell, first = nbformat.v4.new_code_cell(source), self.nb.cells[0]
        try:
            self._execute(cell, 0, seconds, store_history=False)
        except CellExecutionError:
            pass  # what came back says more
        finally:
            self.nb.cells[0] = first  # nbclient puts there what it ran

    def _execute(self, cell: Any, index: int, seconds: float, store_history: bool = True) -> None:
        """Stopped if the box ends in this cell."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise self._stop("submission time")
        self.timeout = max(1, math.ceil(min(seconds, left)))
        try:
            self.execute_cell(cell, index, store_history=store_history)
        except CellExecutionError:
            if self.run.stopped:
                raise self._stop(self.run.stopped) from None
            raise
        except CellTimeoutError:
            raise self._stop("submission time" if left < seconds else "time") from None
        except DeadKernelError:
            raise self._stop("died") from None
        except Exception:  # what no kernel sends: only one that was changed
            raise self._stop("nonsense") from None

    def _stop(self, why: str) -> Stopped:
        self.run.stopped = self.run.stopped or why
        self.km.kill()
        return Stopped(self.run.stopped)

    def _close_the_door(self) -> None:
        """The sockets are there and connected: from now on nothing can be made beside them, or put in their place."""
        folder = self.work / "kernel"
        if self.box.sandbox.steps_down:
            os.chown(folder, 0, 0)
            folder.chmod(0o755)

    # What the kernel says

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> None:
        content, kind = msg["content"], msg["msg_type"]
        self.said += 200 + len(json.dumps(content)) + sum(map(len, msg.get("buffers", ())))
        if self.said > self.box.limits.output_mb * MB:
            # an exception here would be lost in a background task
            self._stop("output")
            return
        if kind == "status" and content.get("execution_state") == "idle":
            self._done()
        elif self.keeping and kind in ("stream", "execute_result", "display_data", "error"):
            self._keep(kind, content)

    def _done(self) -> None:
        from nbclient.client import CellExecutionComplete

        raise CellExecutionComplete()

    def _keep(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "stream":
            text = content.get("text", "")
        elif kind == "error":
            text = "\n".join(map(str, content.get("traceback", ())))
        else:
            data = content.get("data")
            text = data.get("text/plain", "") if isinstance(data, dict) else ""
        kept = min(KEPT_OF_CELL - self.kept, KEPT - self.said_of_all)
        if isinstance(text, str) and kept > 0:
            text = harmless(text[: 4 * kept])[:kept]  # of megabytes only what may be kept is looked at
            self.kept += len(text)
            self.said_of_all += len(text)
            self.texts.append(text if kind == "stream" else text + "\n")

    said_of_all = 0


class BoxEngine(NBClientEngine):
    """papermill's name for it: `papermill.execute_notebook(..., engine_name="box")`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
        box, work, run = kwargs["box"], kwargs["work"], kwargs["run"]
        context = zmq.asyncio.Context()
        context.MAXMSGSIZE = int(box.limits.message_mb * MB)  # a larger message cuts the connection
        context.RCVHWM = 16
        context.LINGER = 0
        # A socket that was put in place of the first one is not spoken to. Eleven days and not -1 (never): with that, a
        # kernel that ends in the midst of a message takes the whole grader with it (libzmq, "!_more", src/fq.cpp).
        context.RECONNECT_IVL = 10**9
        manager = BoxKernelManager(
            kernel_name="python3", transport="ipc", ip=str(work / "kernel" / "k"), box=box, work=work,
            connection_file=str(work / "kernel" / "k.json"), context=context, session=TolerantSession(),
        )  # fmt: skip
        client = BoxClient(
            nb_man, km=manager, kernel_name=kernel_name, interrupt_on_timeout=False, shutdown_kernel="immediate",
            iopub_timeout=5, store_widget_state=False, startup_timeout=int(START), box=box, work=work, run=run,
            deadline=kwargs["deadline"], ask=kwargs["ask"],
        )  # fmt: skip
        start = time.monotonic()
        try:
            with _watched(manager, box, run, kwargs["deadline"]):
                _boot(client, manager, start)
                client.papermill_execute_cells()
        finally:
            manager.kill()
            if client.km is not None:
                run_sync(client._async_cleanup_kernel)()
            context.destroy(linger=0)
        return nb_man.nb


def _boot(client: BoxClient, manager: BoxKernelManager, start: float) -> None:
    options: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    options["env"] = boxes.outside()
    if manager.box.sandbox == boxes.NONE:
        home = manager.work / "home"
        for inside, source in manager.box.mounts.items():
            if inside.startswith(boxes.HOME):
                place = home / Path(inside).relative_to(boxes.HOME)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(source.resolve())
        home.mkdir(exist_ok=True)
        options |= {"cwd": str(home), "env": os.environ | {"OMP_NUM_THREADS": str(manager.box.threads)}}
    client.reset_execution_trackers()
    if manager.box.kernels and manager.box.sandbox != boxes.NONE:
        _fork(client, manager, options, start)
    else:
        client.start_new_kernel(**options)
        _wait_for_sockets(manager, start + START)
    if manager.box.sandbox != boxes.NONE and manager.process is not None:
        try:
            manager.folders = tuple(boxes.opened(manager.process, manager.forked))
        except (OSError, ValueError, psutil.Error):
            raise DeadKernelError("the kernel is gone") from None
    client.start_new_kernel_client()
    client.run.start_seconds = round(time.monotonic() - start, 3)


def _fork(client: BoxClient, manager: BoxKernelManager, options: dict[str, Any], start: float) -> None:
    """Open a box in which a process waits, fork the kernel into it, and look whether it is in before anything runs."""
    waits, hold = os.pipe()
    hears, says = os.pipe()
    ours = {waits, hold, hears, says}
    box, connection = manager.box, manager.connection_file
    try:
        client.start_new_kernel(**options | {"stdin": waits, "stdout": says})
        for end in (waits, says):
            os.close(end)
            ours.discard(end)
        wait_for_anchor(hears)
        assert manager.process is not None
        anchor = waiting_in(manager.process)
        program = manager.work / "filter"
        told = {
            "connection_file": connection, "uid": box.uid, "root": box.sandbox.steps_down,
            "user_namespace": box.sandbox.user_namespace, "home": boxes.HOME,
            "limits": {f"RLIMIT_{name.upper()}": both for name, both in boxes.resource_limits(box.limits).items()},
            "filter": program.read_bytes().hex() if program.exists() else "",
        }  # fmt: skip
        manager.forked = box.kernels.fork(anchor, told, hold)
    finally:
        for end in ours:
            os.close(end)
    _wait_for_sockets(manager, start + START)
    check(manager.forked, anchor, box.uid, program.exists())


def _wait_for_sockets(manager: BoxKernelManager, until: float) -> None:
    """Until every socket of the kernel listens: a connection is made once and never again (see `RECONNECT_IVL`)."""
    ports = [getattr(manager, f"{name}_port") for name in ("shell", "iopub", "stdin", "control")]
    for port in ports:
        path = f"{manager.ip}-{port}"
        while True:
            with socket.socket(socket.AF_UNIX) as one:
                try:
                    one.connect(path)
                    break
                except OSError:
                    pass
            if manager.process is None or manager.process.poll() is not None or time.monotonic() > until:
                raise DeadKernelError("the kernel did not start")
            time.sleep(0.02)


@contextmanager
def _watched(manager: BoxKernelManager, box: Box, run: BoxRun, deadline: float) -> Iterator[None]:
    """Ends the box that takes more memory or time than it may, or makes too many files, or some beside its sockets."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            process = manager.process
            if process is None or process.poll() is not None:
                continue
            memory = boxes.resident(process, box.limits.memory_mb * MB, manager.forked) // MB
            run.peak_mb = max(run.peak_mb, memory)
            why = ""
            if memory > box.limits.memory_mb:
                why = "memory"
            elif time.monotonic() > deadline + 2:
                why = "submission time"
            elif boxes.inodes(manager.folders) > boxes.INODES or _stuffed(manager, process):
                why = "disk"
            if why:
                run.stopped = run.stopped or why
                manager.kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        boxes.close(manager.folders)


def _stuffed(manager: BoxKernelManager, process: subprocess.Popen) -> bool:
    """Is there more in the folder of the sockets than sockets?"""
    folder = Path(manager.ip).parent
    return _crowded(folder) or (not manager.box.sandbox.steps_down and boxes.unlinked(process, folder, manager.forked))


def _crowded(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(number > 8 or entry.is_dir(follow_symlinks=False) for number, entry in enumerate(entries))


papermill_engines.register("box", BoxEngine)


def run_box(
    box: Box,
    sources: Sequence[str],
    seconds: float,
    ask: Callable[[Ask, Path], None] | None = None,
    parameters: Mapping[str, Any] | None = None,
    parameter_cell: int | None = None,
) -> BoxRun:
    """Run `sources` as the cells of a notebook in a fresh box, then let `ask` put its questions to the same kernel.

    `ask` gets a function that runs a cell, and the folder whose in/ it may fill and whose file `answer` it may read.
    `parameter_cell`: the number of the cell that papermill's `parameters` follow; they add a cell.
    """
    run, start = BoxRun(), time.monotonic()
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources or [""]],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    if parameter_cell is not None:
        notebook.cells[parameter_cell].metadata["tags"] = ["parameters"]
    with boxes.work_folder(box) as work:
        try:
            papermill.execute_notebook(
                notebook, None, parameters=dict(parameters or {}) if parameter_cell is not None else None,
                engine_name="box", kernel_name="python3", progress_bar=False, box=box, work=work, run=run,
                deadline=start + seconds, ask=ask and functools.partial(_with_folder, ask, work),
            )  # fmt: skip
        except PapermillExecutionError:
            pass  # a cell raised, which is known
        except DeadKernelError:
            run.stopped = run.stopped or "no start"
        except RuntimeError as error:
            if "Kernel" not in str(error):
                raise
            run.stopped = run.stopped or "no start"
    run.seconds = round(time.monotonic() - start, 3)
    if parameter_cell is not None and len(run.cells) > parameter_cell + 1:
        del run.cells[parameter_cell + 1]  # papermill's own
        if run.at is not None and run.at > parameter_cell:
            run.at -= 1
    return run


def _with_folder(ask: Callable[[Ask, Path], None], work: Path, run_cell: Ask) -> None:
    ask(run_cell, work)


atexit.register(boxes.sweep)
