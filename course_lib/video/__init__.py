"""From a file to a clip: which frames (sample), their pixels (decode), a network's input (transforms), all in one
(dataset)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from course_lib.video.decode import VideoError, VideoInfo, check, probe, read_frames

if TYPE_CHECKING:
    from course_lib.video.dataset import ClipDataset

__all__ = ["ClipDataset", "VideoError", "VideoInfo", "check", "probe", "read_frames"]


def __getattr__(name: str) -> object:
    # Reading a file needs NumPy alone; PyTorch is loaded with the first data set.
    if name == "ClipDataset":
        from course_lib.video.dataset import ClipDataset

        return ClipDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
