"""JupyterLab in headless Chromium: start a server, open a notebook, run it, ask its kernel.

with lab_server(folder) as lab, sync_playwright() as playwright:
    page = launch(playwright).new_page()
    seen = watch(page)
    open_notebook(page, lab, "lesson.ipynb")
    run_all(page)
    assert kernel_eval(page, "explorer.pinned") == 3
    assert not seen.errors and not seen.outside
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

# Without --disable-dev-shm-usage the browser dies in containers whose /dev/shm is small.
CHROMIUM = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb")
SETTINGS = {
    # Every cell in the page at once, so that what a test looks for is there without scrolling.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "kernelShutdown": True},
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


class Lab(NamedTuple):
    """A running JupyterLab."""

    url: str
    token: str
    settings: Path


class Seen(NamedTuple):
    """What went wrong in a page (errors) and what it asked for beyond this machine (outside)."""

    errors: list[str]
    outside: list[str]


def chromium_path() -> str | None:
    """Chromium or Chrome on this machine: the one that $COURSE_CHROMIUM names, else one that packages install."""
    if named := os.environ.get("COURSE_CHROMIUM"):
        return shutil.which(named)
    names = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def launch(playwright: Any) -> Any:
    return playwright.chromium.launch(executable_path=chromium_path(), headless=True, args=list(CHROMIUM))


def watch(page: Any) -> Seen:
    """Collect the page's errors and its requests to other machines from now on."""
    seen = Seen([], [])
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:")
    page.on("request", lambda request: None if request.url.startswith(local) else seen.outside.append(request.url))
    page.on("websocket", lambda socket: None if socket.url.startswith(local) else seen.outside.append(socket.url))
    return seen


@contextlib.contextmanager
def lab_server(root: Path, env: dict[str, str] | None = None, ready_within: float = 90) -> Iterator[Lab]:
    """JupyterLab on 127.0.0.1, serving `root`, with settings, kernels and workspaces of its own."""
    for attempts_left in (2, 1, 0):  # a port that was free may be taken before the server has it
        try:
            with _served(root, env or {}, ready_within) as lab:
                yield lab
            return
        except PortTaken:
            if not attempts_left:
                raise


class PortTaken(RuntimeError):
    """Somebody else listens on the port that was free a moment ago."""


@contextlib.contextmanager
def _served(root: Path, env: dict[str, str], ready_within: float) -> Iterator[Lab]:
    home = Path(tempfile.mkdtemp(prefix="course-lab-"))
    for plugin, settings in SETTINGS.items():
        file = home / "settings" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    port = _free_port()
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), home / "settings")
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
                *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
                *(f"--IdentityProvider.token={lab.token}", f"--ServerApp.root_dir={root}"),
                *("--ServerApp.terminals_enabled=False", "--LabApp.expose_app_in_browser=True"),
                "--ServerApp.kernel_websocket_connection_class=course_lib.lab.PromptConnection",
                *("--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
            ],
            env={**os.environ, **{name: str(home / folder) for name, folder in own.items()}, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_until_up(server, lab, home / "server.log", ready_within)
            yield lab
        finally:
            server.terminate()  # asked this way, the server shuts its kernels down before it goes
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen, lab: Lab, log: Path, seconds: float) -> None:
    last = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=5) as reply:
                reply.read()
            return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > last:
                said = log.read_text()
                taken = server.poll() is not None and "is already in use" in said
                raise (PortTaken if taken else RuntimeError)(f"JupyterLab did not come up:\n{said[-3000:]}") from error
        time.sleep(0.1)


@contextlib.contextmanager
def notebook(cells: Sequence[str], width: int, height: int, theme: str = "JupyterLab Light") -> Iterator[Any]:
    """A page with a notebook of these cells, which have run."""
    from playwright.sync_api import sync_playwright

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    written = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=kernel)
    with tempfile.TemporaryDirectory() as folder, lab_server(Path(folder)) as lab, sync_playwright() as playwright:
        nbformat.write(written, Path(folder) / "explorer.ipynb")
        set_theme(lab, theme)
        page = launch(playwright).new_page(viewport={"width": width, "height": height})
        open_notebook(page, lab, "explorer.ipynb")
        page.set_default_timeout(300_000)
        run_all(page)
        yield page


def set_theme(lab: Lab, name: str) -> None:
    """Choose the theme of pages opened from now on: "JupyterLab Light" or "JupyterLab Dark"."""
    file = lab.settings / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"theme": name}))


READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget, session = panel?.context?.sessionContext;
  return Boolean(panel?.context?.isReady && session?.isReady && session.session?.kernel?.status === "idle");
}"""


def open_notebook(page: Any, lab: Lab, path: str, timeout: float = 90_000) -> None:
    """Open the notebook at `path` (relative to the server's root) and wait for its kernel."""
    page.goto(f"{lab.url}/lab/tree/{path}?reset&token={lab.token}", timeout=timeout)
    page.wait_for_function("() => Boolean(window.jupyterapp)", timeout=timeout)
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-Cell", timeout=timeout)
    page.wait_for_function(READY, timeout=timeout)


# The command resolves when the last cell has ended; errors are read from the notebook, since in the page they look
# like any other text on stderr.
RUN_ALL = """async () => {
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model);
  return cells.filter(cell => cell.type === "code").flatMap(cell => cell.outputs.toJSON())
    .filter(output => output.output_type === "error").map(output => `${output.ename}: ${output.evalue}`);
}"""


def run_all(page: Any) -> None:
    """Run every cell and wait for the last. RuntimeError with what the cells raised."""
    errors = page.evaluate(RUN_ALL)
    if errors:
        raise RuntimeError(f"{len(errors)} cells failed: {'; '.join(errors)}")


SHUT_DOWN = "async () => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()"


def close_notebook(page: Any) -> None:
    """End the notebook's kernel, whose memory would else be held until the server ends, and close the page."""
    page.evaluate(SHUT_DOWN)
    page.close()


def running_kernels(lab: Lab) -> int:
    with urllib.request.urlopen(f"{lab.url}/api/kernels?token={lab.token}", timeout=30) as reply:
        return len(json.load(reply))


EVALUATE = """async expression => {
  const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
  const request = { code: "", silent: true, store_history: false, user_expressions: { value: expression } };
  return (await kernel.requestExecute(request).done).content.user_expressions.value;
}"""


def kernel_eval(page: Any, expression: str) -> Any:
    """The value of a Python expression in the notebook's kernel, by way of JSON. RuntimeError if it raises."""
    reply = page.evaluate(EVALUATE, f"__import__('json').dumps({expression})")
    if reply["status"] != "ok":
        raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    return json.loads(ast.literal_eval(reply["data"]["text/plain"]))
