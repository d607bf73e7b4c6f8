"""JPEG files: segments up to the first scan. XMP and EXIF are APP1 segments, each of 64 KB at most."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import ClassVar, Self

from agent.labels.container import BrokenPicture, Container, DoesNotFit, check_parts

START, APP0, APP1, APP2, APP11, APP14, COMMENT, SCAN = 0xD8, 0xE0, 0xE1, 0xE2, 0xEB, 0xEE, 0xFE, 0xDA

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXIF = b"Exif\0\0"

#: What does not fit into the first XMP segment (XMP specification part 3, section 1.1.3.1): this, 32 characters of
#: MD5, the whole length, the part's offset, the part.
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
EXTENDED_HEADER = len(EXTENDED_XMP) + 32 + 4 + 4
EXTENDED_PART = 65_000

#: The length field counts itself.
LARGEST_BODY = 65_533

#: Segments of the frame's header, which has the size. C4, C8 and CC mean something else.
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))

#: Segments that belong to the encoded picture, or that are written anew with it.
TOLD = (*range(0xE1, 0xF0), COMMENT)


class JpegFile(Container):
    """The segments of a JPEG file before its first scan, and all the rest as one piece."""

    media_type: ClassVar[str] = "image/jpeg"

    def __init__(self, segments: list[memoryview], rest: memoryview) -> None:
        self.segments, self._rest = segments, rest

    @classmethod
    def parse(cls, data: bytes) -> Self:
        view = memoryview(data)
        if data[:2] != b"\xff\xd8":
            raise BrokenPicture("it does not begin as a JPEG")
        segments: list[memoryview] = []
        at = 2
        while True:
            if len(view) - at < 4 or view[at] != 0xFF:
                raise BrokenPicture("the JPEG ends before its picture begins")
            marker = view[at + 1]
            if marker == 0xFF:  # a byte that only fills
                at += 1
                continue
            if marker == SCAN:
                break
            length = int.from_bytes(view[at + 2 : at + 4])
            if marker in (0x00, 0x01, *range(0xD0, 0xDA)) or length < 2 or at + 2 + length > len(view):
                raise BrokenPicture("the JPEG ends within a segment")
            segments.append(view[at : at + 2 + length])
            check_parts(len(segments))
            at += 2 + length
        found = cls(segments, view[at:])
        _ = found.size
        return found

    @property
    def size(self) -> tuple[int, int]:
        frame = next((s for s in self.segments if s[1] in FRAMES and len(s) >= 9), None)
        if frame is None:
            raise BrokenPicture("the JPEG has no size")
        return int.from_bytes(frame[7:9]), int.from_bytes(frame[5:7])

    @property
    def xmp(self) -> bytes | None:
        return self._find(APP1, XMP)

    def set_xmp(self, packet: bytes) -> None:
        raw = _segment(APP1, XMP + packet)
        self._remove(APP1, XMP)
        self._insert(raw, after_exif=True)

    @property
    def extended_xmp(self) -> bytes | None:
        """What did not fit into the first XMP segment; None where there is none, or not all of it."""
        parts: dict[int, bytes] = {}
        length = 0
        for segment in self.segments:
            if segment[1] == APP1 and segment[4 : 4 + len(EXTENDED_XMP)] == EXTENDED_XMP:
                header = bytes(segment[4 : 4 + EXTENDED_HEADER])
                length = int.from_bytes(header[-8:-4])
                parts[int.from_bytes(header[-4:])] = bytes(segment[4 + EXTENDED_HEADER :])
        found = b"".join(parts[offset] for offset in sorted(parts))
        return found if parts and len(found) == length else None

    def set_extended_xmp(self, packet: bytes) -> str:
        """Write or replace what does not fit into the first XMP segment, which must come after this and name what
        this returns."""
        name = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
        self._remove(APP1, EXTENDED_XMP)
        for offset in reversed(range(0, len(packet), EXTENDED_PART)):
            where = name.encode() + len(packet).to_bytes(4) + offset.to_bytes(4)
            raw = _segment(APP1, EXTENDED_XMP + where + packet[offset : offset + EXTENDED_PART])
            self._insert(raw, after_exif=True)
        return name

    @property
    def exif(self) -> bytes | None:
        return self._find(APP1, EXIF)

    def set_exif(self, tiff: bytes | None) -> None:
        raw = None if tiff is None else _segment(APP1, EXIF + tiff)
        self._remove(APP1, EXIF)
        if raw is not None:
            self._insert(raw, after_exif=False)

    @property
    def has_credentials(self) -> bool:
        return bool(self._credentials())

    def remove_credentials(self) -> None:
        boxes = self._credentials()
        self.segments = [s for s in self.segments if not (s[1] == APP11 and bytes(s[4:8]) in boxes)]

    def _credentials(self) -> set[bytes]:
        """How the segments of C2PA's boxes begin (ISO 19566-5, annex D): "JP", then the box's number."""
        return {
            bytes(s[4:8])
            for s in self.segments
            if s[1] == APP11 and bytes(s[4:6]) == b"JP" and b"jumdc2pa" in bytes(s[12:44])
        }

    def remove_texts(self, is_unwanted: Callable[[str, str], bool]) -> None:
        self.segments = [
            s
            for s in self.segments
            if s[1] != COMMENT or not is_unwanted("comment", bytes(s[4:]).decode(errors="replace"))
        ]

    def adopt(self, other: Self) -> None:
        # Adobe's segment says how the colours are encoded; it belongs to the picture.
        told = [s for s in other.segments if s[1] in TOLD and s[1] != APP14]
        kept = [s for s in self.segments if s[1] not in TOLD or s[1] == APP14]
        first = [s for s in kept if s[1] == APP0]
        self.segments = [*first, *told, *(s for s in kept if s[1] != APP0)]

    def to_bytes(self) -> bytes:
        return b"".join((b"\xff\xd8", *self.segments, self._rest))

    def _find(self, marker: int, prefix: bytes) -> bytes | None:
        for segment in self.segments:
            if segment[1] == marker and segment[4 : 4 + len(prefix)] == prefix:
                return bytes(segment[4 + len(prefix) :])
        return None

    def _remove(self, marker: int, prefix: bytes) -> None:
        self.segments = [s for s in self.segments if s[1] != marker or s[4 : 4 + len(prefix)] != prefix]

    def _insert(self, raw: bytes, *, after_exif: bool) -> None:
        """Put a segment behind those that readers expect first: JFIF, then EXIF."""
        at = 0
        for index, segment in enumerate(self.segments):
            is_exif = segment[1] == APP1 and segment[4 : 4 + len(EXIF)] == EXIF
            if (segment[1] == APP0 and at == index) or (after_exif and is_exif):
                at = index + 1
        self.segments.insert(at, memoryview(raw))


def _segment(marker: int, body: bytes) -> bytes:
    if len(body) > LARGEST_BODY:
        raise DoesNotFit(f"a part of a JPEG file holds {LARGEST_BODY} bytes at most")
    return b"".join((bytes((0xFF, marker)), (len(body) + 2).to_bytes(2), body))
