"""From a video file to an array of frames: its packets (demux, container, bitstream), its pixels (decode, display) in a
process of its own (worker), which frames (sampling), a network's input (transforms), a smaller copy (transcode)."""

from course_lib.video.decode import VideoInfo
from course_lib.video.errors import MachineError, VideoError
from course_lib.video.worker import check, probe, read_frames

__all__ = ["MachineError", "VideoError", "VideoInfo", "check", "probe", "read_frames"]
