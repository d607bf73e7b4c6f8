"""Say what an input file is by its content, and refuse what the engine could not use.

Bytes are judged, never changed. Everything here is plain CPU work for a thread; hashing and checksums release the
interpreter lock.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from agent.errors import InputTooLarge, InvalidInput
from agent.inputs.kinds import MediaKind, MediaLimits


@dataclass(frozen=True, slots=True)
class Media:
    """A checked input file. `width` and `height` are pixels, of pictures only."""

    data: bytes
    sha256: str
    extension: str
    media_type: str
    width: int | None = None
    height: int | None = None

    @property
    def name(self) -> str:
        """The file name: the same bytes always have the same one."""
        return f"{self.sha256}.{self.extension}"


#: Every extension that a file can get, and its media type. Nothing from outside gets past this table.
MEDIA_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "avif": "image/avif",
    "heic": "image/heic",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "3gp": "video/3gpp",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
    "mpg": "video/mpeg",
    "ts": "video/mp2t",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "m4a": "audio/mp4",
    "aiff": "audio/aiff",
    "glb": "model/gltf-binary",
    "gltf": "model/gltf+json",
    "obj": "model/obj",
    "stl": "model/stl",
    "ply": "model/ply",
    "fbx": "application/octet-stream",
    "usdz": "model/vnd.usdz+zip",
    "splat": "application/octet-stream",
    "ksplat": "application/octet-stream",
    "spz": "application/octet-stream",
    "safetensors": "application/octet-stream",
    "latent": "application/octet-stream",
    "pdf": "application/pdf",
    "zip": "application/zip",
    "txt": "text/plain",
    "csv": "text/csv",
    "json": "application/json",
    "bin": "application/octet-stream",
}

_OTHER_SPELLINGS = {
    "jpeg": "jpg",
    "tif": "tiff",
    "m4v": "mp4",
    "mpeg": "mpg",
    "opus": "ogg",
    "oga": "ogg",
    "ogv": "ogg",
    "aif": "aiff",
    "image/jpg": "jpg",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mp3": "mp3",
    "audio/x-m4a": "m4a",
    "application/ogg": "ogg",
    "video/ogg": "ogg",
}

_BY_MEDIA_TYPE = {
    media_type: extension
    for extension, media_type in MEDIA_TYPES.items()
    if media_type != "application/octet-stream"
}

# The classes rather than Image.open: that one tries whatever plugin fits (some run interpreters), and its guard
# against decompression bombs is a process-wide number that warns where our own limit may say otherwise. What these
# constructors unpack (text chunks, colour profiles) Pillow bounds by itself.
_PICTURES: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpg": JpegImagePlugin.JpegImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}

_VIDEOS = frozenset({"mp4", "mov", "3gp", "webm", "mkv", "avi", "flv", "mpg", "ts"})
_SOUNDS = frozenset({"wav", "mp3", "flac", "ogg", "aac", "m4a", "aiff"})
_ACCEPTED = {
    MediaKind.IMAGE: frozenset(_PICTURES),
    MediaKind.VIDEO: _VIDEOS | {"gif", "webp", "ogg"},
    MediaKind.AUDIO: _VIDEOS | _SOUNDS,
    MediaKind.FILE: frozenset(MEDIA_TYPES),
}


def inspect(data: bytes, kind: MediaKind, limits: MediaLimits, *, hint: str | None = None) -> Media:
    """Recognise a file and check that it is of the wanted kind. `hint` is a file name or a media type.

    Content decides; the hint helps only where content says nothing. Pictures are opened and verified by Pillow, but
    not decoded: a PNG that is cut short is refused, a JPEG that is cut short passes and ComfyUI draws what is
    there. Raises InvalidInput, and InputTooLarge for too many bytes or pixels.
    """
    if not data:
        raise InvalidInput("The input file is empty.")
    if len(data) > limits.max_bytes:
        raise InputTooLarge(
            f"The input file has {len(data)} bytes, more than {limits.max_bytes}. "
            "Send a smaller one or raise AGENT_MAX_INPUT_BYTES.",
            limit=limits.max_bytes,
        )
    extension = _extension(data, kind, hint)
    width, height = _verified_size(data, extension, limits) if kind is MediaKind.IMAGE else (None, None)
    return Media(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        extension=extension,
        media_type=MEDIA_TYPES[extension],
        width=width,
        height=height,
    )


@contextmanager
def opened(data: bytes, limits: MediaLimits) -> Iterator[ImageFile.ImageFile]:
    """A stranger's picture for those who decode it here, checked as `inspect` does. Raises InvalidInput, InputTooLarge;
    what it raises when it is decoded is Pillow's."""
    media = inspect(data, MediaKind.IMAGE, limits)
    with _PICTURES[media.extension](io.BytesIO(data)) as picture:
        yield picture


def _extension(data: bytes, kind: MediaKind, hint: str | None) -> str:
    found = _recognised(data)
    if (
        found is None
        and kind is not MediaKind.IMAGE
        and not (kind is not MediaKind.FILE and _text_form(data))
    ):
        found = _hinted(hint)
    if found in _ACCEPTED[kind]:
        return found
    if kind is MediaKind.FILE:
        return "bin"
    raise InvalidInput(f"The input is not {_WANTED[kind]}: it {_looks_like(data, found)}.")


_WANTED = {
    MediaKind.IMAGE: "a picture that ComfyUI reads (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF)",
    MediaKind.VIDEO: "a video",
    MediaKind.AUDIO: "an audio file",
}


def _hinted(hint: str | None) -> str | None:
    if not hint:
        return None
    text = hint.partition(";")[0].strip().lower()
    extension = _BY_MEDIA_TYPE.get(text) or _OTHER_SPELLINGS.get(text)
    if extension is None:
        suffix = text.rpartition(".")[2]
        extension = _OTHER_SPELLINGS.get(suffix, suffix)
    return extension if extension in MEDIA_TYPES else None


def _verified_size(data: bytes, extension: str, limits: MediaLimits) -> tuple[int, int]:
    label = extension.upper()
    try:
        if extension == "tiff":
            _check_tiff_directory(data)
        if extension in ("png", "jpg"):
            _check_parts(data, extension)
        with _PICTURES[extension](io.BytesIO(data)) as picture:
            width, height = picture.size
            if width * height <= limits.max_pixels:
                picture.verify()
    except Image.DecompressionBombError:
        raise _too_many_pixels(label, limits) from None
    except Exception as exc:
        raise InvalidInput(f"The input begins like a {label} picture but is broken or cut short.") from exc
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width} x {height} {label}", limits)
    return width, height


#: Far more strips than the tallest honest picture has, and little enough to hold as Python objects.
_MOST_TIFF_VALUES = 200_000
_TIFF_BYTES = (1, 2, 6, 7)  # value types that Pillow keeps as plain bytes


def _check_tiff_directory(data: bytes) -> None:
    """Refuse tables of a size that no picture needs, with ValueError; struct.error where data ends too early.

    Pillow makes an object of each value while it opens the file: 20 MB of strip offsets took 11 seconds and 1.5 GB.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2] == 43
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    if entries > 0xFFFF:
        raise ValueError("too many entries")
    for index in range(entries):
        _, value_type, count = entry.unpack_from(data, at + (8 if big else 2) + index * entry.size)
        if count > _MOST_TIFF_VALUES and value_type not in _TIFF_BYTES:
            raise ValueError("too many values")


#: A PNG of a gigabyte has so many chunks of libpng's usual 8 KB; a JPEG has some dozens before its picture.
_MOST_PARTS = 130_000


def _check_parts(data: bytes, extension: str) -> None:
    """Refuse files of more chunks, or segments, than any picture has, with ValueError; those of one that is broken are
    left to Pillow.

    Pillow takes microseconds for each, and they may be empty: 64 MB of them took it 25 seconds.
    """
    is_png, at, count = extension == "png", 8 if extension == "png" else 2, 0
    while at + 4 <= len(data) and (is_png or (data[at] == 0xFF and data[at + 1] != 0xDA)):
        count += 1
        if count > _MOST_PARTS:
            raise ValueError("too many parts")
        if is_png:
            at += 12 + int.from_bytes(data[at : at + 4])
        else:  # a second 0xFF only fills
            at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])


def _too_many_pixels(what: str, limits: MediaLimits) -> InputTooLarge:
    return InputTooLarge(
        f"The input is a {what} picture with more than {limits.max_pixels} pixels. "
        "Send a smaller one or raise AGENT_MAX_INPUT_PIXELS.",
        limit=limits.max_pixels,
    )


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"FLV\x01", "flv"),
    (b"\0\0\x01\xba", "mpg"),
    (b"\0\0\x01\xb3", "mpg"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"glTF", "glb"),
    (b"ply\n", "ply"),
    (b"ply\r\n", "ply"),
    (b"Kaydara FBX Binary", "fbx"),
    (b"%PDF-", "pdf"),
)
_RIFF = {b"WEBP": "webp", b"AVI ": "avi", b"WAVE": "wav"}
_BRANDS = {
    b"avif": "avif",
    b"avis": "avif",
    b"heic": "heic",
    b"heix": "heic",
    b"mif1": "heic",
    b"msf1": "heic",
    b"qt  ": "mov",
    b"M4A ": "m4a",
    b"M4B ": "m4a",
}


def _recognised(data: bytes) -> str | None:
    """The extension of a file by the first bytes of its content; None where these say nothing."""
    head = data[:64]
    for magic, extension in _MAGIC:
        if head.startswith(magic):
            return extension
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _iso_brand(data)
    if head[4:8] in (b"moov", b"mdat", b"wide") and head[:1] == b"\0":
        return "mov"  # QuickTime before it had brands
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head else "mkv"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    return _by_structure(data)


def _iso_brand(data: bytes) -> str:
    major = data[8:12]
    if major in (b"mif1", b"msf1"):
        # A brand that AVIF and HEIC share; the compatible ones tell.
        compatible = data[16 : min(int.from_bytes(data[:4], "big"), 256)]
        return "avif" if b"avif" in compatible or b"avis" in compatible else "heic"
    return _BRANDS.get(major) or ("3gp" if major.startswith(b"3g") else "mp4")


def _by_structure(data: bytes) -> str | None:
    """Formats with a signature of a byte or two, which need a second look."""
    # BMP: the size of the header that follows is one of a few.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if data[:1] == b"\x47" and data[188:189] == data[376:377] == b"\x47":
        return "ts"
    if len(data) < 4 or data[0] != 0xFF:
        return None
    if data[1] & 0xF6 == 0xF0:
        return "aac"
    # MPEG audio frame: version and layer not reserved, bit and sample rate valid.
    frame = data[1] & 0xE0 == 0xE0 and data[1] & 0x18 != 0x08 and data[1] & 0x06 != 0
    return "mp3" if frame and data[2] & 0xF0 != 0xF0 and data[2] & 0x0C != 0x0C else None


def _looks_like(data: bytes, found: str | None) -> str:
    if found is not None:
        return f"looks like {MEDIA_TYPES[found]}"
    if form := _text_form(data):
        return f"looks like {form}"
    return "is of no known format"


_MARKUP = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|script|meta|!--)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def _text_form(data: bytes) -> str | None:
    """What kind of text the data begins with, as words for a message; None for binary data."""
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if _MARKUP.match(head):
        return "an HTML page"
    if _CONTROL.search(head) or not _is_utf8(head):
        return None
    if head.startswith((b"<?xml", b"<svg")):
        return "an SVG drawing" if b"<svg" in head else "an XML document"
    if head.startswith((b"{", b"[")):
        return "JSON"
    return "plain text"


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        return exc.start >= len(head) - 3  # the cut went through a character
    return True
