"""The notebooks run, are stored with honest outputs, and their exercises can be solved."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from stand_ins import write_kinetics, write_ssv2
from test_tiny_records import divided_on_the_hard_sets

from course_lib.analysis.cost import Cost, cost
from course_lib.analysis.intervals import interval, t_quantile
from course_lib.analysis.layers import layer_masks
from course_lib.analysis.memory import kept_for_backward
from course_lib.datasets.lessons import opposites_in_order
from course_lib.experiments import by_seed, matching, paired, records, same_seeds, training_loss
from course_lib.experiments.claims import BLIND, DIALS, SEES, TURNED, WAYS
from course_lib.experiments.keeping import SHOWN
from course_lib.experiments.paper_claims import PAPER_CLAIMS
from course_lib.experiments.recipes import RECIPES
from course_lib.experiments.records import by_dial, left_plateau, right_in_pair
from course_lib.figures.costs import crossing
from course_lib.files import read_json
from course_lib.grid import Grid
from course_lib.layers.nonlocal_block import NO_BLOCKS, NonLocal
from course_lib.layers.schemes import Band, ShiftedWindows, windows
from course_lib.models import build, configure
from course_lib.models.mvit import V2, VIT
from course_lib.models.r2plus1d import CONVOLUTIONS, Block, middle
from course_lib.models.slowfast import JOINS, slow_frames
from course_lib.models.timesformer import ATTENTION
from course_lib.notebooks import execute
from course_lib.paths import DATA
from course_lib.profiles import PROFILES, forecast
from course_lib.synthetic.appearance import KINDS
from course_lib.synthetic.difficulty import EASY, FULL
from course_lib.synthetic.motion import EVEN, breadth, clockwise, rightwards, tracks
from course_lib.synthetic.render import LAWS

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
NO_CLIPS = {"COURSE_CLIPS": "", "COURSE_KINETICS": "", "COURSE_SSV2": ""}
# one thread: steps are so small here that two wait for each other, and crawl where a core is taken
SMOKE = {**os.environ, **NO_CLIPS, "COURSE_PROFILE": "smoke", "OMP_NUM_THREADS": "1"}


def own_runs(folder: Path) -> dict[str, str]:
    """The environment of the smoke profile with a data folder without runs: a finished one would be read back, and one
    that another process of tests trains at the same moment would be in the way."""
    (DATA / "generated").mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    for part in DATA.iterdir():
        if part.name != "runs":
            (folder / part.name).symlink_to(part)
    return {**SMOKE, "COURSE_DATA": str(folder)}


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def solutions(notebook) -> list[str]:
    """The code of every solution, in the order of the exercises."""
    found = [re.findall(r"```python\n(.*?)```", cell.source, re.S) for cell in tagged(notebook, "solution")]
    assert all(len(blocks) == 1 for blocks in found), "a solution is one block of code"
    return [block for (block,) in found]


def verdicts(notebook) -> list[str]:
    return [verdict(cell) for cell in tagged(notebook, "check")]


def verdict(cell) -> str:
    (text,) = (out["data"]["text/plain"] for out in cell.outputs if out.output_type == "execute_result")
    return text


WRONG = {  # notebook: an answer to each exercise that runs and is wrong, and what its check says of it
    "00_clips": [
        ("def to_batch(frames): return torch.from_numpy(frames).permute(3, 0, 1, 2).float()[None]", "numbers differ"),
        ("def dense_in_the_middle(available, frames, stride): return 37 + stride * np.arange(frames)", "for|numbers"),
        ("def symmetric(available, frames): return [(1, 12), (3, 5)]", r"symmetric\(33, 8\)"),
        ("def averaged(describe, classify, clips): return classify(describe(clips[:, :, 0]))", "numbers differ"),
        ("def within_pair(logits, labels, partner): return 0.625", "too large|too small"),
    ],
    "01_i3d": [
        (
            "def inflate(weight, frames): return weight[:, :, None].repeat(1, 1, frames, 1, 1)",
            r"\(3\): .* 3 times what",
        ),
        ("def frames_seen(layers): return 1 + sum(size - 1 for size, stride in layers)", "frames is too small"),
        ("def at_the_edges(length, kernel, stride): return 3", r"at_the_edges\(32, 3, 1\): 3 steps is too large"),
        (
            "Right = MyMixed\n"
            "class MyMixed(Right):\n"
            "    def forward(self, x):  # two branches in each other's place\n"
            "        middle, small = self.middle(self.reduce_middle(x)), self.small(self.reduce_small(x))\n"
            "        return torch.cat([self.single(x), small, middle, self.pooled(self.pool(x))], dim=1)",
            "channels side by side: the shape is right, the numbers differ",
        ),
        (
            "Right = MyI3D\n"
            "class MyI3D(Right):\n"
            "    def forward(self, clip):  # the mean over all places at once\n"
            "        return self.head(self.dropout(self.layers(clip))).mean((2, 3, 4))",
            "the shape is right, the numbers differ",
        ),
        ("def fuse(rgb, flow): return rgb + flow", "the numbers differ"),
    ],
    "02_nonlocal": [
        (
            "def nonlocal_mean(theta, phi, g):  # with the root of attention\n"
            "    return (theta @ phi.transpose(1, 2) / theta.shape[-1] ** 0.5).softmax(2) @ g",
            r"query 0 takes 0\.\d+ from key 0, where f / C is 0\.\d+",
        ),
        ("def by_attention(attend, theta, phi, g): return attend(theta, phi, g)", "query 0 takes .* where f / C is"),
        (
            "Right = MyNonLocal\n"
            "class MyNonLocal(Right):\n"
            "    def forward(self, x):  # keys from all places\n"
            "        parts = self.theta(x), self.phi(x), self.g(x)\n"
            "        y = attend(*(rearrange(part, 'b d t h w -> b (t h w) d') for part in parts))\n"
            "        y = rearrange(y, 'b (t h w) d -> b d t h w', t=x.shape[2], h=x.shape[3])\n"
            "        return x + self.norm(self.out(y))",
            "sees what it should not",
        ),
        (
            "Right = MyNonLocalNet\n"
            "class MyNonLocalNet(Right):\n"
            "    def forward(self, clip):  # the step through time comes too early\n"
            "        x = F.max_pool3d(self.stem(clip), (2, 3, 3), (2, 2, 2), (0, 1, 1))\n"
            "        for part in self.stages:\n"
            "            x = part(x)\n"
            "        return self.head(self.dropout(x.mean(dim=(2, 3, 4))))",
            "the numbers differ|your result does not change when some pixels",
        ),
        (
            "def block_macs(t, h, w, dim, pool_keys): return 2286419968",
            r"block_macs\(4, 28, 28, 512, False\): .* too small",
        ),
        ("def stamped(clip): return clip + 0.5", "two frames get the same stamp"),
    ],
    "03_r2plus1d": [
        (
            "def frames_seen(kinds, blocks):\n"
            "    over_time = [kind != '2d' for kind in kinds]\n"
            "    return [1 + 2 * sum((2 * blocks if i else 1) * over_time[i] for i in range(n + 1)) for n in range(5)]",
            r"frames_seen\(\('2d', '2d', '3d', '3d', '3d'\), 1\): the shape is right, the numbers differ",
        ),
        (
            "def first_layer(conv, clip): return conv(clip.transpose(1, 2).flatten(1, 2)).unsqueeze(2)",
            "the shape is right, the numbers differ",
        ),
        ("def middle_width(dim, out, t=3, d=3): return int(2.25 * dim)", r"middle_width\(64, 128\): 144 is too small"),
        (
            "Right = split\n"
            "def split(*asked):\n"
            "    return nn.Sequential(*(part for part in Right(*asked) if not isinstance(part, nn.ReLU)))",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = MyBlock\n"
            "class MyBlock(Right):\n"
            "    def forward(self, x): return self.second(self.first(x)) + self.shortcut(x)",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = MyR2Plus1D\n"
            "class MyR2Plus1D(Right):\n"
            "    def forward(self, clip): return self.head(self.blocks(self.conv1(clip)).amax((2, 3, 4)))",
            "the shape is right, the numbers differ",
        ),
    ],
    "04_slowfast": [
        (
            "def frames_of(frames, alpha): return torch.arange(0, frames, alpha), torch.arange(frames)",
            r"frames_of\(32, 8\): slow path: the shape is right, the numbers differ",
        ),
        (
            "def joined(kind, slow, alpha, beta): return slow + slow // beta * dict(t_sample=1, t_conv=2).get(kind, 0)",
            r"joined\(ttoc_concat, 64, 8, 8\): 64 is too small",
        ),
        (
            "Right = MyJoin\n"
            "class MyJoin(Right):\n"
            "    def forward(self, slow, fast):  # no zeros around\n"
            "        found = F.conv3d(fast, self.weight, stride=(self.alpha, 1, 1))\n"
            "        return torch.cat([slow, F.relu(self.norm(found))], dim=1)",
            r"at place 0 \[0, 1, 2\] is expected, you have \[0, 1, 2, 3, 4\]",
        ),
        (
            "def fed_by(t, alpha, kernel, frames): return list(range(alpha * t, min(frames, alpha * t + kernel)))",
            r"fed_by\(0, 8, 5, 32\): expected 3 of them, you have 5",
        ),
        (
            "Right = MySlowFast\n"
            "class MySlowFast(Right):\n"
            "    def forward(self, clip):  # every alpha-th frame\n"
            "        slow, fast = pick_frames(clip.shape[2], self.config.alpha)\n"
            "        x = {'slow': clip[:, :, fast[::self.config.alpha]], 'fast': clip}\n"
            "        for name in STAGES:\n"
            "            x = {path: self.paths[path].get_submodule(name)(x[path]) for path in x}\n"
            "            if name in self.joins:\n"
            "                x['slow'] = self.joins[name](x['slow'], x['fast'])\n"
            "        return self.head(torch.cat([y.mean((2, 3, 4)) for y in x.values()], dim=1))",
            "the shape is right, the numbers differ|does not change when some pixels of frame 15",  # as drawn
        ),
        ("def fast_over_slow(alpha, beta): return alpha / beta", r"fast_over_slow\(8, 8\): 1 is too large"),
    ],
    "05_vtn": [
        (
            "def frame_band(frames, window):\n"
            "    place = torch.arange(frames)\n"
            "    return (place[:, None] - place[None, :]).abs() <= window",
            r"frame_band\(5, 2\): the shape is right, the numbers differ",
        ),
        (
            "Right = MyAttention\n"
            "class MyAttention(Right):\n"
            "    def forward(self, x, cls):  # without a band\n"
            "        row = torch.cat([cls, x], dim=1)\n"
            "        q, k, v = in_heads(self.qkv(row), 3, self.heads)\n"
            "        y = self.out(rearrange(attend(q, k, v), 'b head n d -> b n (head d)'))\n"
            "        return y[:, 1:], y[:, :1]",
            "token t=0 sees what it should not: token t=3",
        ),
        (
            "Right = MyVTN\n"
            "class MyVTN(Right):\n"
            "    def forward(self, clip):\n"
            "        x = self.backbone(clip) + self.type_embed[0]  # and no code for time\n"
            "        cls = (self.cls + self.time_embed[POSITION_COUNT] + self.type_embed[1]).expand(len(x), 1, -1)\n"
            "        x, cls = self.norm_embed(x), self.norm_embed(cls)\n"
            "        for block in self.blocks:\n"
            "            x, cls = block(x, cls)\n"
            "        return self.head(cls[:, 0])",
            "the shape is right, the numbers differ",
        ),
        ("def heard(layers, window): return layers * window", r"heard\(1, 18\): 18 is too small"),
        (
            "def pairs_of(frames, window): return frames * (window + 1) + 2 * frames + 1",
            r"pairs_of\(250, 18\): .* large",
        ),
        (
            "def notices(window, change): return 'yes' if window == 'narrow' else 'no'",
            r"notices\(narrow, reversed\): 'yes' is not the answer: logits of your network change by up to",
        ),
    ],
    "06_timesformer": [
        (
            "def over_time(attend, x): return rearrange(attend(rearrange(x, 'b t h w d -> (b t w) h d')), "
            "'(b t w) h d -> b t h w d', t=x.shape[1], w=x.shape[3])",
            r"token \(t=0, h=0, w=0\) sees what it should not",
        ),
        (
            "def over_space(attend, x, cls): return SPACE.apply(attend, x, cls)[0], cls",
            "class token: the shape is right, the numbers differ",
        ),
        (
            "Right = MyBlock\n"
            "class MyBlock(Right):\n"
            "    def forward(self, z, cls):\n"
            "        z = z + time_attention(self.time, self.norm_time(z))  # without its projection\n"
            "        dz, dcls = space_attention(self.space, self.norm_space(z), self.norm_space(cls))\n"
            "        z, cls = z + dz, cls + dcls\n"
            "        return z + self.mlp(self.norm_mlp(z)), cls + self.mlp(self.norm_mlp(cls))",
            "patches: the shape is right, the numbers differ",
        ),
        (
            "Right = MyTimeSformer\n"
            "class MyTimeSformer(Right):\n"
            "    def forward(self, clip):\n"
            "        z, cls = self.patch_embed(clip), self.cls.expand(len(clip), -1, -1)\n"
            "        z, cls = self.pos_embed(z, cls)  # and no time embedding\n"
            "        for block in self.blocks:\n"
            "            z, cls = block(z, cls)\n"
            "        return self.head(self.norm(cls[:, 0]))",
            "the shape is right, the numbers differ",
        ),
        ("def pairs_divided(t, h, w): return 319872", r"pairs_divided\(4, 6, 10\): .* too large"),
        ("prediction = 79", "79 % is too large"),
    ],
    "08_vidtr": [
        (
            "def separable_bytes(t, n): return 12 * 12 * 4 * ((t + 1) ** 2 + (n + 1) ** 2)",
            r"separable_bytes\(8, 196\): .* too small",
        ),
        (
            "def framed(z, row, column):  # the row behind the frames\n"
            "    z = torch.cat([repeat(column, 't d -> b t 1 d', b=len(z)), z], dim=2)\n"
            "    return torch.cat([z, repeat(row, 'n d -> b 1 n d', b=len(z))], dim=1)",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = MySeparable\n"
            "class MySeparable(Right):\n"
            "    def forward(self, x):  # along space alone\n"
            "        return self.out(self.along('(b t) head n d', *self.qkv(x).chunk(3, dim=-1)))",
            r"token \(t=0, h=0\) does not see what it should",
        ),
        (
            "Right = MyVidTr\n"
            "class MyVidTr(Right):\n"
            "    def forward(self, clip):\n"
            "        z = rearrange(self.patch_embed(clip), 'b t h w d -> b t (h w) d')\n"
            "        z = make_frame(z, self.row, self.column)\n"
            "        for block in self.blocks:\n"
            "            z = block(z, self.pos_embed)  # in every block\n"
            "        return self.head(self.dropout(self.norm(z)[:, 0, 0]))",
            "the shape is right, the numbers differ",
        ),
        (
            "def picky_rows(attn, keep): return attn.std(dim=-1).topk(keep, dim=-1).indices  # by how much, not when",
            "the shape is right, the numbers differ",
        ),
        ("largest_ratio = 2", "2 times is too small"),
    ],
    "09_mvit": [
        (
            "def table_of(depths, grid, dim, heads, stride):  # rounded down\n"
            "    t, h, w = grid\n"
            "    return [(b, (t, h // n, w // n), dim * n, heads * n, max(1, stride // n))\n"
            "            for b, n in zip(depths, (1, 2, 4, 8))]",
            r"at place 2 \(36, \(20, 20, 20\), 576, 8, 2\) is expected, you have \(36, \(20, 19, 19\)",
        ),
        (
            "Right = MyPool\n"
            "class MyPool(Right):\n"
            "    def forward(self, x):  # the class token stays out of the norm\n"
            "        return torch.cat([x[:, :, :1], super().forward(x)[:, :, 1:]], dim=2)",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = MyAttention\n"
            "class MyAttention(Right):\n"
            "    def forward(self, x):  # heads and q, k, v in each other's place\n"
            "        parts = rearrange(self.qkv(x), 'b n (head qkv d) -> qkv b head n d', qkv=3, head=self.heads)\n"
            "        q, k, v = (self.pools[name](z) if name in self.pools else z for name, z in zip('qkv', parts))\n"
            "        return self.out(rearrange(attend(q, k, v), 'b head m d -> b m (head d)'))",
            "the shape is right, the numbers differ",
        ),
        (
            "def rows_of(n, m): return torch.arange(m)[None, :] - torch.arange(n)[:, None] + n - 1",
            r"rows_of\(4, 4\): the shape is right, the numbers differ",
        ),
        (
            "Right = MyBias\n"
            "class MyBias(Right):\n"
            "    def forward(self, q): return super().forward(q / q.shape[-1] ** 0.5)",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = MyAttention2\n"
            "class MyAttention2(Right):\n"
            "    def forward(self, x):  # the class token's query is added too\n"
            "        parts = rearrange(self.qkv(x), 'b n (qkv head d) -> qkv b head n d', qkv=3, head=self.heads)\n"
            "        q, k, v = (self.pools[name](z) if name in self.pools else z for name, z in zip('qkv', parts))\n"
            "        y = attend(q, k, v, bias=self.bias(q)) + q\n"
            "        return self.out(rearrange(y, 'b head m d -> b m (head d)'))",
            "the shape is right, the numbers differ",
        ),
    ],
    "10_video_swin": [
        (
            "def to_windows(x, window):  # height before time\n"
            "    return rearrange(x, f'{CUT} -> (b nt nh nw) (h t w) d', **dict(zip('thw', window)))",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = in_windows\n"
            "def in_windows(attend, x, window, shift):  # rolled, and no mask\n"
            "    return Right(lambda rows, mask: attend(rows), x, window, shift)",
            r"token \(t=0, h=0, w=0\) sees what it should not",
        ),
        (
            "Right = table_index\ndef table_index(window): return Right(window).T  # key minus query",
            r"table_index\(\(2, 1, 3\)\): .* they agree when axes 0 and 1 are swapped",
        ),
        (
            "Right = MyMerging\n"
            "class MyMerging(Right):\n"
            "    def forward(self, z):  # row by row\n"
            "        four = 'b t (h dh) (w dw) d -> b t h w (dh dw d)'\n"
            "        return self.reduction(self.norm(rearrange(z, four, dh=2, dw=2)))",
            "the shape is right, the numbers differ",
        ),
        (
            "Right = MyVideoSwin\n"
            "class MyVideoSwin(Right):\n"
            "    def __init__(self, c):\n"
            "        super().__init__(c)\n"
            "        for part in self.modules():  # no block shifts\n"
            "            if isinstance(part, MyAttention):\n"
            "                part.scheme = ShiftedWindows(part.scheme.window, (0, 0, 0))",
            "the shape is right, the numbers differ",
        ),
        ("def symmetric(table): return (table + table.flip(2)) / 2", "the shape is right, the numbers differ"),
    ],
    "07_vivit": [
        (
            "Right = MyTubelets\n"
            "class MyTubelets(Right):\n"
            "    def forward(self, clip):  # numbers in another order than the kernel's\n"
            "        pattern = 'b c (nt t) (nh h) (nw w) -> b nt nh nw (t h w c)'\n"
            "        rows = rearrange(clip, pattern, **dict(zip('thw', self.tubelet)))\n"
            "        return rows @ self.weight.flatten(1).T + self.bias",
            r"pixel \(0, 0, 0, 1\) of a tubelet meets the number \(0, 0, 0, 3\)",
        ),
        (
            "Right = MyHalfHeads\n"
            "class MyHalfHeads(Right):\n"
            "    def forward(self, x):  # all heads over space\n"
            "        pattern = 'b t h w (qkv head d) -> qkv (b t) head (h w) d'\n"
            "        rows = rearrange(self.qkv(x), pattern, qkv=3, head=self.heads)\n"
            "        back = '(b t) head (h w) d -> b t h w (head d)'\n"
            "        return self.out(rearrange(attend(*rows), back, t=x.shape[1], h=x.shape[2]))",
            "does not see what it should",
        ),
        (
            "Right = MyViViT\n"
            "class MyViViT(Right):\n"
            "    def forward(self, clip):  # the mean over steps in place of the second encoder\n"
            "        z = self.patch_embed(clip)\n"
            "        if self.time_encoder is None:\n"
            "            return self.head(self.encoder(z))\n"
            "        steps = self.encoder(rearrange(z, 'b t h w d -> (b t) 1 h w d'))\n"
            "        return self.head(steps.unflatten(0, (-1, z.shape[1])).mean(1))",
            "the numbers differ",
        ),
        (
            "def notices(tokens, over_steps): return 'no' if over_steps == 'mean' else 'yes'",
            r"notices\(two frames, mean\): 'no' is not the answer",
        ),
        (
            "def inflate(kernel, t): return kernel[:, :, None].expand(-1, -1, t, -1, -1)",
            "inflate, t = 2: the shape is right, the numbers differ",
        ),
    ],
    "11_comparison": [
        (
            "def whole_test(gmacs, size, crop, clips, crops): return gmacs * clips * crops",
            r"whole_test\(49, 224, 256, 10, 3\): .* too small",
        ),
        (
            "def attention_products(tokens, dim, layers): return tokens**2 * dim * layers",
            "400 multiply-adds is too small",
        ),
        ("def same_rules(one, other): return one.start == other.start", "pair 3 of 6 is wrong"),
        ("def front(points): return {name for name in points if name != 'b'}", "missing: {'b'}, beaten: {"),
        (
            "def my_windows(t, h, w):\n"
            "    pattern = 'b (nt t) (nh h) (nw w) d -> (b t h w) (nt nh nw) d'\n"
            "    return Groups('far', pattern, (('t', t), ('h', h), ('w', w)))",
            "this is not 2x2x2 windows attention",
        ),
        ("def my_layers(): return windows(2, 2, 2), windows(4, 2, 2)", "[1-9][0-9]* of 16384 never hear of each other"),
    ],
}


def test_there_are_notebooks():
    assert {"00_clips", "06_timesformer"} <= {path.stem for path in NOTEBOOKS}


@each
@pytest.mark.timeout(600)
def test_nbval_runs_every_notebook_in_the_smoke_profile(path, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # the warnings of other people's kernels are not ours
    command = [sys.executable, "-m", "pytest", "-c", str(tmp_path / "pytest.ini"), "--rootdir", str(tmp_path)]
    command += [
        "--nbval-lax",
        "--nbval-kernel-name=python3",
        "--nbval-cell-timeout=180",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    run = subprocess.run([*command, str(path)], env=own_runs(tmp_path / "data"), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


TAKES_REAL_CLIPS = [path for path in NOTEBOOKS if "kinetics" in tagged(read(path), "parameters")[0].source]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", TAKES_REAL_CLIPS, ids=lambda path: path.stem)
def test_a_notebook_runs_through_on_a_kinetics_and_a_something_something_folder(path, tmp_path):
    """By papermill, with folders that hold a few classes: they and no generated ones are what is trained on."""
    kinetics = write_kinetics(tmp_path / "kinetics", classes=("bowling", "high kick", "side kick"), each=(4, 2))
    ssv2 = write_ssv2(tmp_path / "ssv2", ".mp4", each=(3, 2), classes=opposites_in_order()[-4:])
    out = tmp_path / path.name
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(path),
        str(out),
        "--cwd",
        str(path.parent),
        "--log-level",
        "ERROR",
    ]
    command += ["--no-progress-bar", "-p", "profile", "smoke", "-p", "kinetics", str(kinetics), "-p", "ssv2", str(ssv2)]
    environment = {**own_runs(tmp_path / "data"), "COURSE_PROFILE": "cpu"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    streams = [out for cell in code(read(out)) for out in cell.outputs if out.output_type == "stream"]
    said = "".join(stream.text for stream in streams if stream.name == "stdout")
    assert "3 of the 10 classes of mini10; 12 clips to train on, 6 to test on" in said
    assert "2 of the 13 pairs of opposites; 12 clips to train on, 8 to test on" in said
    trained = set(re.findall(r"\bset (\w+): \d+ (?:steps|clips)", said))
    assert trained == {"K", "S"}
    shown = json.dumps([cell.outputs for cell in code(read(out))])
    assert "high kick" in shown and "Turning the camera" in shown


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def after_run_all(request, tmp_path_factory):
    """A notebook with its kernel still there after Run All in the smoke profile, and a way to run one more cell."""
    path, notebook = request.param, read(request.param)
    for cell in code(notebook):
        cell.outputs = []
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own_runs(tmp_path_factory.mktemp(path.stem) / "data").items():
            patch.setenv(name, value)
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)

            def run(source: str, like=None, stops: bool = False):
                """Run `source` in place of a cell, or as a new one at the end; the cell with its outputs."""
                cell = nbformat.v4.new_code_cell(source)
                if like is None:
                    notebook.cells.append(cell)
                else:
                    notebook.cells[notebook.cells.index(like)] = cell
                index = notebook.cells.index(cell)
                with contextlib.suppress(*[CellExecutionError] * stops):
                    client.execute_cell(cell, index)
                if like is not None:
                    notebook.cells[index] = like
                return cell

            yield path.stem, notebook, run


@pytest.mark.timeout(600)
def test_after_run_all_every_exercise_can_still_be_solved(after_run_all):
    stem, notebook, run = after_run_all
    exercises, checks = tagged(notebook, "exercise"), tagged(notebook, "check")
    answers = solutions(notebook)
    assert len(exercises) == len(checks) == len(answers) == len(WRONG[stem]) >= 3
    for exercise, check, right, (wrong, says) in zip(exercises, checks, answers, WRONG[stem], strict=True):
        assert verdict(check).startswith("Not yet: "), exercise.source
        run(right, exercise)
        assert verdict(run(check.source, check)).startswith("Right: "), right
        run(wrong, exercise)
        said = verdict(run(check.source, check))
        assert said.startswith("Not yet: ") and re.search(says, said), said
        run(right, exercise)  # later checks may use it


@pytest.mark.timeout(600)
def test_a_stopped_training_cell_says_so_in_one_sentence_and_goes_on(after_run_all):
    stem, _, run = after_run_all
    if stem != "06_timesformer":
        pytest.skip("trains in seconds, without a checkpoint")
    run(
        "import course_lib.lesson as frame\n"
        "def stop_after_two(self, loss, accuracy, add=frame.LiveCurve.add):\n"
        "    add(self, loss, accuracy)\n"
        "    if len(self.values) == 2:\n"
        "        raise KeyboardInterrupt\n"
        "whole, frame.LiveCurve.add = frame.LiveCurve.add, stop_after_two"
    )
    training = "steps = study(fresh('divided', motion)[0], motion, PROFILE, '06-stopped')"
    stopped = run(training, stops=True)
    (error,) = (output for output in stopped.outputs if output.output_type == "error")
    assert error.traceback == ["Stopped at 2 of 6, saved; run this cell again to go on from there."]
    run("frame.LiveCurve.add = whole")
    again = run(f"{training}\nprint('steps', len(steps))")
    assert "steps 6" in said_by(again)


def said_by(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def trained_by_the_learner(after_run_all, lesson: str, network: str, about: str):
    """What the training cell of `lesson` says once every answer is right, then the value of `about`; and how to run
    more, after the cell that gives the learner's weights to a network of the library that can be looked into."""
    stem, notebook, run = after_run_all
    if stem != lesson:
        pytest.skip(f"no {network} is written there")
    (training,) = (cell for cell in code(notebook) if f"answered({network}" in cell.source)
    assert "the network: the library's, until your answer is right" in said_by(training)
    for exercise, check, answer in zip(
        tagged(notebook, "exercise"), tagged(notebook, "check"), solutions(notebook), strict=True
    ):
        run(answer, exercise)
        run(check.source, check)
    said = said_by(run(f"{training.source}\nprint('trained:', {about})", training))
    assert "the network: yours" in said and "6 steps in" in said
    (twins,) = (cell for cell in code(notebook) if "copy_weights(yours, twin)" in cell.source)
    run(twins.source, twins)
    return said, run


@pytest.mark.timeout(600)
def test_the_network_that_is_trained_is_the_learners_once_their_answers_are_right(after_run_all):
    about = "type(yours).__name__, type(yours.blocks[0]).__name__"
    said, _ = trained_by_the_learner(after_run_all, "06_timesformer", "MyTimeSformer", about)
    assert "trained: MyTimeSformer MyBlock" in said


@pytest.mark.timeout(600)
def test_the_slowfast_that_is_trained_is_the_learners_with_their_joins(after_run_all):
    about = "type(yours).__name__, *map(type, yours.joins.values())"
    said, run = trained_by_the_learner(after_run_all, "04_slowfast", "MySlowFast", about)
    assert "trained: MySlowFast" in said and said.count("MyJoin") == 4
    logits = run("with evaluating(twin), evaluating(yours): print((twin(seen) - yours(seen)).abs().max().item())")
    assert float(said_by(logits)) < 1e-4


@pytest.mark.timeout(600)
def test_the_vtn_that_is_trained_is_the_learners_with_their_band_in_its_attention(after_run_all):
    about = "type(yours).__name__, type(yours.blocks[1].attention).__name__, make_band is frame_band"
    said, _ = trained_by_the_learner(after_run_all, "05_vtn", "MyVTN", about)
    assert "trained: MyVTN MyAttention True" in said


@pytest.mark.timeout(600)
def test_the_vidtr_that_is_trained_is_the_learners_with_their_attention_and_frame_and_the_compact_one_has_their_rule(
    after_run_all,
):
    about = "type(yours).__name__, type(yours.blocks[1].attention).__name__, make_frame is framed, rule is picky_rows"
    said, run = trained_by_the_learner(after_run_all, "08_vidtr", "MyVidTr", about)
    assert "trained: MyVidTr MySeparable True True" in said
    _, notebook, _ = after_run_all
    (compact,) = (cell for cell in code(notebook) if "part.choose = rule" in cell.source)
    assert "with the rule: most_varied" in said_by(compact)
    assert "with the rule: picky_rows" in said_by(run(compact.source, compact))


@pytest.mark.timeout(600)
def test_the_mvit_that_is_trained_has_the_learners_attention_with_their_pooling_and_bias(after_run_all):
    stem, notebook, run = after_run_all
    if stem != "09_mvit":
        pytest.skip("no pooled attention is written there")
    cells = code(notebook)
    (training,) = (cell for cell in cells if 'name="09-yours"' in cell.source)
    assert "PooledAttention in 5 blocks" in said_by(training)
    for exercise, check, answer in zip(
        tagged(notebook, "exercise"), tagged(notebook, "check"), solutions(notebook), strict=True
    ):
        run(answer, exercise)
        run(check.source, check)
    about = "{type(part).__name__ for part in yours.modules()} & {'MyPool', 'Pool', 'MyBias', 'RelativePositions'}"
    said = said_by(run(f"{training.source}\nprint('made of', sorted({about}))", training))
    assert "MyAttention2 in 5 blocks" in said and "6 steps in" in said and "made of ['MyBias', 'MyPool']" in said
    (twins,) = (cell for cell in cells if "copy_weights(yours, twin)" in cell.source)
    run(twins.source, twins)
    apart = run(
        "with torch.no_grad(): print((twin.eval()(seen) - yours.eval()(seen)).abs().max().item())\nyours.train();"
    )
    assert float(said_by(apart)) < 1e-4


@pytest.mark.timeout(600)
def test_the_i3d_that_is_trained_is_the_learners_with_their_modules(after_run_all):
    about = "type(yours).__name__, type(yours.layers[5]).__name__"
    said, run = trained_by_the_learner(after_run_all, "01_i3d", "MyI3D", about)
    assert "trained: MyI3D MyMixed" in said
    logits = run(
        "with torch.no_grad(): print((twin.eval()(seen) - yours.eval()(seen)).abs().max().item())\nyours.train();"
    )
    assert float(said_by(logits)) < 1e-4


@pytest.mark.timeout(600)
def test_the_r2plus1d_that_is_trained_is_the_learners_with_their_split_in_their_block(after_run_all):
    about = "type(yours).__name__, type(yours.blocks[0]).__name__, len(yours.blocks[0].first.conv)"
    said, run = trained_by_the_learner(after_run_all, "03_r2plus1d", "MyR2Plus1D", about)
    assert "trained: MyR2Plus1D MyBlock 4" in said
    alike = run("print('alike:', torch.allclose(twin.eval()(seen_clip), yours.eval()(seen_clip), atol=1e-5))")
    assert "alike: True" in said_by(alike)  # their weights and their norms' means, in a network that can be looked into


@pytest.mark.timeout(600)
def test_the_video_swin_that_is_trained_is_the_learners_with_their_windows_index_and_merging(after_run_all):
    windows = "attention_in_windows is in_windows, index_of is table_index, mirrored is symmetric"
    about = f"type(yours).__name__, type(yours.stages[2]).__name__, {windows}"
    said, run = trained_by_the_learner(after_run_all, "10_video_swin", "MyVideoSwin", about)
    assert "trained: MyVideoSwin MyMerging True True True" in said
    logits = run("with torch.no_grad(): print((twin.eval()(seen) - yours.eval()(seen)).abs().max().item())")
    assert float(said_by(logits)) < 1e-4
    film = "film = torch.randn(2, 3, 8, 64, 64, device=device)\nwith torch.no_grad():\n    "
    turned = run(f"{film}print((blind.eval()(film) - blind(film.flip(2))).abs().max().item())")
    assert float(said_by(turned)) < 1e-5


@pytest.mark.timeout(600)
def test_the_vivit_that_is_trained_is_the_learners_with_their_tubelets_and_heads(after_run_all):
    about = "[type(part).__name__ for part in (yours, yours.patch_embed, yours.encoder.blocks[1].attentions[0])]"
    said, run = trained_by_the_learner(after_run_all, "07_vivit", "MyViViT", about)
    assert "trained: ['MyViViT', 'MyTubelets', 'MyHalfHeads']" in said
    run("nn.init.normal_(yours.head.weight)\ncopy_weights(yours, twin)")  # a head that hears everything
    alike = run("with torch.no_grad(): print('alike:', torch.allclose(twin(seen), yours(seen), atol=1e-4))")
    assert "alike: True" in said_by(alike)


@pytest.mark.timeout(600)
def test_the_transformer_that_is_trained_attends_by_the_learners_two_layers(after_run_all):
    stem, notebook, run = after_run_all
    if stem != "11_comparison":
        pytest.skip("no scheme is invented there")
    for exercise, check, answer in zip(
        tagged(notebook, "exercise"), tagged(notebook, "check"), solutions(notebook), strict=True
    ):
        run(answer, exercise)
        run(check.source, check)
    (data,) = (cell for cell in code(notebook) if "answered(my_layers" in cell.source)
    assert "the two layers: yours" in said_by(run(data.source, data))
    (training,) = (cell for cell in code(notebook) if "study(yours" in cell.source)
    said = said_by(run(training.source, training))
    assert "attention: boxes strides" in said and "6 steps in" in said


@pytest.mark.timeout(600)
def test_a_guess_unfolds_the_result_of_the_next_cell(after_run_all):
    stem, notebook, run = after_run_all
    questions = tagged(notebook, "prediction")
    if stem == "06_timesformer":
        assert len(questions) >= 4
    for question in questions:
        name, nothing = re.match(r"(\w+) = (\w+)", question.source).groups()
        assert nothing == "None", question.source
        after = notebook.cells[notebook.cells.index(question) + 1 :]
        (told,) = [cell for cell in after if f"reveal({name}" in cell.source.replace("\n    ", "")]
        assert "<details><summary>Commit to a" in html_of(told)
        choice = re.search(r'# "(\w+)"', question.source)
        guessed = run(f"{name} = {choice.group(0)[2:] if choice else 1234}\n{told.source}", told)
        assert "<details>" not in html_of(guessed) and "You said" in html_of(guessed)


def html_of(cell) -> str:
    (found,) = (out["data"]["text/html"] for out in cell.outputs if out.output_type == "execute_result")
    return found


@each
def test_stored_stubs_do_not_pass(path):
    answers = verdicts(read(path))
    assert answers and all(answer.startswith("Not yet: ") for answer in answers), answers


@pytest.mark.timeout(600)
def test_papermill_runs_a_lesson_with_a_parameter(tmp_path):
    lesson = next(path for path in NOTEBOOKS if path.stem == "06_timesformer")
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(lesson), str(out), "-p", "profile", "smoke", "-k", "python3"]
    environment = own_runs(tmp_path / "data")
    del environment["COURSE_PROFILE"]
    run = subprocess.run([*command, "--cwd", str(lesson.parent)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    notebook = read(out)
    assert any("Profile smoke" in json.dumps(cell.outputs) for cell in code(notebook))


@each
def test_notebooks_are_stored_whole_and_without_errors(path):
    notebook = read(path)
    for cell in code(notebook):
        assert cell.execution_count is not None, f"not executed: {cell.source[:60]}"
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source[:60]
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 2_000_000


@each
def test_stored_outputs_come_from_a_real_run_not_from_smoke(path):
    text = path.read_text()
    assert "Profile smoke" not in text and "smoke:" not in "".join(
        json.dumps(cell.outputs) for cell in code(read(path))
    )
    assert re.search(r"Profile (cpu|gpu) ", text)


@each
def test_every_stored_picture_has_words_for_those_who_cannot_see_it(path):
    pictures = 0
    for cell in code(read(path)):
        for output in cell.outputs:
            data = output.get("data", {})
            assert "image/png" not in data, f"an image without HTML has no alt text: {cell.source[:80]}"
            images = re.findall(r"<img[^>]*>", data.get("text/html", ""))
            for image in images:
                (alt,) = re.findall(r' alt="([^"]*)"', image)
                assert len(alt) > 20 and "data:image/png" in image, cell.source[:80]
            pictures += len(images)
    assert pictures >= 8


@each
def test_the_exported_page_has_an_alt_text_for_every_picture(path):
    page, _ = HTMLExporter().from_notebook_node(read(path))
    images = re.findall(r"<img[^>]*>", page)
    assert len(images) >= 8 and all(re.search(r' alt="[^"]{20,}"', image) for image in images)


@each
def test_the_forecast_is_what_was_measured(path):
    """The first cell says what the run took of which the outputs are stored."""
    said = "".join(output.get("text", "") for cell in code(read(path)) for output in cell.outputs)
    assert forecast(path.stem, PROFILES["cpu"]) in said


def test_the_readme_says_how_long_the_course_takes():
    minutes = [taken["cpu"]["minutes"] for taken in read_json(DATA / "results" / "minutes.json").values()]
    assert len(minutes) == len(NOTEBOOKS) and max(minutes) <= 10
    readme = " ".join((DATA.parent / "README.md").read_text().split())
    assert f"took {sum(minutes):.0f} minutes on two cores together, the longest {max(minutes):.1f} " in readme
    assert all(path.name in readme for path in NOTEBOOKS)


@each
def test_every_exercise_has_two_hints_and_then_a_solution(path):
    folded = [re.findall(r"<summary>(.*?)</summary>", cell.source) for cell in tagged(read(path), "solution")]
    assert folded and all(titles == ["Hint 1", "Hint 2", "Solution"] for titles in folded)


@each
def test_code_fits_the_page(path):
    notebook = read(path)
    outputs = [output.get("data", {}) for cell in code(notebook) for output in cell.outputs]
    shown = [data["text/markdown"] for data in outputs if "text/markdown" in data]
    blocks = [block for text in shown for block in re.findall(r"```python\n(.*?)```", text, re.S)]
    for source in [cell.source for cell in code(notebook)] + blocks + solutions(notebook):
        assert max(map(len, source.splitlines()), default=0) <= 84, source
    calls = [line for cell in code(notebook) for line in cell.source.splitlines() if line.startswith("source(")]
    assert calls and not any("," in call for call in calls), "one class a call"


@each
def test_headings_follow_one_another(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@each
def test_cells_are_short_enough_to_read(path):
    lengths = [len(cell.source.splitlines()) for cell in code(read(path))]
    assert max(lengths) <= 40 and sorted(lengths)[len(lengths) // 2] <= 13


@each
def test_the_parameters_cell_chooses_nothing_by_itself(path):
    (cell,) = tagged(read(path), "parameters")
    assert cell.source.startswith('profile = ""')
    assert all(re.match(r'\w+ = ""  # .*empty: \$COURSE_', line) for line in cell.source.splitlines())


def test_every_code_name_of_the_glossary_exists():
    rows = re.findall(r"^\|(.*)\|$", (NOTEBOOKS[0].parent / "GLOSSARY.md").read_text(), re.M)[2:]
    names = [re.findall(r"`(course_lib[\w.]+)`", row.split("|")[-1]) for row in rows]
    assert len(names) >= 30 and all(len(found) == 1 for found in names)
    for (name,) in names:
        module, thing = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), thing), name


def test_the_numbers_that_lesson_06_names_are_those_of_the_library():
    """Numbers in prose: each is counted here, and its sentence is in the notebook."""
    (path,) = (path for path in NOTEBOOKS if path.stem == "06_timesformer")
    prose = " ".join(" ".join(cell.source.split()) for cell in read(path).cells if cell.cell_type == "markdown")

    def pairs(name: str, grid: Grid) -> int:
        return sum(scheme.computed(grid) for scheme in ATTENTION[name](grid))

    def gmacs(name: str, frames: int = 8, size: int = 224) -> float:
        with torch.device("meta"):
            net = build("timesformer_b_8x224", attention=name, frames=frames, size=size)
        return cost(net, (1, 3, frames, size, size)).macs / 1e9

    base = Grid(8, 14, 14)
    share = pairs("divided", base) / base.size**2
    assert f"divided attention computes {100 * share:.0f} % of the pairs" in prose
    assert (
        f"joint attention compares all {base.size} x {base.size} pairs, divided attention {100 * share:.0f} %" in prose
    )
    assert f"for 8 x 14 x 14 and divided attention {pairs('divided', base):,}".replace(",", " ") in prose
    joint, divided = gmacs("joint"), gmacs("divided")
    assert prose.count(f"{divided:.0f} against {joint:.0f} G") == 3
    record = json.loads((Path(__file__).parent / "reference" / "timesformer_divided_8x224.json").read_text())
    assert f"as in the released file, it is {record['params'] / 1e6:.1f} M" in prose
    assert len(EVEN) == 3 and "two classes left for every clip: half of the answers right, at a loss of " in prose
    assert f"$\\ln 2 = {np.log(2):.3f}$" in prose
    tiny = configure("timesformer_tiny")
    assert f"{tiny.depth} blocks of {tiny.dim} features, on clips of {tiny.size} pixels" in prose
    assert f"{gmacs('joint', 96) / gmacs('divided', 96):.1f} in favour of divided" in prose
    at = (2, 8, 32)
    frames = crossing(at, [gmacs("joint", f) for f in at], [gmacs("divided", f) for f in at])
    assert 10 < frames < 11 and prose.count("between 10 and 11 frames") == 2
    sizes = (112, 224, 448)
    places = [(size / 16) ** 2 for size in sizes]
    tokens = crossing(places, *([gmacs(name, size=size) for size in sizes] for name in ("joint", "divided")))
    assert f"{16 * tokens**0.5:.0f} pixels" in prose and prose.count(f"at {16 * tokens**0.5:.0f} pixels") == 2
    assert gmacs("joint", 10) < gmacs("divided", 10) and gmacs("joint", 11) > gmacs("divided", 11)
    frames = np.arange(8)
    apart = np.abs(frames[:, None] - frames).mean()
    assert f"uniform attention over 8 frames would give {apart:.2f}" in prose


def table_2_of_lesson_03() -> dict[str, tuple[float, ...]]:
    """As the notebook types it: parameters, then clip and video accuracy of 8 and of 16 frames."""
    (path,) = (path for path in NOTEBOOKS if path.stem == "03_r2plus1d")
    (cell,) = (cell for cell in code(read(path)) if cell.source.startswith("PAPER = {"))
    return ast.literal_eval(re.sub(r"#.*", "", cell.source.removeprefix("PAPER = ")))


def test_the_numbers_that_lesson_03_names_are_those_of_the_library_and_of_its_tables():
    prose = prose_of("03_r2plus1d")
    frames = reach_by_hand("rmc5", 2), reach_by_hand("mc2", 2), reach_by_hand("mc3", 2)
    assert f"sees {frames[0][-1]} frames; and `mc2` never more than {frames[1][-1]}." in prose
    assert f"for `mc3` and two blocks `{frames[2]}`" in prose
    assert f"for 64 to 64 channels, with $t = d = 3$, {middle(64, 64)}." in prose and middle(64, 64) / 64 == 2.25
    wide = 3 * 49 * 3 * 64 // (49 * 3 + 3 * 64)
    assert (
        f"a middle of {wide} channels for conv1" in prose and build("r2plus1d_18").conv1.conv.space.out_channels == 45
    )

    def counted(name: str, frames: int, size: int = 112, **changes: object):
        with torch.device("meta"):
            return cost(build(name, frames=frames, **changes), (1, 3, frames, size, size))

    assert f"{counted('r2plus1d_18', 16).parameters / 1e6:.1f} or 33.3 million?" in prose
    long, larger = (counted("r2plus1d_34", 32, size).macs / 1e9 for size in (112, 128))
    assert f"Counted: {long:.0f} G at 32 frames of 112 pixels, {larger:.0f} G at 128 pixels" in prose
    tiny = configure("r2plus1d_tiny")
    assert f"{tiny.width} channels in place of 64, on {tiny.frames} frames of {tiny.size} pixels" in prose
    assert set(tiny.depths) == {1} and "one block a group" in prose
    paper = table_2_of_lesson_03()
    assert list(paper) == list(CONVOLUTIONS)[:12]
    for row, (millions, *_) in paper.items():
        assert counted("r2plus1d_18_paper", 8, convolutions=row).parameters / 1e6 == pytest.approx(millions, abs=0.1)
    apart = [video - clip for _, *scores in paper.values() for clip, video in (scores[:2], scores[2:])]
    assert min(apart) > 10 and max(apart) < 13 and "be worth 10 to 13 points" in prose
    video8, video16 = ({row: scores[at] for row, scores in paper.items()} for at in (2, 4))
    assert [row for row in paper if video16[row] < video8[row]] == ["r2d"] and "(59.5 and 58.9 %)" in prose
    assert f"f-R2D, blind to order, gains {video16['fr2d'] - video8['fr2d']:.1f}" in prose
    mixed = [row for row in paper if "mc" in row]
    assert [row for row in mixed if video8[row] < video8["r3d"]] == ["rmc5"] and "All eight mixed networks but" in prose
    assert f"there are {video8['mc3'] - video8['rmc3']:.1f} points" in prose
    assert 0.3 < paper["mc3"][0] / paper["r3d"][0] < 0.37 and "a third of its parameters" in prose
    gains = [video["r2plus1d"] - video["r3d"] for video in (video8, video16)]
    assert f"worth {gains[0]:.1f} points over R3D at 8 frames and {gains[1]:.1f} at 16" in prose
    nearest = [
        min(video["r2plus1d"] - right for row, right in video.items() if row != "r2plus1d")
        for video in (video8, video16)
    ]
    assert f"nearer than {nearest[0]:.1f} points at 8 frames and {nearest[1]:.1f} at 16" in prose
    pushed = [2 * radius * 64 for radius in (0.2, 0.24)]
    assert f"pushed is {pushed[0]:.0f} to {pushed[1]:.0f} pixels wide" in prose
    assert "72.0 against 67.5" in prose and f"ImageNet is worth {72.1 - 67.5:.1f} points to I3D" in prose
    assert f"$\\ln 6 = {np.log(6):.2f}$" in prose and f"$\\ln 2 = {np.log(2):.2f}$" in prose


def test_the_verdicts_of_lesson_03_say_what_its_records_say():
    """For any number of seeds from three on: what the prose says of every run holds for every run."""
    prose = prose_of("03_r2plus1d")
    c8, c9, c10, tiny = (records(name, "cpu") for name in ("C8", "C9", "C10", "tiny"))

    blind = by_seed(tiny, "D", "pair_accuracy", convolutions="fr2d")
    assert set(blind) == {0.5} and "exactly half of the clips, in every run: it must be." in prose
    eight, sixteen = (by_seed(c8, "D", "pair_accuracy", frames=frames) for frames in (None, 16))
    assert min(len(blind), len(eight), len(sixteen)) >= 3
    assert f"is right in {100 * min(eight):.0f} % or more with every seed" in prose
    assert f"they lie between {100 * min(sixteen):.0f} and {100 * max(sixteen):.0f} %" in prose
    assert max(sixteen) > min(eight) and "neither show nor refute" in prose

    whole, split = {"convolutions": "r3d", "depths": None}, {"convolutions": "r2plus1d", "middle_relu": None}
    straight, deeper = {"middle_relu": False}, {"depths": "(2, 2, 2, 2)"}
    behind = paired(c9, "D", training_loss, whole, split)[:5]
    assert (
        [more > 0 for more in behind].count(True) == 4 and len(behind) == 5 and "four of the first five seeds" in prose
    )
    assert interval(behind).low < 0 < interval(behind).high and "the difference holds zero" in prose
    faster = paired(c9, "D", training_loss, split, straight)[:3]
    assert len(faster) == 3 and max(faster) < 0 and "than with them, with each of the first three seeds" in prose
    nearly, slower = (paired(c9, "D", training_loss, whole, arm)[:3] for arm in (straight, deeper))
    assert np.mean(nearly) < np.mean(behind) / 2 and "nearly as fast as R3D" in prose
    assert len(slower) == 3 and min(slower) > 0 and "is slower than R3D with each of the first three seeds" in prose
    sizes = [matching(c9, "D", **arm)[0]["parameters"] for arm in (whole, split, straight, deeper)]
    assert max(sizes) / min(sizes) < 1.04, "equal parameters"
    relus = [
        sum(isinstance(part, (torch.nn.ReLU, Block)) for part in net.modules())  # a block has one after its sum
        for net in (
            build("r2plus1d_tiny", convolutions="r3d", depths=(2, 2, 2, 2), width=8),
            build("r2plus1d_tiny", convolutions="r2plus1d"),
        )
    ]
    more = 100 * (sizes[3] / sizes[1] - 1)
    assert f"about as many ReLUs ({relus[0]} for {relus[1]}) and parameters ({more:.0f} % more)" in prose
    assert "with about as many ReLUs as R(2+1)D" in prose
    assert build("r2plus1d_tiny").conv1.conv.space.out_channels == 8 and "the middle of conv1 with 8" in prose

    def moved(run: dict) -> float:
        return (run["pairs"]["push right"] + run["pairs"]["lower"]) / 2

    early, late = ([{"convolutions": row, "way": way} for way in WAYS] for row in ("mc3", "rmc3"))
    near = paired(c10, "D", moved, early[0], late[0])
    assert len(near) >= 3 and min(near) > 0 and interval(near).low > 0
    assert "ahead in pushing and lowering with every seed, and the interval stays above zero" in prose
    far = [min(map(moved, matching(c10, "D", **arm))) for arm in (early[-1], late[-1])]
    assert far[0] > 0.8 and far[1] > 0.98 and "in more than 80 %, `rmc3` in more than 98 %" in prose
    lower = paired(c10, "D", training_loss, early[-1], late[-1])
    assert len(lower) >= 2 and max(lower) < 0 and "that of `rmc3` is the lower one with every seed" in prose
    sizes = [matching(c10, "D", **arm)[0]["parameters"] for arm in (early[0], late[0])]
    assert f"`rmc3` has {sizes[1] / sizes[0]:.1f} times as many parameters" in prose


def reach_by_hand(row: str, blocks: int) -> list[int]:
    """Frames that a unit sees after each group; conv3 to conv5 stride by 2 in time if they convolve over it."""
    reach, apart, found = 1, 1, []
    for group, kind in enumerate(CONVOLUTIONS[row]):
        for first in [True] if group == 0 else [True] + [False] * (2 * blocks - 1):
            reach += 0 if kind == "2d" else 2 * apart
            apart *= 2 if first and group >= 2 and kind != "2d" else 1
        found.append(reach)
    return found


def test_the_verdict_of_lesson_06_says_what_its_records_and_networks_say():
    (path,) = (path for path in NOTEBOOKS if path.stem == "06_timesformer")
    prose = " ".join(" ".join(cell.source.split()) for cell in read(path).cells if cell.cell_type == "markdown")
    found = records("C1", "cpu")

    def percent(set_name: str, measure: str, attention: str) -> list[float]:
        return [100 * value for value in by_seed(found, set_name, measure, attention=attention)]

    def span(values: list[float]) -> str:
        return f"{min(values):.0f} to {max(values):.0f} %"

    pairs = {name: percent("M", "pair_accuracy", name) for name in ("space", "divided", "joint")}
    assert pairs["space"] == [50.0] * 3 and "in exactly half of the clips, in every run" in prose
    assert f"right in {span(pairs['divided'])}, joint attention in {span(pairs['joint'])}" in prose
    on_a = {name: percent("A", "accuracy", name) for name in ("space", "divided", "joint")}
    behind = [y - x for x, y in zip(on_a["space"], on_a["divided"], strict=True)]
    assert f"lies {-np.mean(behind):.0f} points behind, an interval that includes zero" in prose
    assert interval(behind).low < 0 < interval(behind).high
    level = interval([y - x for x, y in zip(on_a["space"], on_a["joint"], strict=True)])
    assert -5 < level.low < 0 < level.high < 5 and "Joint attention is as good as space-only attention" in prose
    assert "by an interval within 5 points of zero on both sides" in prose
    assert f"but reaches {-interval(behind).low:.0f} points down: whether it is as good cannot be told" in prose
    ahead = [
        interval([y - x for x, y in zip(pairs["space"], pairs[name], strict=True)]) for name in ("divided", "joint")
    ]
    assert min(one.low for one in ahead) > 0 and "the claim holds on M, where order decides" in prose
    assert interval(behind).high < 5 and "On A no gain is seen; for divided attention it cannot be told" in prose
    blind = np.mean(percent("M", "accuracy", "space"))
    assert f"the {blind:.0f} % of space-only attention on M" in prose
    sizes = {name: sum(p.numel() for p in build("timesformer_tiny", attention=name).parameters()) for name in on_a}
    assert f"a network of {sizes['divided'] / 1e6:.2f} M parameters" in prose
    assert f"but for the {sizes['joint'] - sizes['space']} of its time code" in prose


def test_lesson_06_reads_off_the_tables_of_the_paper_what_order_is_worth():
    prose = prose_of("06_timesformer")
    kinds, codes = PAPER_CLAIMS["C1"].published, PAPER_CLAIMS["C5"].published
    k400, ssv2 = (
        {kind: float(pair[i]) for kind, *pair in re.findall(r"(\w+) (\d+\.\d) / (\d+\.\d)", kinds)} for i in (0, 1)
    )
    blind, sees = (re.search(rf"{code} (\d+\.\d) / (\d+\.\d)", codes).groups() for code in ("space", "space and time"))
    assert f"with codes for places only {blind[1]} % on Something-Something, with codes for space and time" in prose
    assert f"with codes for space and time {sees[1]} %; on Kinetics {blind[0]} % and {sees[0]} %" in prose
    assert f"{ssv2['space']} % is far above chance for 174 classes" in prose and ssv2["divided"] == float(sees[1])
    assert f"blind to order too (exercise 6), reaches {blind[1]} % (table 4)" in prose
    gap, order = ssv2["divided"] - ssv2["space"], ssv2["divided"] - float(blind[1])
    assert f"So of the other {gap:.0f} points about {gap - order:.0f} need comparing frames in any order" in prose
    assert f"and {order:.0f} need their order" in prose and f"*space* falls {gap:.0f} points behind" in prose
    three = [k400[kind] for kind in ("space", "joint", "divided")]
    assert max(three) - min(three) < 1.15 and "lie within about one point of each other" in prose


def prose_of(stem: str) -> str:
    (path,) = (path for path in NOTEBOOKS if path.stem == stem)
    return " ".join(" ".join(cell.source.split()) for cell in read(path).cells if cell.cell_type == "markdown")


def test_the_numbers_that_lesson_04_names_are_those_of_the_library():
    prose = prose_of("04_slowfast")

    def counted(name: str = "slowfast_r50_4x16", **changes: object):
        with torch.device("meta"):
            net = build(name, size=256, **changes)
        return cost(net, (1, 3, *net.config.clip))

    both, fast = counted(), counted("fast_r50")
    assert 0.18 < fast.macs / both.macs < 0.2 and "Nearly a fifth" in prose
    assert f"of nine parts the fast path would have one, {100 / 9:.0f} %" in prose
    assert f"{fast.macs / 1e9:.1f} G here and 6.4 G there" in prose and "34.2 less 27.3 is 6.9" in prose
    assert f"we count {fast.macs / 1e9:.1f} and {fast.parameters / 1e6:.2f}" in prose
    odd = [counted(beta=beta).macs / 1e9 for beta in (6, 12)]
    assert f"we count {odd[0]:.1f} and {odd[1]:.1f} G" in prose
    assert f"For 1/4 we count {54.5 - counted(beta=4).macs / 1e9:.1f} G less than the paper" in prose
    assert build("slowfast_r50_4x16", beta=32).paths["fast"].stem.conv.weight.shape[0] == 2
    assert "With $\\beta = 1/32$ the stem of the fast path has two channels" in prose

    held = slow_frames(32, 8).tolist()
    windows = [[f for f in range(8 * t - 2, 8 * t + 3) if 0 <= f < 32] for t in range(4)]
    assert f"for 32 frames and $\\alpha = 8$: {', '.join(map(str, held))}, and not 0, 8, 16, 24" in prose.replace(
        "For 32", "for 32"
    )
    assert f"the last unit holds frame {held[-1]} and is told of frames {windows[-1][0]} to {windows[-1][-1]}" in prose
    assert f"a single `t_conv` hands {sum(map(len, windows))} to the slow path, `t_sample` 4" in prose

    tiny = {"paths": ("slow",)}, {"paths": ("fast",)}
    sizes = [
        sum(p.numel() for p in build("slowfast_tiny", classes=6, alpha=8, beta=8, **one).parameters()) for one in tiny
    ]
    assert f"with {sizes[1]:,} parameters against {sizes[0]:,}".replace(",", " ") in prose
    net = build("slowfast_tiny", alpha=8, beta=8)
    stems = [net.paths[path].stem.conv.weight.shape[0] for path in ("slow", "fast")]
    assert stems == [16, 2] and "16 channels in the stem of the slow path and two in that of the fast path" in prose
    assert slow_frames(16, 8).tolist() == [0, 15] and "from the first frame to the last it goes about *half*" in prose


def test_the_verdicts_of_lesson_04_say_what_its_records_say():
    prose = prose_of("04_slowfast")
    arms = {
        "both": {"alpha": 8, "paths": None, "start": None},
        "slow": {"alpha": 8, "paths": "('slow',)"},
        "fast": {"alpha": 8, "paths": "('fast',)"},
    }
    found = same_seeds(records("C17", "cpu"), "D", arms.values())

    def percent(measure: str) -> dict[str, np.ndarray]:
        return {name: 100 * np.array(by_seed(found, "D", measure, **arm)) for name, arm in arms.items()}

    right, pair = percent("accuracy"), percent("pair_accuracy")
    assert len(right["both"]) >= 2
    for alone in ("slow", "fast"):
        assert interval((right["both"] - right[alone]).tolist()).low > 0
    assert "the interval of the difference to each lies above zero" in prose
    assert 60 < right["both"].mean() < 73
    assert "they name the class of about two thirds of the clips in the mean" in prose
    assert (right["both"] - right["slow"]).mean() > 20 and "by more than 20 points in the mean" in prose
    assert (abs(pair["slow"] - 50) < 3).all() and "right within the pair in half of the clips" in prose
    assert (pair["fast"] > 60).all() and (pair["fast"] < 72).all() and "the way in about two of three clips" in prose
    assert right["fast"].mean() < right["slow"].mean() + 5
    assert "names the class of no more clips than the slow path does" in prose
    # who names the other class of the right pair is wrong within it, and a coin does so as often as it is right
    assert (right["fast"] + 100 - pair["fast"] < 2 * right["slow"]).all() and "but less often what happens" in prose

    runs = records("C17", "cpu")
    poor = paired(runs, "L", "accuracy", arms["slow"], arms["fast"])
    assert len(poor) >= 3 and max(poor) < -0.24 and interval(poor).high < -0.1
    (path,) = (path for path in NOTEBOOKS if path.stem == "04_slowfast")
    said, by = "".join(said_by(cell) for cell in code(read(path))), interval([100 * more for more in poor])
    shown = f"{by.mean:+.1f} points ({by.low:.1f} to {by.high:.1f}), {len(poor)} seeds"
    assert f"L: fast minus slow alone {shown}" in said and "far below zero (under the tables)" in prose
    assert "dozens of points behind the slow one, in the run above and in every recorded one" in prose
    more = interval(paired(runs, "L", "accuracy", arms["slow"], arms["both"]))
    assert (
        more.low < 0 < more.mean < 0.1 and "ahead of the slow one by a few points, an interval that holds zero" in prose
    )
    drawn, after = (dict(start=f"fast_{way}") for way in ("as_drawn", "after_d"))
    for score in ("accuracy", "pair_accuracy"):
        lifted = paired(runs, "D", score, arms["slow"], drawn)
        assert len(lifted) >= 3 and interval(lifted).low > 0
        assert min(paired(runs, "D", score, arms["both"], after)) > 0
        assert (
            min(paired(runs, "D", score, drawn, after)) > 0 and min(paired(runs, "D", score, drawn, arms["both"])) > 0
        )
    assert "lifts the slow path, by an interval above zero. Nobody taught it motion" in prose
    assert "*after it learned* D, in 200 steps of its own, serves the slow path as well as" in prose
    assert "serves the slow path as well as one that learns along: no run of it is behind" in prose
    assert "learned features are better than random ones, with every seed" in prose

    every = records("C18", "cpu")
    assert (abs(100 * np.array(by_seed(every, "D", "pair_accuracy", join="none")) - 50) < 3).all()
    assert "the slow path stays at a coin's 50 %" in prose
    for kind in JOINS[1:]:
        lifted = paired(every, "D", "pair_accuracy", dict(join="none"), dict(join=kind))
        assert len(lifted) >= 5 and interval(lifted).low > 0
    apart = {}
    for one, other in combinations(JOINS[1:], 2):
        more = paired(every, "D", "pair_accuracy", dict(join=other), dict(join=one))
        found_apart = interval(more)
        if not found_apart.low < 0 < found_apart.high:
            apart[one, other] = [100 * by for by in more]
    ((who, by_seeds),) = apart.items()
    by, ten = interval(by_seeds), t_quantile(len(by_seeds) - 1, 1 - 0.05 / 10) / t_quantile(len(by_seeds) - 1)
    assert who == ("ttoc_concat", "t_sample") and min(by_seeds) > 0 and by.mean - ten * (by.mean - by.low) > 0
    said = f"`{who[0]}` is ahead of `{who[1]}` with every seed, by {by.mean:.1f} points ({by.low:.1f} to {by.high:.1f})"
    assert f"One pair is told apart: {said}, the other way round than in the paper" in prose
    assert "all ten pairs of the table; an interval widened for ten looks leaves zero out as well" in prose
    assert len(list(combinations(JOINS, 2))) == 10
    assert "All four forms lift it, each by an interval above zero" in prose
    assert "no form differs from it by an interval that leaves zero out" in prose
    assert {run["profile"]["steps"] for run in [*found, *every]} == {200}


def test_what_lesson_04_reads_from_its_tables_stands_in_them():
    (path,) = (path for path in NOTEBOOKS if path.stem == "04_slowfast")
    prose, tables = prose_of("04_slowfast"), stored_tables(path)

    def percent(row: dict[str, str]) -> dict[str, float]:
        return {head: float(value.removesuffix("%")) for head, value in row.items() if value.endswith("%")}

    (rows,) = (rows for rows in tables if "your network" in rows[0])
    within = [percent(row) for row in rows if "within the pair" in row["test clips of D"]]
    assert len(within) == 3
    for row in within:
        assert row["your network"] > 95 and abs(row["slow path alone"] - 50) < 5
    (rows,) = (rows for rows in tables if "L, top-1 %" in rows[0])
    by_seeds = {row.pop("L, top-1 %"): [float(value) for value in row.values()] for row in rows}
    ((slow, fast),) = zip(*by_seeds.values(), strict=True)
    assert list(by_seeds) == ["slow alone", "fast alone"] and slow - fast > 24
    (rows,) = (rows for rows in tables if "cut in your network (D)" in rows[0])
    left = {row["cut in your network (D)"]: percent(row) for row in rows}
    assert left["fast path to head"]["within the pair"] > left["nothing"]["within the pair"] - 1
    assert abs(left["all four joins"]["within the pair"] - 50) < 5
    assert all(left[f"the join after {name}"]["within the pair"] > 95 for name in ("stem", "res2", "res3", "res4"))
    said = "".join(said_by(cell) for cell in code(read(path)))
    (shares,) = re.findall(r"slow path, per cent of its gradient by frame: (.*)", said)
    by_frame = [int(share) for share in shares.split()]
    assert 60 < sum(by_frame[1:-1]) < 72 and "two thirds of its gradient lie on frames that it does not hold" in prose
    assert by_frame[13:15] == [0, 0]
    adds = re.search(r"slow path adds ([\d.]+) and fast path adds ([\d.]+)", path.read_text()).groups()
    assert float(adds[0]) > 10 * float(adds[1]) and "The slow path adds nearly all of the score" in prose


def test_what_is_pushed_or_lowered_on_d_goes_about_half_of_its_way_around():
    """Lesson 04: from the first to the last frame, so that two frames do not tell which way."""
    u, corners = np.linspace(0, 1, 2), np.stack(np.meshgrid([0, 1], [0, 1])).reshape(2, -1).T
    for law in EVEN[:2]:
        for size, far in corners:
            (track,) = tracks(law, u, np.array([size, 0.5, far, 0.5, 0.5, 0.5, 0.5, 0.5]), EASY)
            went = max(abs(np.diff(track.x)[0]), abs(np.diff(track.y)[0]))
            assert 0.4 < went / breadth(track.radius[0]) < 0.6


def test_the_numbers_that_lesson_05_names_are_those_of_the_library():
    prose = prose_of("05_vtn")

    def counted(name: str, frames: int, **changes: object):
        with torch.device("meta"):
            net = build(name, **changes)
        return cost(net, (1, 3, frames, 224, 224)), cost(net.backbone, (1, 3, frames, 224, 224))

    (whole, images), (view, view_images) = counted("vtn_vit_b", 250), counted("vtn_vit_b", 16)
    assert f"All but {100 * (1 - images.macs / whole.macs):.2f} % goes into looking at the frames" in prose
    assert f"ViT-B, {whole.macs / 1e9:.0f} against 4218 G" in prose
    assert f"with them it is {whole.macs / 1e9:.0f} G" in prose
    inside = 250 * 12 * 2 * 197**2 * 768
    assert f"of 12 blocks of each frame: {inside / 1e9:.0f} G" in prose
    assert "30 views of 16 frames are 480 frames, the video has 250" in prose and 30 * 16 == 480
    assert 30 * view.macs / whole.macs == pytest.approx(480 / 250, rel=0.002)

    # The published 30 views: frames as the published pass costs them, tokens filled up to twice the window.
    encoder, frame = view.macs - view_images.macs, (4218e9 - (whole.macs - images.macs)) / 250
    for window, published in ((18, 8113), (32, 8134)):
        tokens = -(-17 // (2 * window)) * 2 * window
        assert 30 * (16 * frame + encoder * tokens / 17) / 1e9 == pytest.approx(published, abs=1.5)
    assert "With windows of 18 that makes 36" in prose and "it would be 64 tokens and 8134 G" in prose

    band, frames = Band(9), 250
    pairs = int(torch.nn.functional.pad(band.mask((frames,)), (1, 0, 1, 0), value=True).sum())
    assert f"for 250 frames and a window of 18 it is {pairs}" in prose
    share = 100 * pairs / (frames + 1) ** 2
    assert f"that is {share:.0f} % of the {(frames + 1) ** 2:,} pairs".replace(",", " ") in prose
    assert "saves nine tenths" in prose and 0.9 < 1 - share / 100 < 0.95
    assert "for one layer with a window of 18 it is 19" in prose and band.mask((50,))[25].sum() == 19
    assert "55" not in prose and "a good two seconds of it" in prose and 2 < (3 * 18 + 1) / 25 < 2.3
    tiny = build("vtn_tiny")
    assert "2 layers over time and windows of 8, on 8 frames of 64 pixels, over an image transformer of 64" in prose
    assert (tiny.config.depth, tiny.config.window, tiny.config.frames, tiny.config.size) == (2, 8, 8, 64)
    assert tiny.backbone.dim == 64 and "An equal share would be 11 %: one of nine tokens" in prose


def test_the_verdicts_of_lesson_05_say_what_its_records_say():
    prose, tiny, runs = prose_of("05_vtn"), records("tiny", "cpu"), records("C4", "cpu")
    vtn = [run for run in tiny if run["arm"]["network"] == "vtn_tiny"]
    assert by_seed(vtn, "D", "pair_accuracy", positions="none") == [0.5] * 3
    assert "without codes is right within the pair in exactly half of the clips, in every run" in prose
    learned = [100 * right for right in by_seed(vtn, "D", "pair_accuracy", positions=None)]
    assert len(learned) >= 3 and min(learned) > 97 and "it is right in nearly all, in every run of 1500" in prose
    assert {run["profile"]["steps"] for run in vtn if run["arm"]["set_name"] == "D"} == {1500}
    longer = [100 * top for top in by_seed(vtn, "L", "accuracy", positions=None)]
    assert f"After 250 steps the network with codes has {min(longer):.0f} to {max(longer):.0f} %" in prose
    assert all(run["profile"]["peak_lr"] == 7e-4 for run in vtn if run["arm"]["set_name"] == "D")
    assert "at 7e-4, as here, it learned all three pairs from all three" in prose
    tried = (DATA / "results" / "tiny" / "README.md").read_text()
    quieter = [line.strip("| ").split(" | ") for line in tried.splitlines() if "VTN" in line and " 0.5 |" in line]
    (first, *_, a, b, c), (second, *_, d, e, f) = quieter
    assert (first, second) == ("VTN", "VTN, Xavier, time code 0.5")
    assert "400 x 32" in quieter[0] and "600" in quieter[1]
    assert f"{a}, {b} and {c} % of the three pairs after 400 steps, {d}, {e} and {f} % after 600" in prose

    scores = {
        (run["arm"]["set_name"], run["arm"]["changes"]["positions"], run["arm"].get("trained_on"), run["seed"]): run[
            "scores"
        ]
        for run in runs
    }
    seeds = [seed for *arm, seed in scores if arm == ["L", "learned", None] and ("L", "none", None, seed) in scores]
    ahead = interval(
        [scores["L", "none", None, s]["accuracy"] - scores["L", "learned", None, s]["accuracy"] for s in seeds]
    )
    assert len(seeds) >= 5 and ahead.low > 0
    assert "ahead after 150 steps, with every seed and by an interval above zero" in prose
    assert all(scores["L", "none", None, s]["accuracy"] > scores["L", "learned", None, s]["accuracy"] for s in seeds)
    for code in ("learned", "none"):
        arms = (dict(positions=code, trained_on=way) for way in (None, "shuffled_frames"))
        mixed = paired(runs, "L", "accuracy", *arms)
        assert len(mixed) >= 5 and -0.055 < interval(mixed).low < 0 < interval(mixed).high < 0.055
    assert "both intervals hold zero and reach no further than 5 points" in prose
    pairs = [
        (scores[set_name, code, None, seed], score, set_name)
        for (set_name, code, way, seed), score in scores.items()
        if way == "shuffled_frames" and (set_name, code, None, seed) in scores
    ]
    changes = [after["accuracy"] - before["accuracy"] for before, after, set_name in pairs if set_name == "L"]
    assert min(changes) < 0 < max(changes) and max(map(abs, changes)) < 0.05
    assert "is now a little better, now a little worse than its twin, with codes and without" in prose
    mixed = [after["pair_accuracy"] for _, after, set_name in pairs if set_name == "D"]
    assert len(mixed) == 1 and "it removes the answer, by argument and in the one run recorded" in prose
    assert all(0.42 < right < 0.58 for right in mixed) and "within the pair it stays about half right" in prose
    for name in ("L", "D"):
        assert any(set_name == name for *_, set_name in pairs)

    short = records("C20", "cpu")
    for start, length in (("single_frames", 1), ("pairs_of_frames", 2)):
        for what in ("pair_accuracy", f"views_of_{length}_pair_accuracy"):
            assert all(0.42 < right < 0.58 for right in by_seed(short, "D", what, start=start))
    assert "this network has not found directions at all after 1300 steps" in prose
    looks = interval(
        [
            whole - views
            for whole, views in zip(
                *(by_seed(short, "L", what, start="pairs_of_frames") for what in ("accuracy", "views_of_2_accuracy")),
                strict=True,
            )
        ]
    )
    assert -0.01 < looks.low < 0 < looks.high < 0.01
    assert "the whole interval of the difference lies within one point of zero" in prose


def test_the_numbers_that_lesson_08_names_are_those_of_the_library():
    """Numbers in prose: each is counted here, and its sentence is in the notebook."""
    prose = prose_of("08_vidtr")

    def made(kind: str, t: int, **changes: Any):
        with torch.device("meta"):
            return build("vidtr_s_8x224", attention=kind, frames=t, **changes)

    def kept(kind: str, t: int, written_out: bool, dropout: float) -> float:
        return kept_for_backward(made(kind, t, dropout=dropout), (1, 3, t, 224, 224), written_out) / 1e9

    times = [kept("joint", t, True, 0.1) / kept("separable", t, True, 0.1) for t in (8, 16, 32)]
    said = "2.4 times what separable attention keeps at 8 frames, 4.5 times at 16, 8.5 times at 32"
    assert [round(each, 1) for each in times] == [2.4, 4.5, 8.5] and said in prose
    counted = PAPER_CLAIMS["C31"].counted
    assert "keeps 2.4 times as much" in counted and "at 8 frames and 8.5 times at 32" in counted
    apart, joint = (kept(kind, 8, True, 0.1) for kind in ("separable", "joint"))
    assert f"keeps the {apart:.1f} GB of the paper's table, our joint one {joint:.1f} GB where" in prose
    fused = [kept("joint", t, False, 0.0) / kept("separable", t, False, 0.0) for t in (8, 32)]
    assert 0.64 < fused[0] < fused[1] < 0.76 and "keeps two thirds to three quarters of what separable" in prose
    assert kept("joint", 8, False, 0.1) > kept("joint", 8, True, 0.1) and "kernel of a CPU knows no dropout" in prose
    assert f"8 frames of 196 patches: {4 * 144 * (1 + 8 * 196) ** 2:,}".replace(",", " ") in prose

    costs = {kind: cost(made(kind, 8), (1, 3, 8, 224, 224)) for kind in ("joint", "separable")}
    joint, separable = (round(costs[kind].macs / 1e9) for kind in ("joint", "separable"))
    assert f"counted whole, they are {joint} and {separable} G" in prose
    mlps = 12 * 2 * 768 * 3072  # for one token
    alone = [t * 196 * (mlps + 768**2) / 1e9 for t in (8, 16, 32)]
    assert [giga - printed for giga, printed in zip(alone, (89, 179, 351), strict=True)] == pytest.approx(
        [0.7, 0.4, 7.8], abs=0.05
    )
    assert f"over `t` times 196 patches: {alone[0]:.1f} and {alone[1]:.1f} G" in prose
    assert f"At 32 frames it does not fit, {alone[2]:.1f} G against 351" in prose
    assert (
        f"with the class tokens, which that leaves out, the MLPs of S alone are {9 * 197 * mlps / 1e9:.1f} G" in prose
    )
    more = cost(made("separable", 8, separate=True), (1, 3, 8, 224, 224)).parameters - costs["separable"].parameters
    assert f"what the {more / 1e6:.0f} M more parameters are worth" in prose
    full, tiny = configure("vidtr_s_8x224"), configure("cvidtr_tiny", frames=16, pools=((1, 4),))
    assert (full.heads, full.dim // full.heads) == (12, 64) and "have 12, of 64 features each" in prose
    assert "after the attention along time of its second block: from 16 frames to 4" in prose
    assert tiny.frames_after == (16, 4, 4, 4, 4) and SHOWN == 4
    compact = configure("cvidtr_s_8x224")
    assert [block for block, _ in compact.pools] == [1, 3, 5] and "blocks 1, 3 and 5 (counted from 0)" in prose
    assert [tau for _, tau in compact.pools] == [6, 4, 2] and "8 frames, then 6, 4 and 2" in prose
    said = "".join(output.get("text", "") for cell in code(read(NOTEBOOKS[0].parent / "08_vidtr.ipynb"))
                   for output in cell.outputs)  # fmt: skip
    assert re.search(r"patch +along time 3 of 15 tokens, both steps 15", said)


def test_the_verdicts_of_lesson_08_say_what_its_records_say():
    prose, runs = prose_of("08_vidtr"), records("C31", "cpu")
    behind = paired(runs, "L", "accuracy", dict(attention="joint"), dict(attention="separable"))
    assert len(behind) >= 3 and max(behind) < 0 and interval(behind).high < 0
    assert {run["profile"]["steps"] for run in runs} == {200}
    assert "after 200 steps separable attention is behind here, in every run and by an interval below zero" in prose
    longer = matching(records("tiny", "cpu"), "L", network="vidtr_tiny")
    tops = [100 * run["scores"]["accuracy"] for run in longer]
    assert {run["profile"]["steps"] for run in longer} == {400} and {run["arm"]["changes"] == {} for run in longer}
    assert f"it reached {min(tops):.0f} to {max(tops):.0f} % in other runs" in prose

    runs = records("C32", "cpu")
    rules = {
        "topK_std": dict(start=None, pool=None),
        "lot": dict(start="random_rows"),
        "oracle": dict(start="event_frames"),
        "average": dict(pool="average"),
    }
    more = interval(by_seed(runs, "L", "events_vary_more", **rules["topK_std"]))
    assert more.high < 0.5 and "in fewer than half of all cases, by an interval that ends below one half" in prose
    by_lot = by_seed(runs, "L", "events_kept", **rules["lot"])
    assert len(by_lot) >= 5 and all(0.24 < share < 0.26 for share in by_lot) and "which keeps a quarter" in prose
    for score, other in (("events_kept", "lot"), ("accuracy", "lot"), ("accuracy", "average")):
        apart = interval(paired(runs, "L", score, rules[other], rules["topK_std"]))
        assert apart.low < 0 < apart.high and (other == "average" or apart.mean > 0)
    assert "keeps few more telling frames than the lot" in prose and "So has that from the average" in prose
    tops = by_seed(runs, "L", "accuracy", **rules["topK_std"])
    assert max(tops) - min(tops) > 0.24 and "differ from seed to seed by dozens of points" in prose
    assert (
        min(by_seed(runs, "L", "accuracy", **rules["oracle"])) > 0.895
        and "names 90 % or more, with every seed" in prose
    )
    assert set(by_seed(runs, "L", "events_kept", **rules["oracle"])) == {1.0}


def test_what_lesson_08_reads_from_its_tables_stands_in_them():
    (path,) = (path for path in NOTEBOOKS if path.stem == "08_vidtr")
    tables = stored_tables(path)
    (found,) = (rows for rows in tables if "telling frames that stay" in rows[0] and "top-1" in rows[0])
    told = {
        rule: float(top.removesuffix("%")) for rule, top in ((next(iter(row.values())), row["top-1"]) for row in found)
    }
    assert told["told by the pixels"] > told["your rule"] + 30, "which frames stay matters, and there is much to win"
    (rows,) = (rows for rows in tables if "filler" in rows[0] and "telling frames" in rows[0])
    wide, looked = ([float(row[kind]) for row in rows] for kind in ("telling frames", "filler"))
    assert wide[0] < looked[0], "the premise wants the first line larger at the left"
    said = "".join(output.get("text", "") for cell in code(read(path)) for output in cell.outputs)
    (turned,) = re.findall(r"(\d+)% of the answers change by reversal", said)
    assert int(turned) > 85, "your network learns directions"


def test_the_numbers_that_lesson_09_names_are_those_of_the_library():
    prose, base = prose_of("09_mvit"), configure("mvit_b_16x4")

    def counted(name: str = "mvit_b_16x4", **changes: object) -> tuple[float, float]:
        with torch.device("meta"):
            net = build(name, **changes)
        found = cost(net, (1, 3, *net.config.clip))
        return found.parameters / 1e6, found.macs / 1e9

    first = base.scales[0]
    _, rows, columns = base.pool(first.stride).axes(first.grid)
    held = float(rows.any(0).float().mean() * columns.any(0).float().mean())
    assert held == pytest.approx(1 / 8, abs=0.01) and "Seven eighths of the tokens of scale 1 are in no key" in prose
    assert {base.pool(scale.stride).shrink(scale.grid)[1:] for scale in base.scales} == {(7, 7)}
    assert "seven by seven at every scale" in prose
    tokens, keys = first.grid.size, base.pool(first.stride).shrink(first.grid).size
    spaced = f"{tokens:,}".replace(",", " ")
    assert f"{spaced} tokens of {first.dim} numbers. A ViT has {8 * 14 * 14} tokens of 768" in prose
    assert f"a matrix of {spaced} x {keys}" in prose
    assert "15 x 111 x 111 rows" in prose and [2 * n - 1 for n in first.grid] == [15, 111, 111]
    pooled, unpooled = counted(), counted(stride=1)
    assert f"2 and 1 needs {pooled[1]:.1f} G multiply-adds" in prose
    block = 2 * (tokens + 1) ** 2 * first.dim / 1e9
    assert f"We count {unpooled[1]:.0f} G, and block 1 accounts for {block:.0f} G of them" in prose
    assert f"fill {4 * (tokens + 1) ** 2 / 2**20 / 1000:.1f} GB for a single clip" in prose and block > pooled[1]
    small = counted("mvitv2_s_16x4")
    assert f"({small[0]:.1f} against {pooled[0]:.1f} M parameters) and cheaper" in prose
    assert f"({small[1]:.0f} against {pooled[1]:.0f} G)" in prose
    taken: dict[str, Any] = {}
    steps = [pooled[1]]
    for setting, value in V2.items():
        taken[setting] = value
        steps.append(counted(**taken)[1])
    gains = np.diff(steps)
    assert gains[:3].min() > -0.01 and gains[3] < -5 and "positions and residual, cost a little" in prose
    vit = [counted(frames=8, positions=kind, **VIT)[0] for kind in ("joint", "separate")]
    assert f"comes out at {vit[0]:.1f} M" in prose and f"(separate ones would make {vit[1]:.1f} M)" in prose
    assert f"builds {counted('mvitv2_l_40x3')[0]:.1f} M" in prose
    assert f"52.9 against {counted('mvit_b24_32x3')[0]:.1f} M" in prose
    assert f"{counted('mvit_b24_32x3', classes=174)[0]:.1f} is the count with the 174 classes" in prose
    assert {base.pool(scale.stride).kernel.t for scale in base.scales} == {3}  # pooled by the maximum it would be 1
    assert {configure("mvit_b_16x4", kernel=None).pool(scale.stride).kernel.t for scale in base.scales} == {1}
    assert "in our MViT pooling kernels reach over three steps more" in prose

    tiny = configure("mvitv2_tiny")
    (early, *_, late), blocks = tiny.scales, sum(tiny.depths)
    shape = f"{blocks} blocks at three scales, from {early.grid.size} tokens of {early.dim} numbers"
    assert f"{shape} to {late.grid.size} of {late.dim}" in prose and len(tiny.scales) == 3
    ours, *others = (RECIPES[name][1].steps for name in ("mvitv2_tiny", "timesformer_tiny", "vivit_tiny", "vidtr_tiny"))
    assert min(others) == 5 * ours and "took at least five times as many" in prose and "after 200 steps" in prose
    grids = [layer.keys.grid for layer in layer_masks(build("mvitv2_tiny")) if layer.kind == "attention"]
    assert [grid.h * grid.w for grid in grids] == [16, 64, 16, 64, 16]
    assert "In block 1 there are 16 at each time" in prose and "there are 64 for one block" in prose


def test_the_verdicts_of_lesson_09_say_what_its_records_say():
    prose, runs = prose_of("09_mvit"), records("C3", "cpu")
    cubes = {"ViT": "(1, 16, 16)", "ViT on cubes": "(3, 16, 16)", "MViT": None, "no kernel": "(1, 7, 7)"}
    arms = {name: dict(cube=cube, trained_on=None) for name, cube in cubes.items()}

    def lost(run: dict[str, Any]) -> float:
        return run["scores"]["accuracy"] - run["scores"]["shuffled_accuracy"]

    means = [100 * np.mean(by_seed(runs, "L", "accuracy", **arm)) for arm in arms.values()]
    span = f"between {min(means):.0f} and {max(means):.0f} % of the clips in order, in the mean"
    assert span in prose
    found = {name: interval(by_seed(runs, "L", lost, **arm)) for name, arm in arms.items()}
    assert found["MViT"].low > 0 and "MViT loses by shuffling, by an interval above zero" in prose
    assert found["ViT"].low > -0.02 and found["ViT"].high < 0.02 and "within 2 points of zero" in prose
    assert found["ViT on cubes"].low > 0 and "and it loses too, by an interval above zero" in prose
    assert found["no kernel"].low < 0 and "with the seeds 0 to 2 its loss cannot be told from none" in prose
    more = interval(paired(runs, "L", lost, arms["no kernel"], arms["MViT"]))
    assert more.low > 0 and "that of the whole MViT is larger, seed by seed, by an interval above zero" in prose
    both = {name: matching(runs, "L", **arms[name] | dict(trained_on="shuffled_frames")) for name in ("ViT", "MViT")}
    assert (
        all(run["scores"]["accuracy"] > 0.95 for run in both["ViT"]) and "the plain ViT is as good as before" in prose
    )
    less = paired(runs, "L", "accuracy", arms["MViT"], arms["MViT"] | dict(trained_on="shuffled_frames"))
    assert max(less) < 0 and all(lost(run) >= 0 for run in both["MViT"])
    assert "MViT learns less, seed by seed, and is still no worse on films in order" in prose
    assert not matching(runs, "L", cube=cubes["no kernel"], trained_on="shuffled_frames")
    assert "MViT without a kernel over time, was never trained on shuffled frames" in prose

    runs = records("C34", "cpu")
    pool = {kind: dict(pooling=kind) for kind in ("conv", "max", "average", "average_norm")}
    conv, most = (
        paired(runs, "D", "pair_accuracy", pool[less_of], pool[more_of])
        for more_of, less_of in (("conv", "max"), ("max", "average"))
    )
    assert len(conv) >= 5 and min(conv) > 0 and interval(conv).low > 0
    assert "Conv is ahead of max within the pair with every seed, by an interval above zero" in prose
    assert len(most) >= 3 and min(most) > 0 and interval(most).low < 0
    assert "Max is ahead of average with each of the seeds that both have" in prose
    normed = interval(paired(runs, "D", "pair_accuracy", pool["average"], pool["average_norm"]))
    assert normed.high < 0.01 and "the mean with conv's norm is no better than the mean without" in prose


def test_the_memory_of_a_notebook_is_that_of_its_own_kernel_whatever_ran_before(tmp_path, monkeypatch):
    minutes = tmp_path / "minutes.json"
    monkeypatch.setattr("course_lib.notebooks.MINUTES", minutes)
    for name in ("COURSE_PROFILE", "COURSE_CLIPS", "COURSE_KINETICS"):
        monkeypatch.setenv(name, "")  # what running a notebook sets is put back
    for name, code in (("large", "held = bytearray(400 * 2**20)"), ("small", "held = 1")):
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
        execute(path, PROFILES["smoke"])
        assert [cell.source for cell in read(path).cells] == [code]
    large, small = (json.loads(minutes.read_text())[name]["smoke"]["memory_gb"] for name in ("large", "small"))
    assert large > small + 0.3, (large, small)


def stored_tables(path: Path) -> list[list[dict[str, str]]]:
    """The Markdown tables that a notebook stores: a row as what stands under each head."""
    found = []
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            lines = [
                [part.strip() for part in line.strip("| ").split(" | ")]
                for line in output.get("data", {}).get("text/markdown", "").splitlines()
                if line.startswith("| ")
            ]
            if lines:
                found.append([dict(zip(lines[0], line, strict=False)) for line in lines[2:]])
    return found


def test_what_lesson_00_reads_from_its_tables_stands_in_them():
    (path,) = (path for path in NOTEBOOKS if path.stem == "00_clips")
    tables = stored_tables(path)
    (scores,) = (rows for rows in tables if "right pair" in rows[0])
    (by_pair,) = (rows for rows in tables if "can start anywhere" in rows[0])

    def score(set_name: str, sees: str, what: str) -> float:
        (row,) = (row for row in scores if (row["set"], row["sees"]) == (set_name, sees))
        return float(row[what].removesuffix("%"))

    first, averaged, order = (score("A", sees, "accuracy") for sees in ("first frame", "averaged", "in order"))
    assert first > 3 * 12.5, "one frame is far above chance"
    assert averaged > first + 20 and abs(order - averaged) < 5, "eight votes are much better, order brings nothing"
    assert score("M", "averaged", "right pair") > 70 and score("M", "averaged", "right within the pair") == 50
    assert score("M", "in order", "answer turns into the partner's when reversed") > 70
    assert [row["averaged"] for row in by_pair] == ["50%"] * len(LAWS)
    for row, law in zip(by_pair, LAWS, strict=True):
        assert (row["can start anywhere"] == "yes") == law.even
        for sees in ("first frame", "in order"):
            right = float(row[sees].removesuffix("%"))
            assert 35 < right < 65 if law.even else right > 85, (row, sees)


def test_lesson_06_tells_how_far_attention_in_space_got_on_directions():
    (path,) = (path for path in NOTEBOOKS if path.stem == "06_timesformer")
    (rows,) = (rows for rows in stored_tables(path) if "your network" in rows[0])
    found = {row["test clips of D"]: row for row in rows}
    blind = {what: float(row["attention in space"].removesuffix("%")) for what, row in found.items()}
    assert blind["loss at the end"] == pytest.approx(np.log(2), abs=0.1) and 42 < blind["top-1"] <= 50
    within = [what for what in found if "within the pair" in what]
    assert len(within) == 3 and {blind[what] for what in within} == {50.0}
    assert all(float(found[what]["your network"].removesuffix("%")) > 90 for what in within)


def test_lesson_06_says_which_dial_hides_a_motion_as_recorded():
    prose = prose_of("06_timesformer")
    runs = [run for run in records("tiny", "cpu") + records("dials", "cpu") if run["seed"] == 0]
    pairs, left = (by_dial(runs, DIALS, TURNED, measure) for measure in (right_in_pair, left_plateau))
    assert "half a pixel a frame" in prose and min(DIALS["way"]) * 64 / 7 == pytest.approx(0.457, abs=0.001)
    for network in TURNED:
        way = dict(sorted(pairs["way"][network]))
        assert way[min(way)] < 0.9 and way[max(way)] == 1.0, "leaves both networks short of an answer"
        assert min(right for dial in DIALS if dial != "way" for _, right in pairs[dial][network]) > 0.99
    steps = [step for _, step in sorted(left["way"]["vivit_tiny"])]
    assert steps == sorted(steps, reverse=True), "the larger its steps, the sooner the transformer is done"
    (easy,) = {step for setting, step in left["way"]["vivit_tiny"] if setting == EASY.way}
    alone = [step for dial in DIALS if dial != "way" for _, step in left[dial]["vivit_tiny"]]
    assert max(alone) < 1.3 * easy, "change little when they come alone"
    (full,) = (r for r in runs if r["profile"]["difficulty"] == asdict(FULL) and r["arm"]["network"] == "vivit_tiny")
    assert 1.7 < left_plateau(full) / easy < 2 and "after nearly twice as many steps" in prose
    assert [name for name, value in asdict(EASY).items() if value != getattr(FULL, name)] == [
        "texture", "shapes", "way", "turn", "wheel",
    ]  # fmt: skip
    assert "five dials" in prose and "M has patterns and all eight kinds" in prose and FULL.shapes == len(KINDS) == 8
    assert (EASY.texture, EASY.shapes, EASY.wheel, FULL.way, FULL.turn) == (0, 1, True, 1, 1)
    assert f"D has way {EASY.way}, turn {EASY.turn}, a plain disc, and a large wheel for what turns" in prose
    assert FULL.way > EASY.way and "on M things travel further than on D" in prose
    assert (len(LAWS), len(EVEN)) == (8, 3) and "M itself asks for eight pairs in place of three" in prose
    for law, values, unit, said in (
        (rightwards, "x", 1, (0.95, 1.25)),
        (clockwise, "angle", 180 / np.pi, (100, 160)),
    ):
        ways = [np.ptp(getattr(law(np.linspace(0, 1, 2), np.full(8, c))[0], values)) * unit for c in (0.0, 1.0)]
        assert ways == pytest.approx(said, abs=0.5 if unit > 1 else 1e-9)
    assert "0.95 to 1.25 widths of the picture and 100 to 160 degrees" in prose


@pytest.mark.timeout(600)
def test_the_nonlocal_network_that_is_trained_is_the_learners_with_their_blocks_and_stamp(after_run_all):
    stem, notebook, run = after_run_all
    if stem != "02_nonlocal":
        pytest.skip("no non-local block is written there")
    (made,) = (cell for cell in code(notebook) if "answered(MyNonLocalNet" in cell.source)
    trainings = [cell for cell in code(notebook) if "study(" in cell.source and 'name="02-' in cell.source]
    assert len(trainings) == 4 and "the network: the library's, until your answer is right" in said_by(trainings[0])
    for exercise, answer in zip(tagged(notebook, "exercise"), solutions(notebook), strict=True):
        run(answer, exercise)
    for cell in code(notebook):  # the checks, and the cell between two of them that builds the stages
        if "check" in cell.metadata.get("tags", []) or "def tells_when" in cell.source or cell is made:
            run(cell.source, cell)
    for cell, name in zip(trainings, ("blind", "yours", "told", "products"), strict=True):
        kinds = f"{{type(part).__name__ for part in {name}.modules()}} & {{'MyNonLocal', 'NonLocal'}}"
        again = run(f"{cell.source}\nprint('trained:', type({name}).__name__, {kinds})", cell)
        assert "the network: yours" in said_by(again) and "6 steps in" in said_by(again)
        assert "trained: MyNonLocalNet {'MyNonLocal'}" in said_by(again)
    assert "yours" in said_by(run("print(stamp is stamped and 'yours')"))
    (asked,) = (cell for cell in code(notebook) if "verdict_6 =" in cell.source)
    stamps = "def stamped(clip):  # in place\n    clip += torch.linspace(0, {}, clip.shape[2])[:, None, None]\n"
    for most, says in ((3, "up to 3 is added; 2 is the most allowed"), (2, "every frame has a stamp of its own")):
        assert says in verdict(run(f"{stamps.format(most)}    return clip\n{asked.source}", asked))
    (explorer,) = (cell for cell in code(notebook) if "def explorer_of" in cell.source)
    run(explorer.source, explorer)  # their weights, in a network whose affinities can be recorded
    twins = run(
        "twin = NonLocalNet(yours.config).eval()\n"
        "copy_weights(yours.eval(), twin)\n"
        "x = to_clips(motion.clip(0)[None]).to(device)\n"
        "with torch.no_grad(): print((twin.to(device)(x) - yours(x)).abs().max().item())"
    )
    assert float(said_by(twins)) < 1e-4


def test_the_numbers_that_lesson_02_names_are_those_of_the_library():
    """Numbers in prose: each is counted here, and its sentence is in the notebook."""
    prose = prose_of("02_nonlocal")

    def counted(name: str, **changes: Any) -> Cost:
        with torch.device("meta"):
            return cost(build(name, **changes), (1, 3, 8, 224, 224))

    plain, blocks, i3d = (counted(name) for name in ("c2d_r101", "c2d_nl_r101", "i3d_r101"))
    assert f"ours has {plain.parameters / 1e6:.1f} M and {plain.macs / 1e9:.1f} G" in prose
    assert round(blocks.parameters / plain.parameters, 1) == round(blocks.macs / plain.macs, 1) == 1.2
    assert "The blocks cost what the paper says" in prose
    assert f"For I3D we count {i3d.macs / plain.macs:.2f} where the paper prints 1.5" in prose
    with torch.device("meta"):
        pooled, whole = (cost(NonLocal(512, pool_keys=pool), (1, 512, 4, 28, 28)).macs for pool in (True, False))
    assert f"`block_macs(4, 28, 28, 512, True)`, it is {pooled:,}".replace(",", " ") in prose.replace(",", " ")
    assert f"{pooled / 1e9:.1f} G in place of {whole / 1e9:.1f} G" in prose and pooled / whole == pytest.approx(
        1 / 3, abs=0.02
    )
    assert "In res2 a block compares 16 times as many pairs as in res3" in prose and (56 / 28) ** 4 == 16
    assert f"trains {counted('i3d_nl_r50_8x8').parameters / 1e6:.0f} M parameters on a laptop" in prose
    tiny = configure("nonlocal_tiny")
    assert f"{sum(tiny.depths)} blocks of a few features, on clips of {tiny.size} pixels" in prose
    with torch.device("meta"):
        net = build("i3d_r50_8x8")
    layers, heard = layer_masks(net), []
    for stage in ("res3", "res4"):
        tokens = [layer for layer in layers if layer.name.startswith(stage)][-1].queries
        middle = int(np.ravel_multi_index([n // 2 for n in tokens.grid], tokens.grid))
        heard.append([part.stop - part.start for part in tokens.box(middle)])
    assert heard == [[8, 91, 91], [8, 224, 224]]
    assert "hears of all frames soon, but of the whole *picture* only in res4" in prose


def test_lesson_02_tells_what_its_networks_reached():
    (path,) = (path for path in NOTEBOOKS if path.stem == "02_nonlocal")
    (rows,) = (rows for rows in stored_tables(path) if "C2D, stamped" in rows[0])
    within = {name: [float(row[name].removesuffix("%")) for row in rows] for name in ("C2D", "I3D", "C2D, stamped")}
    assert within["C2D"] == [50.0] * 3 and min(within["I3D"]) > 90
    assert "Exactly one half, and no training can change it" in prose_of("02_nonlocal")
    outputs = [output for cell in code(read(path)) for output in cell.outputs]
    said = " ".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    (on_batches,) = re.findall(r"02-c2d on set D: .*? the accuracy on the batch ([\d.]+)", said)
    assert 0.4 < float(on_batches) <= 0.5
    assert "has come near one half, the most that it can reach" in prose_of("02_nonlocal")
    told = "".join(output.get("text", "") for cell in code(read(path)) for output in cell.outputs)
    assert "C2D: 0% of the answers change by reversal" in told
    (right,) = re.findall(r"dot products, top-1 on L: ([\d.]+)%", told)
    assert float(right) > 90


def test_the_verdicts_of_lesson_02_say_what_the_runs_of_each_arm_say():
    prose = prose_of("02_nonlocal")
    none, uniform, softmax = dict(nonlocal_after=repr(NO_BLOCKS)), dict(affinity="uniform"), dict(affinity="softmax")
    runs = records("C13", "cpu")
    plain = paired(runs, "V", "accuracy", none, uniform)
    assert len(plain) >= 5 and min(plain) > 0 and interval(plain).low > 0
    assert "is ahead of no block with every seed, and the interval of the difference lies above zero" in prose
    more = interval(paired(runs, "V", "accuracy", uniform, softmax))
    assert -0.1 < more.low < -0.01 and 0.01 < more.high < 0.1
    assert "an interval of some points on both sides of zero" in prose
    for other in ("gaussian", "dot_product", "concatenation"):
        apart = paired(runs, "V", "accuracy", uniform, dict(affinity=other))
        assert len(apart) >= 3 and interval(apart).low < 0 < interval(apart).high
        assert interval(apart).high - interval(apart).low > more.high - more.low
    assert "So have those of the other three affinities, which have fewer seeds and wider intervals" in prose

    runs = records("C16", "cpu")
    kinds = {"c2d": dict(network="nonlocal_tiny"), "i3d": dict(network="i3d")}
    gains = {kind: paired(runs, "V", "accuracy", none | of, softmax | of) for kind, of in kinds.items()}
    assert len(gains["c2d"]) == len(gains["i3d"]) >= 5 and min(gains["c2d"]) > 0 and interval(gains["c2d"]).low > 0
    assert "the blocks raise C2D with every seed, by an interval above zero" in prose
    raised = [gain > 0 for gain in gains["i3d"]].count(True)
    assert raised > len(gains["i3d"]) / 2 and interval(gains["i3d"]).low < 0 < interval(gains["i3d"]).high
    assert "They raise I3D in most of the runs, but by an interval that holds zero" in prose
    apart = interval([there - here for here, there in zip(gains["c2d"], gains["i3d"], strict=True)])
    assert apart.low < 0 < apart.high and "so does that of the difference between the two gains" in prose
    time = interval(paired(runs, "V", "accuracy", none | kinds["c2d"], none | kinds["i3d"]))
    assert time.low < 0 < time.high and "Convolutions over time alone show no gain on V" in prose
    twins = [by_seed(records("C13", "cpu"), "V", "accuracy", **arm) for arm in (none, softmax)]
    assert twins == [by_seed(runs, "V", "accuracy", **arm, **kinds["c2d"]) for arm in (none, softmax)]


def test_the_numbers_that_lesson_10_names_are_those_of_the_library():
    prose = prose_of("10_video_swin").replace("\u202f", " ")
    base, window, shift = (16, 56, 56), (8, 7, 7), (4, 3, 3)
    plain, moved = windows(*window), ShiftedWindows(window, shift)
    assert "the 392 of its window in place of 50 176" in prose and plain.members(base).shape == (128, 392)
    assert len(moved.group_of(base).unique()) == 243 and "243 for 128 above" in prose
    assert "they would cost nearly twice as much" in prose and 1.85 < 243 / 128 < 2
    rolled = moved.numbers(base).roll([-step for step in shift], (0, 1, 2)).flatten()[plain.members(base)]
    mixed = (rolled != rolled[:, :1]).any(dim=1)
    assert int(mixed.sum()) == 79 and "the last windows along each axis, 79 of 128 here" in prose
    left = (rolled[-1][:, None] == rolled[-1][None, :]).float().mean().item()
    assert left == pytest.approx(1 / 8, abs=0.01) and "and an eighth along all three" in prose
    with torch.device("meta"):
        net = build("video_swin_t_32x224")
    places = net.get_parameter("stages.stage1.0.attention.bias.table")[0].numel()
    assert f"A window of 392 tokens has {392**2:,} pairs, and {places} numbers".replace(",", " ") in prose.replace(
        ",", " "
    )
    assert "nobody trains 28 M parameters" in prose and round(cost(net, (1, 3, 2, 32, 32)).parameters / 1e6) == 28
    tiny = configure("video_swin_tiny")
    assert (tiny.frames, tuple(tiny.patch), tuple(tiny.window)) == (8, (2, 4, 4), (2, 4, 4))


def test_the_verdicts_of_lesson_10_say_what_the_first_five_seeds_say():
    prose = prose_of("10_video_swin")
    c36, c37 = ([run for run in records(name, "cpu") if run["seed"] < 5] for name in ("C36", "C37"))

    def within(found: list, **arm: Any) -> np.ndarray:
        return np.array(by_seed(found, "D", "pair_accuracy", **{"shown": None, **arm}))

    two, one, small = (repr(Grid(*box)) for box in ((2, 4, 4), (4, 4, 4), (2, 2, 2)))
    moving, still = (within(c37, window=two, shifted=shifted, start=None) for shifted in ("thw", "hw"))
    assert len(moving) == len(still) == 5
    whole = [0, 1, 3]  # the seeds with which both learned; with the others neither did
    assert all((one > 0.9)[whole].all() and not (one > 0.9)[[2, 4]].any() for one in (moving, still))
    assert "learn with the same seeds and are late with the same" in prose
    gain = interval(list(moving - still))
    assert gain.low < 0 < gain.high < 0.05 and "leaves no room for a gain of more than a few points" in prose

    joint, factorised = (within(c36, window=one, attention=kind) for kind in ("joint", "factorised"))
    wider = interval(list(joint - moving))
    assert wider.low < -0.1 and wider.high > 0.1
    assert "the interval of the difference holds zero, and is tens of points wide. What decides" in prose
    assert (joint > factorised).tolist().count(True) == 4 and "ahead with four of the first five seeds" in prose
    assert ((joint > 0.7).sum(), (factorised > 0.7).sum()) == (3, 1)
    assert "it got far from chance in three of these runs, factorised attention in one" in prose
    gain = interval(list(factorised - joint))
    assert gain.low < -0.1 and gain.high > 0 and "holds zero all the same, and is tens of points wide" in prose
    for kind in ("joint", "factorised"):
        assert (within(c36, window=small, attention=kind) < 0.56).all()
    assert "Neither design learned in its one run" in prose

    tried = within(c37, shown="two_stills").tolist() + by_seed(c37, "G", "pair_accuracy")
    assert len(tried) >= 4 and all(0.45 < right < 0.55 for right in tried)
    assert "on two pictures and on G no network left chance" in prose
    assert within(c37, patch=repr(Grid(1, 16, 16))).max() < 0.55 and within(c37, start="symmetric_in_time").min() > 0.95
    assert "signs alone, with patches of one frame, had not left chance after 500 steps" in prose


def test_lesson_10_tells_what_its_networks_reached():
    (path,) = (path for path in NOTEBOOKS if path.stem == "10_video_swin")
    (rows,) = (rows for rows in stored_tables(path) if "mended" in rows[0])
    within = {name: [float(row[name].removesuffix("%")) for row in rows] for name in ("yours", "blind", "mended")}
    assert within["blind"] == [50.0] * 3 and min(within["yours"]) > 90 and min(within["mended"]) > 90
    assert "The patch is enough" in prose_of("10_video_swin")
    told = "".join(output.get("text", "") for cell in code(read(path)) for output in cell.outputs)
    assert "blind: 0% of the answers change by reversal" in told
    (film,) = re.findall(r"inflated, whole clips, never trained on one: ([\d.]+)%", told)
    assert float(film) > 80
    (turns,) = (rows for rows in stored_tables(path) if "change by reversal" in rows[0])
    changes = [float(row["change by reversal"]) for row in turns]
    assert changes[1] < 1e-6 and min(changes[:1] + changes[2:]) > 1e-3


def test_the_numbers_that_lesson_11_names_are_those_of_the_library():
    prose = prose_of("11_comparison")
    (path,) = (path for path in NOTEBOOKS if path.stem == "11_comparison")
    nets = {}
    with torch.device("meta"):
        for name, frames in (("timesformer_b_8x224", 8), ("video_swin_t_32x224", 32), ("slowfast_r50_8x8", 32)):
            nets[name] = build(name, frames=frames)
        joint = build("vivit_l_16x2_model1", frames=32)
    shape = {name: (1, 3, *net.config.clip) for name, net in nets.items()}
    time, swin, slow = (cost(net, shape[name]) for name, net in nets.items())
    kept = [kept_for_backward(nets[name], shape[name]) for name in ("timesformer_b_8x224", "video_swin_t_32x224")]
    assert 0.22 < swin.parameters / time.parameters < 0.27 and 1.9 < kept[1] / kept[0] < 2.2
    assert "Video Swin-T has a quarter of TimeSformer's and keeps twice as much" in prose
    with torch.device("meta"):
        apart = build("vidtr_s_8x224", dropout=0.0)
    fused_apart = kept_for_backward(apart, (1, 3, *apart.config.clip))
    (costs,) = (rows for rows in stored_tables(path) if "kept, GiB" in rows[0])
    gib = {row["network"]: row["kept, GiB"] for row in costs}
    assert gib["VidTr-S"] == f"{fused_apart / 2**30:.1f}" and gib["TimeSformer"] == f"{kept[0] / 2**30:.1f}"
    assert fused_apart < kept[0] and "so these two are counted with `dropout=0`, as in notebook 08" in prose
    timeless = [row["network"] for row in costs if row["s a clip"] == "-"]
    assert timeless == [row["network"] for row in costs if float(row["multiply-adds, G"]) > 300] and len(timeless) == 3
    assert "not of the three networks above 300 G multiply-adds" in prose
    assert (
        round(slow.macs / 1e9) == 50
        and "SlowFast is *tested* on crops of 256 pixels and printed so: 65.7 for our 50" in prose
    )
    tests = 3 * time.macs, 30 * slow.macs * (256 / 224) ** 2
    assert 0.28 < tests[0] / tests[1] < 0.35 and 3.6 < time.macs / slow.macs < 4.2
    assert "TimeSformer costs a third of it, although one of its views costs four times as much" in prose
    out, fused = (kept_for_backward(joint, (1, 3, *joint.config.clip), way) for way in (True, False))
    assert 0.7 < 1 - fused / out < 0.8 and "the weights are three quarters of what is kept" in prose
    assert 250 * 2 * 197**2 * 768 * 12 // 10**9 == 178  # of attention, which VTN's 4218 leaves out


def test_the_librarys_front_of_lesson_11_answers_its_own_exercise():
    (path,) = (path for path in NOTEBOOKS if path.stem == "11_comparison")
    (cell,) = (cell for cell in code(read(path)) if "def library_front" in cell.source)
    names: dict[str, Any] = {}
    exec(cell.source.split("price =")[0], names)
    line = {"a": (1, 50), "b": (2, 60), "c": (2, 55), "d": (3, 60), "e": (9, 61)}
    front = names["library_front"]
    assert front(line) == {"a", "b", "e"} and front({"x": (1, 1), "y": (1, 1)}) == {"x", "y"}


def test_what_lesson_11_says_of_tiny_networks_stands_in_their_records():
    prose, found = prose_of("11_comparison"), records("tiny", "cpu")
    top, seconds = {}, {}
    for network in RECIPES:
        runs = [run for run in found if run["arm"]["network"] == network and run["arm"]["set_name"] == "D"]
        runs = [run for run in runs if run["arm"]["changes"] == dict(SEES.get(network, ()))]
        top[network] = [run["scores"]["accuracy"] for run in runs]
        seconds[network] = np.mean([run["cpu_seconds"] for run in runs])
    assert min(map(np.mean, top.values())) > 0.98 and "all of them name 98 % or more of the clips in the mean" in prose
    on_l = [run["scores"]["accuracy"] for run in found if run["arm"]["set_name"] == "L"]
    assert min(on_l) > 0.9 and min(map(min, top.values())) > 0.9
    assert "on D and L all of these networks pass 90 %" in prose
    named, way = divided_on_the_hard_sets()
    assert f"of A's clips divided attention names {min(named):.0f} to {max(named):.0f} %, of M's" in prose
    assert f"right within the pair in {min(way):.0f} to {max(way):.0f} % (06)" in prose
    assert 2.5 < max(seconds.values()) / min(seconds.values()) < 3.5 and "apart by a factor of three" in prose
    blind = [run for run in found if (run["arm"]["network"], tuple(run["arm"]["changes"].items())) in set(BLIND)]
    assert {run["scores"]["pair_accuracy"] for run in blind if run["arm"]["set_name"] == "D"} == {0.5}
    assert "are right within the pair exactly half of the time, in every recorded run" in prose
    seeing = by_seed(records("C36", "cpu"), "D", "pair_accuracy", attention="factorised")
    assert min(seeing) < 0.52 and "and some do not in the steps that they were given (10)" in prose


def test_what_was_counted_stands_in_the_story_and_beside_all_claims_of_lesson_11():
    (path,) = (path for path in NOTEBOOKS if path.stem == "11_comparison")
    (story,) = (rows for rows in stored_tables(path) if "the story says" in rows[0])
    (beside,) = (rows for rows in stored_tables(path) if any(title.startswith("beside") for title in rows[0]))
    counted = {name: claim.counted for name, claim in PAPER_CLAIMS.items() if claim.counted}
    assert [tuple(row.values()) for row in beside] == [*counted.items()]
    rows = [[*row.values()] for row in story]  # a claim under the same sentence as the one above begins with its name
    told = {row[-3]: row[-1] for row in rows}
    assert all(text in told[name] for name, text in counted.items()) and told["C31"].startswith("cannot be told")
    (said,) = (row[0] for row in rows if row[1] == "C3")
    assert said == "Shuffled frames harm MViT and not ViT" and told["C3"] == "holds"
    prose = prose_of("11_comparison")
    assert "that MViT therefore *knows* time does not follow, since a plain ViT on cubes of three frames is" in prose


def test_the_verdict_of_lesson_11_on_c28_says_what_its_records_say():
    prose = prose_of("11_comparison")
    found = [run for run in records("C28", "cpu") if run["seed"] < 3]

    def runs(network: str, share: float) -> list[dict]:
        return matching(found, "D", network=network, share=share, steps=RECIPES[network][1].steps)

    def own(network: str, share: float, measure: str = "accuracy") -> list[float]:
        return [run["scores"][measure] for run in runs(network, share)]

    others = {name: own(name, 1 / 80) for name in ("vivit_tiny", "mvit_tiny", "video_swin_tiny")}
    least = own("i3d_tiny", 1 / 80)
    assert len(least) == 3 and min(map(min, others.values())) > max(least)
    gaps = {name: interval(list(np.subtract(values, least))) for name, values in others.items()}
    assert min(gap.low for gap in gaps.values()) > 0 and gaps["video_swin_tiny"].low > 0.2
    assert "each interval lies above zero; that of Video Swin begins above 20 points" in prose
    assert min(own("i3d_tiny", 1 / 80, "pair_accuracy")) >= 0.8 and "Within the pair even I3D is right in 80 %" in prose
    assert max(map(training_loss, runs("i3d_tiny", 1 / 80))) < 0.02 and "is next to nothing" in prose
    names = ("i3d_tiny", *others)
    assert min(value for name in names for value in own(name, 1 / 32)) > 0.9
    assert min(value for name in names for value in own(name, 1 / 8)) > 0.98
    assert "With 24 clips the convolutional network is the last of the four" in prose
    steps = {name: RECIPES[name][1].steps for name in names}
    assert {run["profile"]["steps"] for name in names for run in runs(name, 1 / 80)} == set(steps.values())
    assert steps["i3d_tiny"] == steps["mvit_tiny"] == 200 and "I3D and MViT have 200" in prose
    assert f"Video Swin {steps['video_swin_tiny']}, ViViT {steps['vivit_tiny']}." in prose
    longest = max(run["profile"]["steps"] for run in records("C28", "cpu") if run["arm"]["network"] == "i3d_tiny")
    assert longest == steps["video_swin_tiny"] and f"Nothing here matches ViViT's {steps['vivit_tiny']}" in prose
