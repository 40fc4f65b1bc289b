"""From a folder in the layout of Kinetics to a trained network: every part that real data pass through, in a row."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from course_lib.datasets import ClipDataset, kinetics
from course_lib.datasets.audit import audit_videos, audited, count, coverage
from course_lib.models import build
from course_lib.training.batches import loader
from course_lib.training.evaluate import accuracy, predict_views
from course_lib.training.loop import train
from course_lib.training.optim import TrainConfig
from course_lib.video import probe, read_frames
from course_lib.video.sampling import dense, views
from course_lib.video.transforms import EvalTransform, ToNetwork, TrainTransform

REAL = {"arm wrestling": "mma_demo.mp4", "flipping pancake": "decord_flipping_a_pancake.mkv"}
TRAIN, VAL, LENGTH = 6, 3, 30  # clips a class, frames a clip


def write_clip(path: Path, frames: np.ndarray) -> None:
    """As Kinetics clips are kept: H.264, 30 frames a second, the shorter side 64 here in place of 256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 64, 88, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(width=88, height=64)))
        container.mux(stream.encode())


def write_kinetics(root: Path, films: dict[str, np.ndarray]) -> Path:
    """CVDF's layout: {split}/{id}_{start}_{end}.mp4 and annotations/{split}.csv; each film is cut into clips."""
    for split, places in (("train", range(TRAIN)), ("val", range(TRAIN, TRAIN + VAL))):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for number, (name, film) in enumerate(films.items()):
            for place in places:
                clip = film[place * len(film) // (TRAIN + VAL) :][:LENGTH]
                write_clip(root / split / f"film{number:07d}_{place:06d}_{place + 1:06d}.mp4", clip)
                lines.append(f"{name},film{number:07d},{place},{place + 1},{split}")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return root


def drawn_films() -> dict[str, np.ndarray]:
    """Two films told apart by what is in them, for where the real ones are not at hand."""
    ramp = np.linspace(0, 180, 160).astype(np.uint8)
    film = np.empty((280, 120, 160, 3), np.uint8)
    for i, frame in enumerate(film):
        frame[:] = np.roll(ramp, 3 * i)[None, :, None]
    return {"arm wrestling": film, "flipping pancake": film[:, :, :, :1] // 2 + np.array([120, 20, 0], np.uint8)}


def real_films(folder: Path) -> dict[str, np.ndarray]:
    return {name: read_frames(folder / file, range(probe(folder / file).frames)) for name, file in REAL.items()}


def learn(root: Path, workers: int) -> tuple[list[float], float]:
    """Losses of the training steps, and accuracy on the validation clips in 3 x 3 views."""
    torch.manual_seed(0)
    lists = {}
    for split in ("train", "val"):
        listed = kinetics.read(root, split=split).keep(tuple(REAL))
        assert coverage(listed).missing == ()
        assert set(count(audit_videos(listed, root / "check.csv", workers=2, progress=False))) == {"ok"}
        lists[split], dropped = audited(listed, root / "check.csv")
        assert dropped == 0
    net = build("timesformer_tiny", classes=2, attention="divided", scratch=True)
    c = net.config
    transform = TrainTransform(c.size, (c.size, 72), flip=False, colours=None)
    dataset = ClipDataset(lists["train"], c.frames, partial(dense, stride=3), transform)
    batches = loader(dataset, batch=6, seed=0, workers=workers, prepare=ToNetwork(flip=dataset.flips))
    losses = [step.loss for step in train(net, batches, TrainConfig(steps=24, peak_lr=1e-3, warmup=6))]
    sample = partial(views, stride=3, clips=3)
    tested = ClipDataset(lists["val"], c.frames, sample, EvalTransform(c.size, c.size, crops=3), split="val")
    chances, labels = predict_views(net, DataLoader(tested, 2), at_once=9)
    return losses, accuracy(chances, labels)


@pytest.mark.parametrize("source", ["real clips", "drawn films"])
def test_a_network_learns_two_classes_of_kinetics_from_a_folder_in_its_layout(source, request, tmp_path):
    films = real_films(request.getfixturevalue("real_clips")) if source == "real clips" else drawn_films()
    losses, right = learn(write_kinetics(tmp_path, films), workers=1 if source == "real clips" else 0)
    assert np.mean(losses[-4:]) < 0.3 * np.mean(losses[:4])
    assert right == 1


def test_batches_from_real_files_go_on_in_the_middle_of_an_epoch_as_if_never_stopped(tmp_path):
    root = write_kinetics(tmp_path, drawn_films())
    videos = kinetics.read(root, split="train").keep(tuple(REAL))
    dataset = ClipDataset(videos, 4, partial(dense, stride=3), TrainTransform(32, (32, 40), colours=None))
    whole = list(islice(loader(dataset, batch=4, seed=5, workers=2)(0), 6))  # two epochs of three batches
    for step, workers in ((1, 0), (2, 1), (4, 2)):
        for expected, found in zip(whole[step:], loader(dataset, batch=4, seed=5, workers=workers)(step), strict=False):
            assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
    assert not torch.equal(whole[0][0], whole[3][0])
