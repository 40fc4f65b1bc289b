"""Which videos there are and what they show: manifests, Kinetics, Something-Something v2; `ClipDataset` reads them."""

from course_lib.datasets.clips import ClipDataset
from course_lib.datasets.manifest import Video, VideoList, read_manifest

__all__ = ["ClipDataset", "Video", "VideoList", "read_manifest"]
