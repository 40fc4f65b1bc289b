"""Whether decoding may begin at a key frame: what packets of H.264, HEVC and VP9 say before they are decoded.

A key frame forgets the pictures before it, but not all else. Parameter sets and supplemental enhancement information
(SEI) of an earlier packet stay in force: the version of x264 in the first packet changes how FFmpeg decodes old 4:4:4
files, and a parameter set may be sent once. So groups of pictures stand alone only if each brings the same of these.
"""

from __future__ import annotations

from collections.abc import Iterator

JUMPS = ("h264", "hevc", "vp9")  # codecs whose key frames can be fresh starts
SLICES = {"h264": range(1, 6), "hevc": range(32)}  # types of units (ITU-T H.264 table 7-1, H.265 table 7-1)
KEYS = {"h264": (5,), "hevc": range(16, 22)}  # slices of IDR pictures; of random access points
KEPT = {"h264": (7, 8, 13, 15), "hevc": (32, 33, 34, 36, 37)}  # parameter sets, the end of a sequence
SEI = {"h264": (6,), "hevc": (39, 40)}
# SEI that changes no pixel and says nothing about later pictures (H.274, H.264 annex D): buffering period, pan-scan,
# filler, captions, recovery point, stereo, active parameter sets, hash, time code, mastering display, light level.
# Picture timing (1) is not among them: whether FFmpeg calls a picture interlaced depends on the picture before.
HARMLESS_SEI = (0, 2, 3, 4, 6, 45, 129, 132, 136, 137, 144, 148)
USER_DATA, ORIENTATION = 5, 47
HIGH_444 = (44, 244)  # profiles
X264 = bytes.fromhex("dc45e9bde6d948b7962cd820d923eeef")  # the UUID of x264's user data


class GroupProof:
    """Fed with every packet in the order of the file; `alone` tells whether each group of pictures stands alone."""

    def __init__(self, codec: str, extradata: bytes | None):
        self.codec, self.alone, self.progressive = codec, codec in JUMPS, True
        self._sent = set(_header_units(codec, extradata or b""))
        self._length = _length_size(codec, extradata or b"")
        self._first: list[bytes] | None = None
        self._profiles = {extradata[1]} if codec == "h264" and self._length and extradata else set()
        self._examine_parameter_sets(self._sent)

    def add(self, packet: bytes, key: bool) -> bool:
        """Whether a key frame is what it claims to be; True for other packets."""
        if self.codec == "vp9":  # VP9 bitstream specification, 6.2: frame_marker, profile, show_existing, frame_type
            return not key or (len(packet) > 0 and packet[0] >> 6 == 2 and not packet[0] & 0b1100)
        if self.codec not in SEI:
            return True
        if not self._length:  # units not framed as in MP4 (ISO/IEC 14496-15)
            self.alone = False
            return False
        found = list(_units(packet, self._length))
        self._examine_parameter_sets(found)
        kept = [unit for unit in found if unit not in self._sent and self._outlasts(unit)]
        if key and self._first is None:
            self._first = kept
        self.alone &= kept == (self._first if key else []) and not any(map(self._turns, found))
        slices = [kind for kind in map(self._kind, found) if kind in SLICES[self.codec]]
        return not key or (bool(slices) and slices[0] in KEYS[self.codec])

    def _kind(self, unit: bytes) -> int:
        return unit[0] & 31 if self.codec == "h264" else unit[0] >> 1 & 63

    def _outlasts(self, unit: bytes) -> bool:
        """Whether a unit can change how later packets are decoded or shown."""
        kind = self._kind(unit)
        if kind not in SEI[self.codec]:
            return kind in KEPT[self.codec]
        return any(
            number not in HARMLESS_SEI and not (number == USER_DATA and self._harmless_user_data(content))
            for number, content in self._messages(unit)
        )

    def _turns(self, unit: bytes) -> bool:
        # FFmpeg turns only the pictures that bring this SEI: reading from the start finds whether that is all of them.
        return self._kind(unit) in SEI[self.codec] and any(kind == ORIENTATION for kind, _ in self._messages(unit))

    def _messages(self, unit: bytes) -> Iterator[tuple[int, bytes]]:
        return _messages(unit[1 if self.codec == "h264" else 2 :])

    def _harmless_user_data(self, content: bytes) -> bool:
        # FFmpeg takes the build number from here, for old faults of x264: before 151 in 4:4:4, up to 34 everywhere.
        if self.codec != "h264" or content[:16] != X264:
            return True
        number = content[16:].partition(b"core ")[2].split(b" ")[0]
        build = int(number) if number.isdigit() else 0
        return build >= 151 or (build > 44 and not self._profiles & set(HIGH_444))

    def _examine_parameter_sets(self, units: list[bytes] | set[bytes]) -> None:
        for unit in units:
            if self.codec == "h264" and self._kind(unit) == 7:
                self._profiles.add(unit[1])
                self.progressive &= _frames_only(unit)


def _length_size(codec: str, extradata: bytes) -> int:
    """Bytes of the length in front of each unit; 0 if that is not how they are framed."""
    at = {"h264": 4, "hevc": 21}.get(codec, len(extradata))
    return (extradata[at] & 3) + 1 if len(extradata) > at and extradata[0] == 1 else 0


def _header_units(codec: str, extradata: bytes) -> Iterator[bytes]:
    """The parameter sets in the header of the file (avcC, hvcC)."""
    if not _length_size(codec, extradata):
        return
    if codec == "h264":
        at = 5
        for mask in (31, 255):
            count, at = extradata[at] & mask if at < len(extradata) else 0, at + 1
            for _ in range(count):
                size = int.from_bytes(extradata[at : at + 2])
                yield extradata[at + 2 : at + 2 + size]
                at += 2 + size
        return
    at = 23
    for _ in range(extradata[22] if len(extradata) > 22 else 0):
        count, at = int.from_bytes(extradata[at + 1 : at + 3]), at + 3
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2])
            yield extradata[at + 2 : at + 2 + size]
            at += 2 + size


def _units(packet: bytes, length: int) -> Iterator[bytes]:
    at = 0
    while at + length < len(packet):
        size = int.from_bytes(packet[at : at + length])
        if size:
            yield packet[at + length : at + length + size]
        at += length + size


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The SEI messages of one unit: payload type and payload (H.264, 7.3.2.3)."""
    content, at = _unescaped(content), 0
    while at + 2 < len(content):
        numbers = []
        for _ in range(2):
            number = 0
            while at < len(content) and content[at] == 255:
                number, at = number + 255, at + 1
            numbers.append(number + (content[at] if at < len(content) else 0))
            at += 1
        yield numbers[0], content[at : at + numbers[1]]
        at += numbers[1]


def _unescaped(content: bytes) -> bytes:
    """Without the bytes that keep a unit from looking like a start code (H.264, 7.4.1.1)."""
    return content.replace(b"\0\0\3", b"\0\0")


def _frames_only(sps: bytes) -> bool:
    """frame_mbs_only_flag of an H.264 sequence parameter set (7.3.2.1.1): whether no picture is interlaced."""
    bits = "".join(f"{byte:08b}" for byte in _unescaped(sps[1:])[:200])
    at = 24

    def number() -> int:  # Exp-Golomb, 9.1
        nonlocal at
        zeros = bits.find("1", at) - at
        if zeros < 0:
            raise ValueError
        at += 2 * zeros + 1
        return int(bits[at - zeros - 1 : at], 2) - 1

    def signed() -> int:
        value = number()
        return (value + 1) // 2 if value % 2 else -(value // 2)

    try:
        number()
        if sps[1] in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
            chroma = number()
            at += chroma == 3
            number(), number()
            at += 1
            at += 1
            if bits[at - 1] == "1":  # scaling lists
                for i in range(8 if chroma != 3 else 12):
                    at += 1
                    last = following = 8
                    for _ in range((16 if i < 6 else 64) if bits[at - 1] == "1" else 0):
                        following = (last + signed()) % 256 if following else 0
                        last = following or last
        number()
        order = number()
        if order == 0:
            number()
        elif order == 1:
            at += 1
            signed(), signed()
            for _ in range(number()):
                signed()
        number()
        at += 1
        number(), number()
        return bits[at] == "1"
    except (ValueError, IndexError):
        return False
