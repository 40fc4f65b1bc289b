"""Right frames or a clear refusal, whatever the file."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import (
    CORNER,
    ENCODERS,
    FRAMES,
    HEIGHT,
    WIDTH,
    Recipe,
    assert_read_rightly,
    copy_packets,
    make,
    numbered,
    numbers,
    recipes,
    witness,
    write,
)

from course_lib.video import MachineError, VideoError, check, decode, demux, probe, read_frames, worker
from course_lib.video.demux import MACHINE, index_packets

OPEN = "open-gop=1"
REFRESH = "intra-refresh=1:bframes=0"


def hevc(open_gop: int) -> dict[str, str]:
    settings = f"keyint=10:min-keyint=10:scenecut=0:bframes=3:log-level=none:open-gop={open_gop}"
    return {"codec": "libx265", "x265-params": settings}


PLAIN = {  # packets are frames, and groups of pictures stand alone
    "closed.mp4": {"bf": "3"},
    "closed.mkv": {"bf": "3"},
    "closed.mov": {"bf": "3"},
    "fragments.mp4": {"bf": "3", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "every frame a key.mp4": {"g": "1", "x264": "keyint=1"},
    "one group.mp4": {"x264": "keyint=250"},
    "444, odd size.mp4": {"pixels": "yuv444p", "clip": numbered(FRAMES, 47, 63)},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "10"},
    "hevc.mp4": hevc(0),
    "ключ %03d.mp4": {},
}
TRICKY = {  # a reader that counts packets and jumps returns other frames here
    "open.mp4": {"bf": "3", "x264": OPEN},
    "open.mkv": {"bf": "3", "x264": OPEN},
    "hevc open.mp4": hevc(1),
    "refresh.mp4": {"x264": REFRESH},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "g": "10"},
    "mpeg4.mp4": {"codec": "mpeg4", "bf": "2", "g": "10"},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": "2", "g": "10"},
    "stream.ts": {"bf": "3"},
    "hevc stream.ts": hevc(0),
}
OTHERS = {
    "av1.mp4": {"codec": "libsvtav1", "svtav1-params": "lp=1"},
    "ten bits.mp4": {"pixels": "yuv420p10le"},
    "moving picture.gif": {"codec": "gif", "pixels": "rgb8"},
    "wmv.wmv": {"codec": "wmv2", "g": "10"},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx", "g": "10"},
}


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """video(name) writes a file of the tables above once and returns its path."""
    folder = tmp_path_factory.mktemp("videos")

    def make(name: str):
        path = folder / name
        return path if path.exists() else write(path, **(PLAIN | TRICKY | OTHERS)[name])

    return make


SHUFFLED = np.random.default_rng(0).integers(0, FRAMES, 20).tolist()


@pytest.mark.parametrize("name", [*PLAIN, *TRICKY, *OTHERS])
def test_every_frame_is_the_one_asked_for(name, video):
    path = video(name)
    for asked in (SHUFFLED, [FRAMES - 1], [31, 32, 33], list(range(FRAMES))):
        assert numbers(read_frames(path, asked)) == asked


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux alone tells")
def test_an_encoder_does_not_leave_the_tests_with_a_priority_above_all_others(tmp_path):
    before = os.sched_getscheduler(0)
    write(tmp_path / "film.mp4", **OTHERS["av1.mp4"])
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("name", [*PLAIN, *TRICKY, *OTHERS])
def test_probe_says_what_was_written(name, video):
    info = probe(video(name))
    size = (47, 63) if "odd" in name else (HEIGHT, WIDTH)
    assert (info.path, info.frames, info.height, info.width) == (video(name), FRAMES, *size)
    assert info.fps == pytest.approx(25)
    assert index_packets(video(name)).jumps == (name in PLAIN or name == "ten bits.mp4")


@pytest.mark.parametrize("name", TRICKY)
def test_decord_alone_shows_other_frames_of_such_files(name, video):
    decord = pytest.importorskip("decord")
    wrong = 0
    for i in range(0, FRAMES, 3):
        reader = decord.VideoReader(str(video(name)), num_threads=1)
        wrong += numbers(reader.get_batch([5, i]).asnumpy()) != [5, i]
    assert wrong, "decord reads it rightly now: it is not tricky any more"


@pytest.mark.parametrize("name", PLAIN)
def test_frames_are_those_of_decord_where_it_is_exact(name, video):
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(video(name)), num_threads=1)
    assert np.array_equal(read_frames(video(name), SHUFFLED), reader.get_batch(SHUFFLED).asnumpy())


@pytest.mark.parametrize("name", PLAIN)
def test_groups_decoded_alone_give_the_frames_of_decoding_all(name, video):
    index, draw = index_packets(video(name)), np.random.default_rng(1)
    every = decode._decode_from_start(index, np.arange(FRAMES))
    for count in (1, 2, 3, 8, FRAMES):
        for _ in range(4):
            wanted = np.sort(draw.choice(FRAMES, count, replace=False))
            assert np.array_equal(decode._decode_groups(index, wanted), every[wanted])


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_that_is_probed_and_read_is_opened_once_and_gives_the_same_bytes(name, video, monkeypatch):
    path, draw, opened, av_open = video(name), np.random.default_rng(2), [], av.open
    every = decode._decode_from_start(index_packets(path), np.arange(FRAMES))
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(args[0]) or av_open(*args, **options))
    for count in (1, 3, 8, FRAMES):
        wanted = draw.choice(FRAMES, count, replace=False).tolist()
        decode._index_once.cache_clear(), decode._probe_once.cache_clear(), opened.clear()
        assert decode.probe(path).frames == FRAMES
        assert np.array_equal(decode.read_frames(path, wanted), every[wanted])
        assert opened == [str(path)]
        assert np.array_equal(decode.read_frames(path, wanted), every[wanted])  # its packets were given away
        assert opened == [str(path)] * 2


def test_packets_of_a_large_file_are_not_kept(video, monkeypatch):
    monkeypatch.setattr(demux, "HELD", video("closed.mp4").stat().st_size // 2)
    film = demux.read_film(video("closed.mp4"))
    assert film.index.jumps and film.context is None and not film.packets


def test_pixels_are_those_that_were_written(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    path = write(tmp_path / "lossless.mp4", clip, codec="libx264rgb", pixels="rgb24", qp="0")
    assert np.array_equal(decode.read_frames(path, [4, 0, 4]), clip[[4, 0, 4]])


def test_a_frame_hidden_by_an_edit_list_is_not_counted(video, tmp_path):
    def seven_earlier(_, packet):
        shift = int(7 / 25 / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return packet

    path = copy_packets(video("closed.mp4"), tmp_path / "trimmed.mp4", seven_earlier)
    assert probe(path).frames == FRAMES - 7
    assert numbers(read_frames(path, [0, 20, FRAMES - 8])) == [7, 27, FRAMES - 1]


def test_a_picture_that_is_never_shown_is_not_counted(video, tmp_path):
    def hide_every_tenth(number, packet):
        if number % 10 != 5:
            return packet
        data = bytearray(bytes(packet))
        data[0] &= ~16  # VP8 (RFC 6386, 9.1): show_frame
        hidden = av.Packet(bytes(data))
        hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
        return hidden

    path = copy_packets(video("vp8.webm"), tmp_path / "hidden.webm", hide_every_tenth)
    shown = [i for i in range(FRAMES) if i % 10 != 5]
    assert probe(path).frames == len(shown)
    assert numbers(read_frames(path, [30, 4, 5])) == [shown[30], shown[4], shown[5]]


def test_a_file_that_begins_between_key_frames_begins_at_the_next_one(video, tmp_path):
    path = copy_packets(video("closed.mkv"), tmp_path / "late.mkv", lambda n, packet: packet if n > 6 else None)
    assert probe(path).frames == FRAMES - 10
    assert numbers(read_frames(path, [0, 11])) == [10, 21]


@pytest.mark.parametrize("quarters, corner", [(1, "upper right"), (2, "lower right"), (3, "lower left")])
@pytest.mark.parametrize("name", ["closed.mp4", "av1.mp4"])
def test_a_turned_video_is_shown_upright(name, quarters, corner, video, tmp_path):
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]  # clockwise
    data = bytearray(video(name).read_bytes())
    struct.pack_into(">4i", data, data.index(b"tkhd") + 44, cos << 16, sin << 16, 0, -sin << 16)
    struct.pack_into(">i", data, data.index(b"tkhd") + 60, cos << 16)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    info, frames = probe(path), read_frames(path, SHUFFLED)
    assert (info.height, info.width) == frames.shape[1:3] == ((HEIGHT, WIDTH) if quarters == 2 else (WIDTH, HEIGHT))
    upright = np.rot90(frames, quarters, axes=(1, 2))
    assert numbers(upright) == SHUFFLED
    assert upright[:, *CORNER].min() > 230 > upright[:, CORNER[0], WIDTH // 2 :].max(), corner


def test_one_frame_is_enough(tmp_path):
    for name, options in [("one.mp4", {}), ("one.gif", {"codec": "gif", "pixels": "rgb8"})]:
        path = write(tmp_path / name, numbered(1), **options)
        assert probe(path).frames == 1
        assert numbers(read_frames(path, [0, 0])) == [0, 0]


def test_a_colon_in_a_name_does_not_make_it_an_address(video, tmp_path, monkeypatch):
    (tmp_path / "clip:1.mp4").write_bytes(video("closed.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert numbers(read_frames("clip:1.mp4", [3])) == [3]
    assert str(probe("clip:1.mp4").path) == "clip:1.mp4"
    for call in (lambda: read_frames("clip:1.mp4", [99]), lambda: read_frames("no.mp4", [0])):
        with pytest.raises((ValueError, VideoError), match=r"^(clip:1|no)\.mp4: "):
            call()


def test_of_two_video_tracks_one_is_shown_throughout(tmp_path):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for scale, stream in zip((1, 2), streams, strict=True):
            stream.height, stream.width, stream.pix_fmt = scale * HEIGHT, scale * WIDTH, "yuv420p"
        for scale, stream in zip((1, 2), streams, strict=True):
            for frame in numbered(FRAMES, scale * HEIGHT, scale * WIDTH):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    info, frames = probe(path), read_frames(path, SHUFFLED)
    assert (info.frames, info.height, info.width) == (FRAMES, HEIGHT, WIDTH)
    assert frames.shape[1:3] == (HEIGHT, WIDTH)  # FFmpeg's rule: the default track, here the first
    assert numbers(frames) == SHUFFLED


def test_a_title_in_an_unknown_alphabet_is_no_obstacle(tmp_path):
    path = tmp_path / "titled.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "plain title"
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in numbered(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"plain title", b"\xff\xfeain title"))
    assert numbers(read_frames(path, [1])) == [1]


def test_a_list_of_addresses_does_not_reach_the_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        path = tmp_path / "far.m3u8"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/clip.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(VideoError, match="not a video"):
            read_frames(path, [0])
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("name", ["closed.mp4", "mpeg4.avi"])
@pytest.mark.parametrize("index", [FRAMES, 10**6, -1])
def test_an_index_out_of_range_is_named_with_the_file_and_its_length(name, index, video):
    for asked in ([index], [0, index, 1]):
        with pytest.raises(ValueError, match=f"frame {index} asked for.*{FRAMES} frames: use 0 to {FRAMES - 1}") as e:
            read_frames(video(name), asked)
        assert str(video(name)) in str(e.value)


def test_no_index_and_half_an_index_are_refused(video):
    with pytest.raises(ValueError, match="at least one"):
        read_frames(video("closed.mp4"), [])
    with pytest.raises(ValueError, match="whole numbers"):
        read_frames(video("closed.mp4"), np.array([0.5]))
    with pytest.raises(ValueError, match="whole numbers"):
        read_frames(video("closed.mp4"), np.array([[1]]))


def part(path, share: float) -> bytes:
    data = path.read_bytes()
    return data[: int(len(data) * share)]


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def packets(path) -> list[slice]:
    """Where each packet lies in the file."""
    with av.open(str(path)) as container:
        return [slice(packet.pos, packet.pos + packet.size) for packet in container.demux(video=0) if packet.size]


def garbled(path) -> bytes:
    data, place = bytearray(path.read_bytes()), packets(path)[20]
    data[place] = b"\x99" * len(data[place])
    return bytes(data)


def test_groups_without_a_wanted_frame_are_not_decoded(video, tmp_path):
    path = tmp_path / "garbled.mp4"
    path.write_bytes(garbled(video("closed.mp4")))  # frame 20, where the third of four groups begins
    assert numbers(read_frames(path, [5, 35])) == [5, 35]
    with pytest.raises(VideoError, match="damaged"):
        read_frames(path, [5, 25, 35])


def test_frames_that_no_other_refers_to_are_not_decoded_unless_wanted(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    whole, path, shown = write(tmp_path / "whole.mp4", clip, bf="3"), tmp_path / "spoilt.mp4", []
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        for packet in container.demux(video=0):
            head = (packet.pos or 0) + 4  # behind the length (ISO/IEC 14496-15)
            if packet.size and data[head] & 0x7F == 1:  # H.264, 7.3.1: a slice, nal_ref_idc 0
                shown.append(round(float(packet.pts * packet.time_base) * 25))
                place = slice(head + 40, packet.pos + packet.size)  # the head of the slice stays
                data[place] = b"\x99" * len(data[place])
    path.write_bytes(data)
    others = [i for i in range(FRAMES) if i not in shown]
    assert len(shown) > 10 and len(others) > 10
    for i in others:
        assert np.array_equal(read_frames(path, [i]), read_frames(whole, [i]))
    with pytest.raises(VideoError, match="damaged"):
        read_frames(path, [0, shown[5], FRAMES - 1])


BAD = {  # name: how to make it (bytes, or a call with the path), what the reason says
    "missing.mp4": (None, "no such file"),
    "folder.mp4": (lambda path, video: path.mkdir(), "not a file"),
    "pipe.mp4": (lambda path, video: os.mkfifo(path), "not a file"),
    "empty.mp4": (b"", "empty file"),
    "text.mp4": (b"this is no video\n" * 99, "not a video"),
    "text.txt": (b"this is no video\n" * 99, "not a video but text"),
    "noise.mp4": (np.random.default_rng(0).bytes(9999), "not a video"),
    "sound.mp4": (lambda path, video: write_sound(path), "no video stream, only audio"),
    "list.mp4": (b"ffconcat version 1.0\nfile closed.mp4\n", "list of other files"),
    "list.m3u8": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nstream.ts\n#EXT-X-ENDLIST\n", "not a video"),
    "no index.mp4": (lambda path, video: path.write_bytes(part(video("closed.mp4"), 0.6)), "cut short"),
    "garbled.mp4": (lambda path, video: path.write_bytes(garbled(video("closed.mp4"))), "damaged"),
    "garbled open.mp4": (lambda path, video: path.write_bytes(garbled(video("open.mp4"))), "damaged"),
}


@pytest.fixture
def bad(tmp_path, video):
    def make(name: str):
        path, (content, _) = tmp_path / name, BAD[name]
        for decoy in ("closed.mp4", "stream.ts"):  # what the lists point at
            (tmp_path / decoy).write_bytes(video(decoy).read_bytes())
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            content(path, video)
        return path

    return make


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_at_once_with_path_and_reason(name, bad):
    path, began = bad(name), time.perf_counter()
    with pytest.raises(VideoError) as refused:
        read_frames(path, [0, 25])
    assert time.perf_counter() - began < 55  # each waits for a decoder 60 s at most
    assert refused.value.path == path
    assert re.search(BAD[name][1], refused.value.reason)
    assert str(refused.value) == f"{path}: {refused.value.reason}"


@pytest.mark.parametrize("percent", [20, 50, 80, 95])
@pytest.mark.parametrize(
    "name", ["faststart.mp4", "fragments.mp4", "closed.mkv", "open.mkv", "vp9.webm", "moving picture.gif"]
)
def test_a_file_cut_short_is_refused(name, percent, video, tmp_path):
    if name == "faststart.mp4":
        whole = write(tmp_path / "whole.mp4", bf="3", muxer={"movflags": "faststart"})
    else:
        whole = video(name)
    path = tmp_path / name
    path.write_bytes(part(whole, percent / 100))
    for call in (lambda: read_frames(path, [0]), lambda: probe(path)):
        with pytest.raises(VideoError, match="cut short or damaged"):
            call()


@pytest.mark.parametrize("name", ["mpeg4.avi", "mjpeg.avi"])
def test_a_file_that_ends_within_a_picture_is_refused(name, video, tmp_path):
    place = packets(video(name))[20]
    path = tmp_path / name
    path.write_bytes(video(name).read_bytes()[: (place.start + place.stop) // 2])
    with pytest.raises(VideoError, match="cut short or damaged after 20 frames"):
        read_frames(path, [0])


def test_an_avi_that_lost_only_its_index_is_whole(video, tmp_path):
    data = video("mpeg4.avi").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: data.index(b"idx1")])
    assert numbers(read_frames(path, SHUFFLED)) == SHUFFLED


def test_frames_that_change_their_size_are_refused(tmp_path):
    small = write(tmp_path / "small.h264").read_bytes()
    large = write(tmp_path / "large.h264", numbered(FRAMES, 96, 128)).read_bytes()
    path = tmp_path / "both.h264"
    path.write_bytes(small + large)
    with pytest.raises(VideoError, match=r"change their size \[\(48, 64\), \(96, 128\)\]"):
        read_frames(path, [0, FRAMES])


@pytest.fixture
def own_worker():
    """A decoding process that the test may spoil; the next test gets another."""
    worker._kept.__dict__.clear()
    yield worker
    worker._kept.__dict__.clear()


def dies_of(sent: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next file is asked for while its decoder stands still, and the signal ends it before it answers."""
    ask = worker.DecodeWorker.ask

    def halted(self, request):
        for number in (signal.SIGSTOP, sent, signal.SIGCONT):
            os.kill(self.process.pid, number)
        monkeypatch.undo()
        return ask(self, request)

    monkeypatch.setattr(worker.DecodeWorker, "ask", halted)


@pytest.mark.parametrize("call", [probe, check, lambda path, seconds: read_frames(path, [0], seconds)])
def test_a_decoder_that_hangs_is_killed_and_the_next_file_is_read(call, video, own_worker):
    assert probe(video("closed.mp4")).frames == FRAMES
    hanging = own_worker._kept.worker.process
    os.kill(hanging.pid, signal.SIGSTOP)
    with pytest.raises(MachineError, match=r"no answer within 0\.3 s") as late:
        call(video("closed.mp4"), 0.3)
    assert late.value.path == video("closed.mp4")
    assert hanging.poll() == -signal.SIGKILL
    assert numbers(read_frames(video("closed.mp4"), [7])) == [7]


def test_a_decoder_that_crashes_costs_one_file_which_is_named(video, own_worker, monkeypatch):
    probe(video("closed.mp4"))
    dies_of(signal.SIGSEGV, monkeypatch)
    with pytest.raises(VideoError, match=r"the process that decoded it died \(SIGSEGV\)") as crash:
        read_frames(video("closed.mp4"), [0])
    assert type(crash.value) is VideoError and crash.value.path == video("closed.mp4")
    assert numbers(read_frames(video("closed.mp4"), [7])) == [7]


def test_a_decoding_process_that_died_between_two_files_is_no_loss(video, own_worker):
    probe(video("closed.mp4"))
    own_worker._kept.worker.process.kill()
    own_worker._kept.worker.process.wait()
    assert probe(video("closed.mp4")).frames == FRAMES


def test_a_decoding_process_is_renewed_before_it_has_lost_much_memory(video, own_worker, monkeypatch):
    monkeypatch.setattr(worker, "LONGEST", 3)
    processes = []
    for i in range(7):
        assert numbers(read_frames(video("closed.mp4"), [i])) == [i]
        processes.append(own_worker._kept.worker.process)
    assert len(dict.fromkeys(processes)) == 3 and processes[0] is processes[2] is not processes[3]
    assert processes[0].poll() is not None


def test_an_interrupted_reading_does_not_give_its_answer_to_the_next(video, own_worker, monkeypatch):
    receive = worker.DecodeWorker._receive

    def interrupted(self, size, until):
        raise KeyboardInterrupt

    probe(video("closed.mp4"))
    monkeypatch.setattr(worker.DecodeWorker, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_frames(video("closed.mp4"), [3])
    monkeypatch.setattr(worker.DecodeWorker, "_receive", receive)
    assert numbers(read_frames(video("closed.mp4"), [9])) == [9]


def test_a_decoding_process_ends_with_the_one_who_asked(video):
    program = f"""
import os, signal
from course_lib.video import worker, probe
probe({str(video("closed.mp4"))!r})
print(worker._kept.worker.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    gone = time.monotonic() + 60
    while Path(f"/proc/{asked.stdout.strip()}/fd").exists() and time.monotonic() < gone:
        time.sleep(0.05)
    state = Path(f"/proc/{asked.stdout.strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_decoding_process_that_hangs_ends_by_itself_though_nobody_waits_any_more():
    program = """
import time
from course_lib.video import worker, decode
decode.probe = lambda path: time.sleep(60)
worker.serve()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b'{"call": "probe", "path": "x.mp4", "seconds": 0.2, "arguments": {}}\n')
        process.stdin.flush()
        assert process.wait(timeout=300) == -signal.SIGALRM


def test_forked_processes_read_with_processes_of_their_own(video, own_worker):
    probe(video("closed.mp4"))
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        shown = pool.map(partial(read_frames, video("closed.mp4")), [[i] for i in range(20)])
    assert [numbers(frames) for frames in shown] == [[i] for i in range(20)]
    assert own_worker._kept.worker.process.poll() is None


def test_a_decoder_that_wants_too_much_memory_is_refused(video, own_worker, monkeypatch):
    monkeypatch.setattr(decode, "read_frames", lambda path, indices: np.empty(2**40, np.uint8))
    answer, content = worker._answer({"call": "read_frames", "path": "x.mp4", "arguments": {"indices": [0]}})
    assert "needs more than 8 GiB" in answer["refusal"] and not content


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_the_decoding_process_has_a_limit_of_memory(video, own_worker):
    import resource

    probe(video("closed.mp4"))
    soft, _ = resource.prlimit(own_worker._kept.worker.process.pid, resource.RLIMIT_AS)
    assert worker.MEMORY < soft < 2 * worker.MEMORY


def test_check_finds_what_is_wrong_with_a_file_and_nothing_else(video, bad):
    assert check(video("closed.mp4")) is None
    assert check(video("mpeg4.avi")) is None
    assert check(bad("text.mp4")).startswith(f"{bad('text.mp4')}: not a video")


def test_damage_in_the_middle_of_a_picture_is_patched_over_nowhere(video, tmp_path):
    data, place = bytearray(video("closed.mp4").read_bytes()), packets(video("closed.mp4"))[20]
    middle = (place.start + place.stop) // 2
    data[middle : middle + 8] = b"\x99" * 8
    path = tmp_path / "patched.mp4"
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged"):
        read_frames(path, [20])
    assert "damaged" in (check(path) or "")


# Time


def uneven(tmp_path, name: str, ticks: list[int]) -> Path:
    """Frame i is shown at ticks[i] / 25 seconds."""
    encoded = write(tmp_path / "even.mp4", numbered(len(ticks)), g="1", x264="keyint=1")

    def moved(number, packet):
        packet.pts = packet.dts = int(ticks[number] / 25 / packet.time_base)
        return packet

    return copy_packets(encoded, tmp_path / name, moved)


TICKS = [0, 1, 2, 3, 13, 23, 33, 34, 35, 36]  # a slide show between two ordinary passages


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_frames_of_a_video_without_a_steady_rate_are_found_by_their_time(name, tmp_path):
    info = probe(uneven(tmp_path, name, TICKS))
    assert info.times == pytest.approx([tick / 25 for tick in TICKS], abs=2e-3)
    assert info.fps == pytest.approx(9 / (36 / 25), rel=2e-3)  # 10 frames, 9 steps
    seconds = np.array([0.0, 0.1, 0.14, 0.5, 0.54, 1.3, 1.34, 9.0])
    assert info.at(seconds).tolist() == [0, 2, 3, 3, 4, 5, 6, 9]
    assert info.at(np.array([-1.0])).tolist() == [0]


@pytest.mark.parametrize("name", [*PLAIN, *TRICKY, *OTHERS])
def test_at_a_steady_rate_the_middle_of_each_frame_shows_that_frame(name, video):
    info = probe(video(name))
    assert info.at((np.arange(FRAMES) + 0.5) / info.fps).tolist() == list(range(FRAMES))


def claim_a_rate(path: Path, rate: Fraction, frames: int) -> Path:
    """A Matroska file that says `rate` (DefaultDuration) while its frames are 40 ms apart."""
    whole = write(path.with_name("whole.mkv"), numbered(frames), g="1", x264="keyint=1")
    said = (40_000_000).to_bytes(4)
    assert whole.read_bytes().count(b"\x23\xe3\x83\x84" + said) == 1  # RFC 9559, 5.1.4.1.13
    path.write_bytes(whole.read_bytes().replace(said, round(10**9 / rate).to_bytes(4)))
    return path


@pytest.mark.parametrize("percent", [-3.0, -0.9, -0.4, -0.1, 0.1, 0.4, 0.9, 3.0])
def test_ticks_and_frames_do_not_drift_apart_where_the_file_claims_another_rate(percent, tmp_path):
    frames = 600
    path = claim_a_rate(tmp_path / "claims.mkv", Fraction(25) * Fraction(1 + percent / 100), frames)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(25 * (1 + percent / 100), rel=2e-4)
    info = probe(path)
    assert info.fps == pytest.approx(25, rel=1e-5)
    assert info.at((np.arange(frames) + 0.5) / info.fps).tolist() == list(range(frames))


@pytest.mark.parametrize(("muxer", "rate"), [("mkv", "30000/1001"), ("webm", "24000/1001"), ("mp4", "30000/1001")])
def test_a_claimed_rate_stands_where_the_time_stamps_only_round_it(muxer, rate, tmp_path):
    codec = "libvpx-vp9" if muxer == "webm" else "libx264"
    info = probe(make(Recipe(codec, "yuv420p", muxer, 90, rate=Fraction(rate)), tmp_path))
    assert info.fps == pytest.approx(float(Fraction(rate)), rel=1e-7)
    assert info.at((np.arange(90) + 0.5) / info.fps).tolist() == list(range(90))


# Formats


@pytest.mark.parametrize("recipe", recipes(len(ENCODERS), seed=0), ids=lambda recipe: recipe.codec)
def test_any_frames_of_any_format_are_those_of_an_independent_decode(recipe, tmp_path):
    assert_read_rightly(recipe, tmp_path, seed=0)


# The machine


def test_a_file_that_may_not_be_read_is_no_verdict_on_it(video, tmp_path, monkeypatch):
    path = tmp_path / "secret.mp4"
    path.write_bytes(video("closed.mp4").read_bytes())

    def refuse(*args, **options):  # root may read whatever its mode says
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for call in (decode.probe, decode.check, lambda path: decode.read_frames(path, [0])):
        with pytest.raises(MachineError, match=r"cannot be read \(Permission denied\)"):
            call(path)


@pytest.mark.parametrize("number", sorted(MACHINE))
def test_what_the_system_refuses_to_ffmpeg_is_no_verdict_either(number, video, monkeypatch):
    def refuse(*args, **options):
        raise av.error.OSError(number, os.strerror(number))

    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr(demux, "_memory_left", lambda: False)
    with pytest.raises(MachineError, match=os.strerror(number)):
        index_packets(video("closed.mp4"))


def test_a_file_that_asks_for_absurd_memory_is_damaged(video, monkeypatch):
    def refuse(*args, **options):
        raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(VideoError, match="more memory than any video needs") as damaged:
        index_packets(video("closed.mp4"))
    assert type(damaged.value) is VideoError


def test_an_error_of_a_disk_is_told_from_a_cut_file(video, monkeypatch):
    def fail(*args, **options):
        raise av.error.OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(VideoError, match="cut short or damaged") as cut:
        index_packets(video("closed.mp4"))
    assert not isinstance(cut.value, MachineError)

    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda self, mode: Failing())
    with pytest.raises(MachineError, match="Input/output error"):
        index_packets(video("closed.mp4"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGUSR1])  # nohup lets SIGHUP do nothing
@pytest.mark.parametrize("call", [probe, check])
def test_a_decoder_that_is_killed_says_nothing_about_the_file(sent, call, video, own_worker, monkeypatch):
    probe(video("closed.mp4"))
    dies_of(sent, monkeypatch)
    with pytest.raises(MachineError, match=sent.name):
        call(video("closed.mp4"))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_decoder_answers_whatever_is_sent_to_all_processes_of_a_job(sent, video, own_worker):
    probe(video("closed.mp4"))
    process = own_worker._kept.worker.process
    assert os.getsid(process.pid) == process.pid != os.getsid(0), "so what goes to a whole group does not reach it"
    os.kill(process.pid, sent)
    assert check(video("closed.mp4")) is None and own_worker._kept.worker.process is process


def test_a_process_that_cannot_be_started_says_nothing_about_the_file(video, own_worker, monkeypatch):
    def refuse(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(MachineError, match="Too many open files"):
        check(video("closed.mp4"))


def test_a_full_disk_says_nothing_about_the_file(video, own_worker, tmp_path, monkeypatch):
    def full(path, **arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("course_lib.video.transcode.transcode", full)
    request = {"call": "transcode", "path": str(video("closed.mp4")), "arguments": {}}
    assert worker._answer(request)[0] == {"refusal": "cannot be read here (No space left on device)", "machine": True}


def test_pictures_larger_than_any_camera_makes_are_refused(tmp_path):
    path = tmp_path / "huge.mp4"
    whole = write(path, numbered(2)).read_bytes()
    monster = write(tmp_path / "monster.gif", np.zeros((1, 16, 16, 3), np.uint8), codec="gif", pixels="rgb8")
    data = bytearray(monster.read_bytes())
    struct.pack_into("<HH", data, 6, 65535, 65535)  # the logical screen (GIF89a, 18)
    monster.write_bytes(data)
    with pytest.raises(VideoError):
        read_frames(monster, [0])
    assert whole and probe(path).frames == 2


def test_an_error_keeps_path_and_reason_between_processes():
    for kind in (VideoError, MachineError):
        error = kind("a/b.mp4", "empty file")
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind and (copy.path, copy.reason, str(copy)) == (error.path, error.reason, str(error))
        again = kind(f"Caught {kind.__name__} in DataLoader worker\nx.{kind.__name__}: a/b.mp4: empty file\n")
        assert (again.path, again.reason) == (error.path, error.reason)


def test_reading_video_needs_no_torch():
    code = "import sys; from course_lib.video import probe; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


REAL = {  # name: frames, height, width as displayed; or the reason
    "cricket.gif": (79, 224, 224),
    "decord_corrupted.mp4": "damaged",
    "decord_flipping_a_pancake.mkv": (310, 240, 426),
    "decord_unordered.mov": (4, 50, 50),
    "decord_video_0.mov": (3, 320, 568),
    "decord_video_90.mov": (3, 568, 320),
    "decord_video_180.mov": (3, 320, 568),
    "decord_video_270.mov": (3, 568, 320),
    "k400_label_map.txt": "not a video but text",
    "mma_demo.mp4": (280, 256, 427),
    "mma_demo_spatiotemporal_det.mp4": (57, 256, 340),
    "mma_part_0.mp4": (32, 256, 455),
    "mma_test.avi": (164, 240, 320),
    "mma_test.mp4": (300, 256, 455),
    "mma_test_video_structuralize.mp4": (300, 240, 426),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_clip_is_read_or_refused_rightly(name, real_clips):
    path, expected = real_clips / name, REAL[name]
    if not path.exists():
        pytest.skip(f"no {name} among the real clips")
    if isinstance(expected, str):
        with pytest.raises(VideoError, match=expected):
            read_frames(path, list(range(probe(path).frames)))
        return
    info = probe(path)
    assert (info.frames, info.height, info.width) == expected
    asked = sorted({0, info.frames // 3, info.frames * 2 // 3, info.frames - 1}, reverse=True)
    times = [picture.pts for picture, _ in witness(path)]
    assert len(times) == info.frames
    if name != "mma_test.avi":  # AVI stores no times of showing
        assert times == sorted(times)
    wanted = [pixels for i, (_, pixels) in enumerate(witness(path)) if i in asked]
    assert np.array_equal(read_frames(path, asked), np.stack(wanted[::-1]))


PUBLIC = {  # frames, height, width of files from other projects' tests
    "discard_first_keyframe.mp4": (25, 64, 64),
    "h265_10bits.mp4": (30, 200, 200),
    "no_duration.webm": (74, 720, 1280),
    "realshort.mp4": (36, 240, 320),
    "test_non_zero_start.mp4": (12, 112, 200),
    "test_video_66x50.mov": (82, 50, 66),
    "testsrc2_odd_height_vp9.mp4": (25, 241, 320),
    "testsrc2_vp8.webm": (30, 720, 1280),
    "transparent.webm": (150, 200, 200),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_clip_gives_the_same_frames_however_they_are_asked_for(name, real_clips):
    path = real_clips / "public" / name
    if not path.exists():
        pytest.skip(f"no public/{name} among the real clips")
    info = probe(path)
    assert (info.frames, info.height, info.width) == PUBLIC[name] and check(path) is None
    asked = sorted({0, 1, info.frames // 2, info.frames - 1})
    expected = np.stack([pixels for i, (_, pixels) in enumerate(witness(path)) if i in asked])
    assert np.array_equal(read_frames(path, asked), expected)
    every = range(max(0, info.frames - 30), info.frames)
    assert np.array_equal(read_frames(path, every)[-1], expected[-1])
    for place, number in enumerate(asked):
        assert np.array_equal(read_frames(path, [number])[0], expected[place])
