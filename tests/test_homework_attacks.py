"""None of the hostile gains a mark, changes another's, learns what is hidden or outlives its limit; none of the unlucky
loses one. Many of them are tried in one box, each in a question of its own where it cannot spoil the others."""

from __future__ import annotations

import csv
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tiny_homework as tiny

from course_lib.grading import results, run
from course_lib.grading.extract import harmless, shown
from course_lib.grading.feedback import write_feedback

COUNT = 24
NAMES = tiny.wide(COUNT)
RIGHT = "def f(x):\n    return 2 * x"
SLEEP = f"7773{os.getpid():010}"  # seconds, by which a process is found
TOKEN = "token-of-the-grader-9d2e"
WIDE_LIMITS = replace(tiny.LIMITS, cell_s=30, question_s=30, submission_s=400)


def answer(name: str, source: str) -> dict:
    """A cell that answers question `name` by what `source` calls f."""
    return tiny.cell(f"{source}\n{name} = f", name, solution=True)


def notebook(answers: dict[str, str], *before: dict, after: tuple[dict, ...] = ()) -> bytes:
    """Its questions are answered by `answers` in their order, those left over rightly."""
    sources = [*answers.values(), *[RIGHT] * (COUNT - len(answers))]
    cells = [answer(name, source) for name, source in zip(NAMES, sources, strict=True)]
    return tiny.notebook(tiny.cell(tiny.SETUP, "setup"), *before, *cells, *after)


# Hostile answers: each is wrong, and hopes that it is not seen --------------------------------------------------------

OBJECTS = {
    "equals everything": """
class Same:
    def __eq__(self, other): return True
    def __array__(self, *a, **k): return __import__("numpy").ones((2, 3))
    def __float__(self): return 1.0
def f(x): return Same()""",
    "a subclass that answers for torch": """
class Sly(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True if "eq" in func.__name__ else super().__torch_function__(func, types, args, kwargs or {})
def f(x): return (3 * x).as_subclass(Sly)""",
    "a subclass whose methods lie": """
class Liar(torch.Tensor):
    def detach(self): return self
    def cpu(self): return self
    def __reduce_ex__(self, how): return (print, ("run",))
    dtype, layout, shape = torch.float32, torch.strided, (2, 3)
def f(x): return (3 * x).as_subclass(Liar)""",
    "a list that is a subclass": "class L(list):\n    def __eq__(self, other): return True\ndef f(x): return L([1, 2])",
    "a number that turns into another":
        "class N(float):\n    def __float__(self): return 2.0\n    __eq__ = lambda a, b: True\ndef f(x): return N(3)",
    "nan": "def f(x): return x * float('nan')",
    "infinity": "def f(x): return x + float('inf')",
    "an answer of one element": "def f(x): return 2 * x.mean().reshape(1)",
    "an empty answer": "def f(x): return x[:0]",
    "a tensor of terabytes": "def f(x): return torch.zeros(1).expand(10**6, 10**6)",
    "a sparse tensor of terabytes": "def f(x): return torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6))",
    "a quantised tensor": "def f(x): return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)",
    "a complex tensor": "def f(x): return (2 * x).to(torch.complex64)",
    "a tensor without memory": "def f(x): return torch.empty(2, 3, device='meta')",
    "an array of objects": "def f(x): return __import__('numpy').array([f] * 6, dtype=object)",
    "a deep list": "def f(x):\n    a = []\n    for _ in range(100_000): a = [a]\n    return a",
    "a list in itself": "def f(x):\n    a = [1]\n    a.append(a)\n    return a",
    "a dictionary with odd keys": "def f(x): return {f: 1, (1, 2): 2, None: 3}",
    "a number of ten thousand digits": "def f(x): return 10 ** 10_000",
    "a module, a type and a coroutine": "async def g(): pass\ndef f(x): return [torch, int, g()]",
    "words for a mark": "def f(x): return {'outcome': 'right', 'points': 1, 'passed': True}",
}  # fmt: skip
CONDUCT = {
    "right once, wrong later": "N = [0]\ndef f(x):\n    N[0] += 1\n    return 2 * x if N[0] == 1 else 3 * x",
    "the answer to the case before": "LAST = []\ndef f(x):\n    LAST.append(2 * x)\n    return LAST[0]",
    "sets what is asked to zero": """
import gc
def f(x):
    for each in gc.get_objects():
        if type(each) is dict and set(each) == {"x"} and isinstance(each["x"], torch.Tensor):
            each["x"].zero_()
    return torch.zeros(2, 3)""",
    "writes into the frames above": """
import sys, ctypes
def f(x):
    frame = sys._getframe()
    while frame := frame.f_back:
        for name in list(frame.f_locals):
            if name in ("found", "cases", "answer", "expected", "verdicts"):
                frame.f_locals[name] = {"passed": True}
                ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
    return 3 * x""",
    "gives itself another name":
        "def f(x): return 3 * x\nf.__name__ = f.__qualname__ = 'reference'\nf.__eq__ = lambda o: True",
    "raises what stops a kernel": "def f(x): raise SystemExit(0)",
    "raises an interrupt": "def f(x): raise KeyboardInterrupt",
    "raises an error that will not be named": """
class Meta(type):
    __mro__ = property(lambda cls: 1 / 0)
class Odd(BaseException, metaclass=Meta):
    __traceback__ = property(lambda self: 1 / 0)
    def __str__(self): raise SystemExit
def f(x): raise Odd""",
    "says it was not attempted, with what was asked": "def f(x): raise NotImplementedError(f'SEEN {x.tolist()}')",
    "equality is patched": "def f(x):\n    torch.equal = torch.allclose = lambda *a, **k: True\n    return 3 * x",
    "operators of tensors are patched": """
def f(x):
    y = 3 * x
    torch.Tensor.__eq__ = lambda a, b: torch.ones(a.shape, dtype=torch.bool)
    torch.Tensor.isfinite = lambda a: torch.ones(a.shape, dtype=torch.bool)
    return y""",
    "NumPy is patched": """
import numpy
def f(x):
    numpy.allclose = numpy.array_equal = lambda *a, **k: True
    numpy.testing.assert_allclose = lambda *a, **k: None
    return 3 * x""",
    "the checks are put in place": """
import sys
def f(x):
    class Fake:
        __path__ = []
        def __getattr__(self, name): return lambda *a, **k: True
    for name in ("course_lib", "course_lib.grading", "course_lib.grading.checks", "papermill", "nbclient"):
        sys.modules[name] = Fake()
    return 3 * x""",
    "files of results are written": """
import os
def f(x):
    for name in ("out", "results", "/tmp/out", "/answer.json", "/results", "gradebook.csv"):
        try:
            os.makedirs(name, exist_ok=True)
            open(f"{name}/tiny.json", "w").write('{"outcome": "right", "points": 1}')
            open("gradebook.csv", "w").write("tiny,right,1")
        except OSError: pass
    return 3 * x""",
}  # fmt: skip
# What a cell looks for and tries --------------------------------------------------------------------------------------

LOOK = """
import builtins, ctypes, gc, json, os, signal, socket, sys, threading
said = {}
def tried(name, do):
    try:
        said[name] = repr(do())
    except BaseException as error:
        said[name] = f"{type(error).__name__} {getattr(error, 'errno', '')}"
def every(*parts):
    found = []
    for pid in [each for each in os.listdir("/proc") if each.isdigit()]:
        for part in parts:
            try: found.append(open(f"/proc/{pid}/{part}", errors="replace").read())
            except OSError: pass
    return found
def files():
    away, found = ("/proc", "/sys", "/usr", "/dev", sys.prefix, sys.base_prefix), []
    for folder, below, names in os.walk("/"):
        below[:] = [one for one in below if not os.path.join(folder, one).startswith(away)]
        found += [os.path.join(folder, name) for name in names
                  if name.endswith((".safetensors", ".ipynb", ".csv", "key"))
                  or any(part in name for part in ("manifest", "reference", "hidden", "checks", "w0.py"))]
    return found
def frames():
    seen = []
    for frame in sys._current_frames().values():
        while frame:
            seen += [name for name in frame.f_locals if name in ("expected", "asked", "hidden", "reference")]
            frame = frame.f_back
    return seen
tried("disk", files)
tried("environment", lambda: [each for each in every("environ") if TOKEN in each])
tried("command lines", lambda: [word for each in every("cmdline") for word in each.split(chr(0)) if RELEASE in word])
def descriptors():
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(path) for path in paths if os.path.lexists(path) and RELEASE in os.readlink(path)]
tried("descriptors", descriptors)
tried("mounts", lambda: [line for each in every("mountinfo") for line in each.splitlines() if RELEASE in line])
tried("frames", frames)
tried("objects", lambda: [name for each in gc.get_objects() if type(each) is dict for name in each
                          if name in ("asked", "inputs_sha256", "call_source")])
tried("memory of another", lambda: open("/proc/1/mem", "rb").read(1))
tried("disk outside", lambda: os.listdir("/proc/1/root/etc"))
tried("limits of the first process", lambda: [line for line in open("/proc/1/limits")
                                              if line.split("  ")[0] in ("Max file size", "Max address space")])
tried("kernel memory", lambda: open("/proc/kcore", "rb").read(1))
tried("memory of the machine", lambda: open("/dev/mem", "rb").read(1))
tried("network", lambda: socket.create_connection(("127.0.0.1", PORT), timeout=1))
tried("names", lambda: socket.getaddrinfo("example.org", 80))
def abstract():
    with socket.socket(socket.AF_UNIX) as one: one.connect("\\0" + ABSTRACT)
tried("abstract sockets", abstract)
tried("clock", lambda: __import__("time").clock_settime(0, 0))
tried("name of the machine", lambda: socket.sethostname("x"))
tried("priority", lambda: os.nice(-5))
tried("mercy of the memory killer", lambda: os.write(os.open("/proc/self/oom_score_adj", 1), b"-1000"))
tried("signal to the first", lambda: os.kill(1, 9))
tried("signal to the graders", lambda: os.kill(GRADER, 0))
tried("root", lambda: os.setresuid(0, 0, 0))
tried("device", lambda: os.mknod("/tmp/sda", 0o060666, os.makedev(8, 0)))
tried("keyrings", lambda: ctypes.CDLL(None).syscall(250, 0, -3, 1))
tried("tracing", lambda: ctypes.CDLL(None).ptrace(16, 1, 0, 0))
for place in (sys.prefix + "/lib/python3.11/site-packages/x.pth", sys.prefix + "/lib/python3.11/sitecustomize.py",
              sys.prefix + "/etc/ipython/x.py", "/usr/lib/python3/x.py", "/course/torch.py", "/etc/passwd",
              sys.prefix + "/share/jupyter/kernels/python3/kernel.json"):
    tried("write " + place.split("/")[-1], lambda: open(place, "w").write("raise SystemExit"))
for place in ("/tmp/ipython/profile_default/startup/x.py", "/home/student/usercustomize.py", "/dev/shm/torch.py",
              "/home/student/torch.py", "/tmp/left", "/home/student/.config/matplotlib/matplotlibrc"):
    os.makedirs(os.path.dirname(place), exist_ok=True)
    tried("leave " + place, lambda: open(place, "w").write("print('LEFT'); raise SystemExit"))
tried("hard link", lambda: os.link("/usr/bin/env", "/home/student/env"))
def fill(place):
    with open(place, "wb") as file:
        for _ in range(100): file.write(bytes(4 << 20)); file.flush()
for place in ("/answer", "/dev/shm/x", "/home/student/x"):
    tried("fill " + place, lambda: fill(place))
    os.truncate(place, 0)
def daemon():
    if not os.fork():
        os.setsid()
        if not os.fork():
            for each in range(1, 32):
                try: signal.signal(each, signal.SIG_IGN)
                except OSError: pass
            os.execvp("sleep", ["sleep", SLEEP])
        os._exit(0)
tried("daemon", daemon)
print(json.dumps(said))
"""
NOTHING = ("disk", "environment", "command lines", "descriptors", "mounts", "frames", "objects")
REFUSED = (
    "memory of another", "disk outside", "kernel memory", "memory of the machine", "network", "names",
    "abstract sockets", "clock", "name of the machine", "priority", "mercy of the memory killer",
    "signal to the graders", "root", "device", "write x.pth", "write sitecustomize.py", "write x.py",
    "write torch.py", "write passwd", "write kernel.json", "hard link", "fill /answer", "fill /dev/shm/x",
    "fill /home/student/x",
)  # fmt: skip
FOUND_LEFT = """
import glob, os
print([each for each in ("/tmp/ipython/profile_default/startup/x.py", "/home/student/usercustomize.py",
       "/dev/shm/torch.py", "/home/student/torch.py", "/tmp/left") if os.path.exists(each)],
      os.listdir("/home/student"))
"""

# What waits for hidden inputs and says them where it hopes to be quoted
LISTENERS = """
import atexit, asyncio, builtins, gc, glob, logging, signal, sys, threading, time, warnings
shell = get_ipython()
KEPT = []
def look(*a, **k):
    for name in glob.glob("/in/*"):
        try: KEPT.append(open(name, "rb").read())
        except OSError: pass
    if KEPT: print("SEEN", KEPT[-1][:200], flush=True)
    return a[0] if a else None
for event in ("pre_run_cell", "post_run_cell", "pre_execute", "post_execute"):
    shell.events.register(event, lambda *a: look())
shell.input_transformers_post.append(lambda lines: (look(), lines)[1])
shell.input_transformers_cleanup.append(lambda lines: (look(), lines)[1])
shell.ast_transformers.append(type("T", (), {"visit": lambda self, node: (look(), node)[1]})())
shell.set_custom_exc((Exception,), lambda *a, **k: look())
sys.addaudithook(lambda event, args: look() if event == "open" and str(args[0]).startswith("/in/x") else None)
sys.excepthook = lambda *a: look()
sys.displayhook = lambda value: look()
atexit.register(look)
gc.callbacks.append(lambda phase, info: look() if len(KEPT) < 3 else None)
signal.signal(signal.SIGALRM, lambda *a: look())
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.2)
logging.getLogger().addHandler(type("H", (logging.Handler,), {"emit": lambda self, record: look()})())
warnings.showwarning = look
def trace(frame, event, arg):
    for name in ("cases", "given", "asked"):
        if name in frame.f_locals and event == "return" and len(KEPT) < 3:
            print("SEEN", frame.f_locals[name], file=sys.__stderr__)
    return trace
sys.settrace(trace)
threading.settrace(trace)
def late():
    until = time.time() + 20
    while time.time() < until:
        look()
        time.sleep(0.02)
threading.Thread(target=late).start()
async def later():
    while True:
        look()
        await asyncio.sleep(0.1)
asyncio.get_event_loop().create_task(later())
real_print = builtins.print
"""
TELLING = """
from IPython.display import HTML, display
def f(x):
    print("SEEN", x)
    display(HTML(f"<b>SEEN {x}</b>"), {"text/plain": f"SEEN {x}"}, raw=True)
    get_ipython().set_next_input(f"SEEN {x}")
    open("SEEN", "w").write(str(x))
    raise type(f"SEEN{float(x[0, 0]):.6f}", (ValueError,), {})(f"SEEN {x}")
"""

# Unlucky answers: each is right ---------------------------------------------------------------------------------------

KINDLY = {
    "float64": "def f(x): return 2 * x.double()",
    "float16 where the tolerance allows it": "def f(x): return (2 * x).half()",
    "a NumPy array": "def f(x): return 2 * x.numpy()",
    "a NumPy array of float64, backwards in memory":
        "import numpy as np\ndef f(x): return np.asfortranarray(np.asarray(x, dtype='float64') * 2)[::-1][::-1]",
    "with a gradient": "def f(x): return 2 * x.requires_grad_()",
    "not contiguous": "def f(x): return torch.stack([2 * x, x], -1)[..., 0]",
    "transposed twice": "def f(x): return (2 * x).T.contiguous().T",
    "a lambda": "f = lambda x: x + x",
    "an object that is called": "class Twice:\n    def __call__(self, x): return x * 2\nf = Twice()",
    "a method": "class Twice:\n    def two(self, x): return x * 2\nf = Twice().two",
    "a partial": "import functools, operator\nf = functools.partial(operator.mul, 2)",
    "a module": "class M(torch.nn.Module):\n    def forward(self, x): return 2 * x\nf = M()",
    "a parameter": "def f(x): return torch.nn.Parameter(2 * x)",
    "a cached function": "import functools\n@functools.cache\ndef f(x): return 2 * x",
    "in place": "def f(x): return x.mul_(2)",
    "in inference mode": "@torch.inference_mode()\ndef f(x): return 2 * x",
    "gradients switched off for ever": "torch.set_grad_enabled(False)\ndef f(x): return 2 * x",
    "another default kind of numbers": "torch.set_default_dtype(torch.float64)\ndef f(x): return torch.tensor(2.0) * x",
    "seeds and threads": """
import random, numpy
def f(x):
    torch.manual_seed(0); random.seed(0); numpy.random.seed(0); torch.set_num_threads(2)
    return 2 * x""",
    "prints, warnings and a log": """
import logging, sys, warnings
def f(x):
    print("step", x); warnings.warn("beware"); logging.error("what"); print("more", file=sys.stderr)
    return 2 * x""",
    "threads and a process": """
import concurrent.futures, subprocess
def f(x):
    subprocess.run(["echo", "hello"], check=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return torch.stack(list(pool.map(lambda row: 2 * row, x)))""",
    "a large file and a figure": """
def f(x):
    import matplotlib.pyplot as plt
    plt.plot([1, 2]); plt.savefig("figure.png"); plt.show()
    torch.save(torch.zeros(1 << 20), "large.pt")
    return 2 * torch.load("large.pt").sum() + 2 * x""",
    "sparse": "def f(x): return (2 * x).to_sparse()",
    "vmap": "f = torch.vmap(lambda row: 2 * row)",
}  # fmt: skip
assert len(OBJECTS) < COUNT and len(CONDUCT) < COUNT and len(KINDLY) == COUNT

NOISE = [
    "import sys, warnings, logging\nwarnings.simplefilter('error')\nprint('x' * 200, file=sys.stderr)",
    "1 / 0", "undefined", "import sys; sys.exit(3)", "exit()", "quit()", "raise KeyboardInterrupt",
    "name = input('your name? ')", "import getpass; getpass.getpass()",
    "import asyncio\nawait asyncio.sleep(0.01)\nprint('slept')",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
    "!pip list --version\n!echo hello", "%%bash\necho from bash\nexit 3", "%time sum(range(10))",
    "%load_ext autoreload",
    "%%writefile notes.txt\nmine", "%pip install nothing-at-all", "%cd /tmp\n%env MINE=1",
    "for i in range(2000): print(i, 'a flood of lines')", "from tqdm.auto import tqdm\nfor _ in tqdm(range(50)): pass",
    "from IPython.display import HTML, SVG, Markdown, display\ndisplay(HTML('<b onclick=x>'), Markdown('# a'))",
    "torch.set_default_dtype(torch.float64); torch.set_num_threads(2); torch.manual_seed(1)",
    "torch.use_deterministic_algorithms(True)", "json = exec = open = compile = print = list = dict = torch.tensor",
    "from math import *", "%reset_selective -f nothing", "def f(:", "    indented = 1", "'unfinished", "%nosuchmagic",
]  # fmt: skip


def noisy() -> bytes:
    cells = [tiny.cell(f"def {name}(x):\n    return 2 * x", name) for name in NAMES]
    return tiny.notebook(tiny.cell(tiny.SETUP, "setup"), *map(tiny.cell, NOISE), *cells, tiny.cell("1 / 0"))


def by_colab() -> bytes:
    """As Colab saves it: ids in the metadata, outputs with a great deal in them, magics about an answer."""
    cells = [answer(name, RIGHT) for name in NAMES]
    for number, cell in enumerate(cells):
        cell["metadata"] |= {"id": f"x{number}", "colab": {"base_uri": "https://localhost:8080/"}, "outputId": "y"}
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["z" * 10_000]}]
        cell["execution_count"] = None if number % 2 else 10**9
    cells[0]["source"] = ['#@title Answer { display-mode: "form" }\n', *cells[0]["source"]]
    cells[1]["source"] = ["%%time\n", *cells[1]["source"]]
    content = {
        "nbformat": 4, "nbformat_minor": 0, "cells": [tiny.cell(tiny.SETUP, "setup"), *cells],
        "metadata": {"colab": {"provenance": [], "gpuType": "T4"}, "accelerator": "GPU", "widgets": {"w": {"state": 1}},
                     "kernelspec": {"name": "python3", "display_name": "Python 3"}},
    }  # fmt: skip
    return json.dumps(content).encode()


def by_windows() -> bytes:
    """As VS Code saves it on Windows: a byte order mark, \\r\\n in the file and in the cells, metadata of its own."""
    cells = [answer(name, RIGHT) for name in NAMES]
    for cell in cells:
        cell["source"] = [line.replace("\n", "\r\n") for line in cell["source"]]
        cell["metadata"] |= {"vscode": {"languageId": "python"}, "slideshow": 3, "tags": "none"}
    content = {"cells": cells, "nbformat": 4, "nbformat_minor": 2, "metadata": {"language_info": {"name": "python"}}}
    return b"\xef\xbb\xbf" + json.dumps(content, indent=1).replace("\n", "\r\n").encode()


def odd_order() -> bytes:
    """Out of order, but working; no ids; another kernel's name; one answer as text, one twice, one in a cell of two."""
    cells = [tiny.cell(f"def {name}(x):\n    return helper(x)") for name in NAMES[3:]]
    cells[0]["source"] = "".join(cells[0]["source"])  # a text in place of a list of lines
    head = [tiny.cell("def w0(x):\n    return helper(x)\ndef w1(x):\n    return w0(x)", "w0", kind="markdown")]
    twice = [tiny.cell("def w2(x):\n    return 3 * x", "w2"), tiny.cell("def w2(x):\n    return helper(x)", "w2")]
    last = [tiny.cell("two = 2"), tiny.cell("def helper(x):\n    return two * x"), tiny.cell("# a thought", kind="raw")]
    content = json.loads(tiny.notebook(*head, *cells, *twice, *last))
    content |= {"nbformat_minor": 0, "metadata": {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}}
    return json.dumps(content).encode()


UNLUCKY = {"noisy": noisy, "by Colab": by_colab, "by VS Code on Windows": by_windows, "out of order": odd_order}

# Files and folders ----------------------------------------------------------------------------------------------------

DEEP = b'{"cells": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
FILES = {  # {name of the folder: content of tiny.ipynb, or what makes it}
    "broken": b'{"cells": [', "deep": DEEP, "no notebook": b"[1, 2]", "no cells": b'{"cells": "none"}',
    "digits": b'{"cells": [], "n": ' + b"9" * 100_000 + b"}", "old": b'{"worksheets": [], "nbformat": 3}',
    "a pickle": b"\x80\x04\x95", "=HYPERLINK(\"x\")": b"{", "+1\ttab": b"{", "-new\nline,\"": b"{",
    "bidi\u202egnp.exe": b"{", os.fsdecode(b"J\xf6rg"): b"{", "J\\xf6rg": b"{", "x" * 255: b"{",
    "a..\\..\\up": b"{", "<img src=x onerror=1>": b"{", "\u200b": b"{", "con": b"{",
    "link": lambda place: place.symlink_to("/etc/passwd"),
    "link to another": lambda place: place.symlink_to("../victim/tiny.ipynb"),
    "hard link": lambda place: os.link(place.parent.parent.parent / "another.ipynb", place),
    "pipe": lambda place: os.mkfifo(place), "folder": lambda place: place.mkdir(),
    "socket": lambda place: bind(place),
    "huge": lambda place: (place.touch(), os.truncate(place, 200 << 20)),
}  # fmt: skip


def bind(place: Path) -> None:
    there = os.getcwd()
    os.chdir(place.parent)  # the path of a socket may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(place.name)
    finally:
        os.chdir(there)


# Grading them ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def before() -> set[Path]:
    return tiny.work_folders()


@pytest.fixture(scope="module")
def graded(sandbox, tmp_path_factory, before):
    """One run over all of them: {student: result}."""
    folder = tmp_path_factory.mktemp("hostile")
    tiny.wide_release(folder / "tiny", COUNT, WIDE_LIMITS, tolerance=2e-3)
    students = {
        "objects": notebook(OBJECTS), "conduct": notebook(CONDUCT), "kind": notebook(KINDLY),
        "listening": notebook({"tells": TELLING}, tiny.cell(LISTENERS), after=(tiny.cell("print('end')"),)),
        "victim": notebook({}, tiny.cell(FOUND_LEFT)),
        **{f"unlucky {name}": make() for name, make in UNLUCKY.items()},
    }  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind(f"\0homework-{os.getpid()}")
        hidden.listen()
        names = {"TOKEN": TOKEN, "RELEASE": str(folder), "PORT": server.getsockname()[1], "GRADER": os.getpid(),
                 "ABSTRACT": f"homework-{os.getpid()}", "SLEEP": SLEEP}  # fmt: skip
        head = "\n".join(f"{name} = {value!r}" for name, value in names.items())
        students["looking"] = notebook({}, tiny.cell(head + LOOK))
        for name, content in {**students, **FILES}.items():
            (folder / "class" / name).mkdir(parents=True)
            place = folder / "class" / name / "tiny.ipynb"
            place.write_bytes(content) if isinstance(content, bytes) else None
        (folder / "another.ipynb").write_bytes(notebook({}))
        for name, make in FILES.items():
            if not isinstance(make, bytes):
                make(folder / "class" / name / "tiny.ipynb")
        (folder / "class" / "victim again").symlink_to("victim")
        plan = run.Plan(folder / "tiny", folder / "class", folder / "out", sandbox, WIDE_LIMITS, retries=0)
        os.environ["COURSE_SECRET"] = TOKEN
        try:
            run.grade(plan, workers=2)
        finally:
            del os.environ["COURSE_SECRET"]
    found = {name: results.read_result(folder / "out", name) for name in os.listdir(folder / "class")}
    assert not [name for name, result in found.items() if result is None]
    return folder, found


def row(result: dict, name: str) -> dict:
    return next(each for each in result["questions"] if each["question"] == name)


def of(cases: dict[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "question"), list(zip(cases, NAMES, strict=False)), ids=list(cases))


@of(OBJECTS)
def test_no_object_passes_for_an_answer(name, question, graded):
    assert row(graded[1]["objects"], question)["points"] in (0, None), row(graded[1]["objects"], question)


@of(CONDUCT)
def test_no_conduct_gains_a_mark(name, question, graded):
    assert row(graded[1]["conduct"], question)["points"] in (0, None), row(graded[1]["conduct"], question)


@pytest.mark.parametrize("student", ["objects", "conduct"])
def test_right_answers_beside_hostile_ones_keep_their_marks(student, graded):
    assert row(graded[1][student], NAMES[-1])["points"] == 1, row(graded[1][student], NAMES[-1])


@pytest.fixture(scope="module")
def said(graded) -> dict:
    """What the cell LOOK found."""
    (cell,) = [each for each in graded[1]["looking"]["cells"] if each["kind"] == "helper"]
    assert not cell["error"], cell
    return json.loads(cell["text"])


@pytest.mark.parametrize("where", NOTHING)
def test_nothing_hidden_is_found(where, said):
    assert said[where] == "[]"


@pytest.mark.parametrize("what", REFUSED)
def test_what_leads_out_of_the_box_is_refused(what, said):
    assert "rror" in said[what], said[what]


def test_the_first_process_of_a_box_outlives_a_signal_and_nothing_traces_it(said):
    assert said["tracing"] == "-1" and said["keyrings"] == "-1"


def test_the_first_process_of_a_box_which_may_be_taken_over_has_its_limits_too(said):
    """Its memory can be written by who has the same uid: without limits of its own it would write without end."""
    found = said["limits of the first process"]
    assert str(WIDE_LIMITS.file_mb << 20) in found and str(WIDE_LIMITS.address_mb << 20) in found, found


def test_nobody_finds_what_another_left(graded, said):
    assert said["leave /tmp/left"].isdigit()
    (cell,) = [each for each in graded[1]["victim"]["cells"] if each["kind"] == "helper"]
    assert cell["text"] == "[] []\n"


def test_the_one_who_comes_after_the_hostile_has_every_mark(graded):
    assert [each["points"] for each in graded[1]["victim"]["questions"]] == [1] * COUNT


def test_nothing_that_was_asked_is_quoted_whoever_listens(graded, tmp_path):
    folder, found = graded
    told = {part: what for part, what in found["listening"].items() if part != "sources"}
    assert "SEEN" not in json.dumps(told)
    write_feedback(folder / "out", tmp_path, {})
    for student in ("conduct", "listening"):
        page = (tmp_path / f"{results.file_of(student)}.html").read_text()
        for line in json.loads(json.dumps([each["source"] for each in found[student]["sources"]])):
            assert line
        after = page.replace("SEEN&#x27;", "").split("<pre>")
        printed = [each.split("</pre>")[1] for each in after[1:]]
        assert not [each for each in printed if "SEEN" in each]


@of(KINDLY)
def test_an_unlucky_answer_that_is_right_gets_its_mark(name, question, graded):
    found = row(graded[1]["kind"], question)
    assert found["points"] == 1, found


@pytest.mark.parametrize("name", UNLUCKY)
def test_an_unlucky_notebook_gets_every_mark(name, graded):
    found = graded[1][f"unlucky {name}"]
    assert [each["points"] for each in found["questions"]] == [1] * COUNT, [
        (each["question"], each["reason"]) for each in found["questions"] if each["points"] != 1
    ]


@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_not_graded_and_named(name, graded):
    found = graded[1][name]
    assert {each["outcome"] for each in found["questions"]} == {"not_graded"}
    assert found["submission"] is None and "root:" not in json.dumps(found)
    assert shown(name) in found["questions"][0]["reason"]


def test_every_student_has_a_name_of_his_own_in_the_gradebook_and_none_is_a_formula(graded):
    folder, found = graded
    with (folder / "out" / "gradebook.csv").open(newline="", encoding="utf-8") as file:
        students = [each["student"] for each in csv.DictReader(file)]
    assert len(set(students)) == len(found) and len(students) == COUNT * len(found)
    assert not [each for each in students if each[0] in "=+-@\t\r" or "\n" in each or "\u202e" in each]


# What comes out of a box ----------------------------------------------------------------------------------------------

WAYS_OUT = {  # each spoils the way of all answers, so it has a box of its own
    "an answer of the grader's form is written and kept": """
import json, threading, time
from safetensors.torch import save
FORGED = save({"0": torch.zeros(2, 3)}, {"tree": json.dumps({"cases": [{"gives": {"tensor": "0"}}] * 3})})
def forge():
    until = time.time() + 2
    while time.time() < until:
        with open("/answer", "r+b") as file: file.write(FORGED)
def count(x):
    threading.Thread(target=forge, daemon=True).start()
    time.sleep(0.05)
    return -1""",
    "json is patched": """
import json
json.dumps = lambda *a, **k: '{"cases": [{"gives": "right"}, {"gives": "right"}]}'
def count(x): return -1""",
    "safetensors is patched": """
import safetensors.torch as st
real = st.save
st.save = lambda tensors, metadata=None: real({"0": torch.zeros(2, 3)}, metadata)
def count(x): return -1""",
    "open is patched, and a pickle is written": """
import builtins, os, pickle
class Attack:
    def __reduce__(self): return (os.mkdir, ("/tmp/homework-attacked",))
real = builtins.open
def sly(path, *a, **k):
    if path == "/answer":
        with real("/answer", "wb") as file: pickle.dump(Attack(), file)
        path = "/dev/null"
    return real(path, *a, **k)
builtins.open = sly
def count(x): return -1""",
    "an archive of pickles is written": """
import builtins
real = builtins.open
def sly(path, *a, **k):
    if path == "/answer":
        torch.save({"cases": [{"gives": torch.zeros(2, 3)}] * 2}, "/answer")
        path = "/dev/null"
    return real(path, *a, **k)
builtins.open = sly
def count(x): return -1""",
    "exec and compile are patched": """
import builtins
real = builtins.exec
def sly(code, *a):
    if a and "_user" in a[0]:
        a[0]["one_case"] = lambda *a, **k: {"gives": "right"}
    real(code, *a)
    if a and "_user" in a[0]:
        a[0]["probe"] = lambda *a: None
builtins.exec = sly
def count(x): return -1""",
    "replies of the kernel are forged": """
import time
kernel = get_ipython().kernel
def count(x):
    parent, ident = kernel.get_parent("shell"), kernel._parent_ident
    ident = ident.get("shell") if isinstance(ident, dict) else ident
    for _ in range(20):
        for socket, kind, content in ((kernel.shell_stream, "execute_reply", {"status": "ok", "execution_count": 1}),
                                      (kernel.iopub_socket, "status", {"execution_state": "idle"}),
                                      (kernel.iopub_socket, "execute_result", {"data": {"text/plain": "SEEN"}}),
                                      (kernel.iopub_socket, "comm_open", {"comm_id": "a", "target_name": "t"})):
            try: kernel.session.send(getattr(socket, "socket", socket), kind, content, parent=parent, ident=ident)
            except Exception: pass
    time.sleep(1)
    return -1""",
}  # fmt: skip

# What ends a box ------------------------------------------------------------------------------------------------------

ENDERS = {
    "a loop in C that hears no interrupt":
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ndef count(x): return sum(iter(int, 1))",
    "a pattern that never ends": "import re\ndef count(x): return re.match('(a+)+$', 'a' * 60 + 'b')",
    "a list that never ends": "class L(list):\n    def __iter__(self):\n        while True: yield 1\n"
        "def count(x): return L([1])",
    "forks of forks": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "threads without end": "import threading, time\ndef count(x):\n    while True:\n        try: threading.Thread("
        "target=time.sleep, args=(60,)).start()\n        except Exception: pass",
    "memory of many processes": "import os, time\ndef count(x):\n    for _ in range(5):\n        if not os.fork():\n"
        "            a = b'x' * (300 << 20); time.sleep(60)\n    time.sleep(60)",
    "memory of files without a folder": "import os\ndef count(x):\n    found = []\n    while True:\n"
        "        found.append(os.memfd_create('a'))\n        os.write(found[-1], b'x' * (8 << 20))",
    "memory of System V": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype, libc.shmdt.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def count(x):
    while (one := libc.shmget(0, 60 << 20, 0o1600)) >= 0:
        place = libc.shmat(one, None, 0)
        ctypes.memset(place, 1, 60 << 20)
        libc.shmdt(place)
    raise OSError(ctypes.get_errno(), "refused")""",
    "files without end": "import os\nmade = 0\nwhile True:\n"
        "    os.close(os.open(f'/tmp/{made}', os.O_CREAT | os.O_WRONLY))\n    made += 1",
    "output": "import os, sys\ndef count(x):\n    while True: sys.__stdout__.write('x' * 10_000)",
    "a message too large": "from IPython.display import display\ndef count(x):\n"
        "    display({'image/png': 'x' * (20 << 20)}, raw=True)\n    while True: pass",
    "messages of another cell": "def count(x):\n    k = get_ipython().kernel\n    while True: k.session.send("
        "k.iopub_socket, 'stream', {'name': 'stdout', 'text': 'x' * 1000}, parent={'header': {'msg_id': 'a'}})",
    "a text that is long to clean": r"""print('\x1b]' * 100_000)
print('\x1b[' * 60_000)
def count(x): return -1""",
    "its own kernel is killed": "import os\ndef count(x): os.kill(os.getpid(), 9)",
    "its own kernel is stopped": "import os\ndef count(x): os.kill(os.getpid(), 19)",
    "its own kernel is another program": f"import os\ndef count(x): os.execvp('sleep', ['sleep', '{SLEEP}'])",
    "a crash in C": "import ctypes\ndef count(x): return ctypes.string_at(0)",
    "every descriptor is closed": "import os\ndef count(x):\n    os.closerange(3, 256)\n    return -1",
    "the kernel shuts down": "def count(x): return get_ipython().kernel.do_shutdown(True) and -1",
    "a daemon keeps the answer": "import os, time\ndef count(x):\n    if not os.fork():\n        os.setsid()\n"
        "        if not os.fork():\n            while True: open('/answer', 'r+b').write(b'x' * 100)\n"
        "        os._exit(0)\n    time.sleep(0.2)\n    return -1",
}  # fmt: skip
ENDING = replace(tiny.LIMITS, cell_s=2, question_s=2, submission_s=60, memory_mb=700)


@pytest.fixture(scope="module")
def ended(sandbox, tmp_path_factory, before):
    folder = tmp_path_factory.mktemp("ending")
    tiny.release(folder / "tiny", ENDING)
    tried = {**WAYS_OUT, **ENDERS}
    for number, source in enumerate(tried.values()):
        (folder / "class" / f"{number:02}").mkdir(parents=True)
        (folder / "class" / f"{number:02}" / "tiny.ipynb").write_bytes(tiny.submission(q3=source))
    plan = run.Plan(folder / "tiny", folder / "class", folder / "out", sandbox, ENDING, questions=("q3",), retries=0)
    run.grade(plan, workers=2)
    return {name: results.read_result(folder / "out", f"{number:02}") for number, name in enumerate(tried)}


def test_all_of_this_was_tried_in_kernels_that_are_forked(graded, ended):
    """test_homework_grade.py tries the same kinds where each kernel is a process of its own."""
    found = [*graded[1].values(), *ended.values()]
    assert {each["kernels"] for each in found if each["submission"]} == {"forked"}


@pytest.mark.parametrize("name", WAYS_OUT)
def test_no_tampering_with_the_way_out_gains_a_mark(name, ended):
    (only,) = ended[name]["questions"]
    assert only["points"] in (0, None) and "SEEN" not in only["reason"], only
    assert not Path("/tmp/homework-attacked").exists()


@pytest.mark.parametrize("name", ENDERS)
def test_what_ends_a_box_gains_nothing_and_ends_in_time(name, ended):
    found = ended[name]
    (only,) = found["questions"]
    assert only["points"] in (0, None), only
    assert only["stop"] not in ("grader", "no start"), only
    assert found["seconds"] < ENDING.submission_s + 20, found["seconds"]


def test_memory_that_no_process_holds_is_refused(ended):
    for name in ("memory of files without a folder", "memory of System V"):
        (only,) = ended[name]["questions"]
        assert only["points"] == 0 and "PermissionError" in only["reason"], only
    (only,) = ended["files without end"]["questions"]
    assert only["stop"] in ("disk", "time"), only  # 2 s may be too few on a busy machine


def test_no_process_and_no_folder_of_an_ended_box_is_left(ended, graded, before):
    commands = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    assert not [each for each in commands if each == ["sleep", SLEEP]]
    mine = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    left = {each for each in Path("/tmp").glob("homework-*") if each.name.split("-")[1] in map(str, mine)}
    assert not (left - before)


# Single ones ----------------------------------------------------------------------------------------------------------


def test_a_text_of_a_million_beginnings_is_cleaned_at_once():
    """Each pattern looked for its end through the whole text once, which took hours: this would not come back."""
    for beginning in ("\x1b]", "\x1b[", "\x1b[0", "\x1b", "\x1b]0;x"):
        assert "\x1b" not in harmless(beginning * 300_000)
    assert harmless("a\x1b]8;;http://x\x07link\x1b]8;;\x1b\\ \x1b[31mred\x1b[0m") == "alink red"
