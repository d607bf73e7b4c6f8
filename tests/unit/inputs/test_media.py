"""Input files are recognised by content, checked, and never changed."""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import time
import warnings
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from agent.errors import AgentError, InputTooLarge, InvalidInput
from agent.inputs.kinds import MediaKind, MediaLimits
from agent.inputs.media import MEDIA_TYPES, Media, inspect

LIMITS = MediaLimits(max_bytes=2**24, max_pixels=1_000_000)
HTML = b"\n <!DOCTYPE html><html><body>404</body></html>"
JSON = b'{"error": "not found"}'
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(64)
WEBM = b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm" + bytes(64)
MKV = WEBM.replace(b"\x84webm", b"\x88matroska")
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(28)
MP3 = b"\xff\xfb\x90\x64" + bytes(64)


def picture(fmt: str, mode: str = "RGB", size: tuple[int, int] = (12, 7), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, fmt, **options)
    return buffer.getvalue()


def animation(fmt: str) -> bytes:
    frames = [Image.new("RGB", (12, 7), colour) for colour in ("red", "green", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, fmt, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width: int, height: int, *extra: bytes) -> bytes:
    """A PNG with a true header and no more pixels than a line: decoding it would fail, or fill the memory."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def image(data: bytes) -> Media:
    return inspect(data, MediaKind.IMAGE, LIMITS)


@pytest.mark.parametrize(
    ("data", "extension"),
    [
        pytest.param(picture("PNG"), "png", id="png"),
        pytest.param(picture("PNG", "I;16"), "png", id="16-bit png"),
        pytest.param(picture("PNG", "RGBA"), "png", id="png with alpha"),
        pytest.param(picture("PNG", "P"), "png", id="palette png"),
        pytest.param(animation("PNG"), "png", id="animated png"),
        pytest.param(picture("JPEG"), "jpg", id="jpeg"),
        pytest.param(picture("JPEG", "CMYK"), "jpg", id="cmyk jpeg"),
        pytest.param(animation("MPO"), "jpg", id="mpo of a phone"),
        pytest.param(animation("GIF"), "gif", id="animated gif"),
        pytest.param(animation("WEBP"), "webp", id="animated webp"),
        pytest.param(picture("WEBP", lossless=True), "webp", id="webp"),
        pytest.param(picture("BMP"), "bmp", id="bmp"),
        pytest.param(picture("TIFF"), "tiff", id="tiff"),
        pytest.param(picture("TIFF", "I;16", compression="tiff_lzw"), "tiff", id="16-bit lzw tiff"),
        pytest.param(picture("TIFF", big_tiff=True), "tiff", id="big tiff"),
        pytest.param(picture("AVIF"), "avif", id="avif"),
    ],
)
def test_pictures_pass_byte_for_byte(data: bytes, extension: str) -> None:
    media = image(data)
    assert media.data is data
    assert (media.extension, media.width, media.height) == (extension, 12, 7)
    assert media.media_type == MEDIA_TYPES[extension]
    assert media.name == f"{hashlib.sha256(data).hexdigest()}.{extension}"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HTML, "looks like an HTML page"),
        (b"\xef\xbb\xbf<html>", "looks like an HTML page"),
        (JSON, "looks like JSON"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "looks like an SVG drawing"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "looks like an XML document"),
        (b"Not found", "looks like plain text"),
        ("Nicht verfügbar".encode() * 70, "looks like plain text"),
        (MP4, "looks like video/mp4"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heic", "looks like image/heic"),
        (b"%PDF-1.7\n", "looks like application/pdf"),
        (bytes(100), "is of no known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "looks like plain text"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        image(data)


def test_hint_cannot_turn_other_content_into_a_picture() -> None:
    with pytest.raises(InvalidInput, match="HTML"):
        inspect(HTML, MediaKind.IMAGE, LIMITS, hint="cat.png")


@pytest.mark.parametrize("kind", MediaKind)
def test_empty_data_is_refused(kind: MediaKind) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        inspect(b"", kind, LIMITS, hint="cat.png")


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InputTooLarge) as caught:
        inspect(bytes(11), MediaKind.FILE, MediaLimits(max_bytes=10, max_pixels=1))
    assert caught.value.facts == {"limit": 10}


@pytest.mark.parametrize(
    "data",
    [
        picture("PNG")[:-20],
        picture("PNG")[:40],
        picture("JPEG")[:30],
        picture("WEBP")[:40],
        picture("GIF")[:10],
        picture("AVIF")[:80],
    ],
)
def test_broken_pictures_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="broken or cut short"):
        image(data)


def test_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(picture("PNG", size=(50, 50)))
    data[-30] ^= 1
    with pytest.raises(InvalidInput, match="broken"):
        image(bytes(data))


def test_jpeg_cut_in_its_pixels_passes_as_comfyui_loads_it() -> None:
    data = picture("JPEG", size=(300, 300), quality=100)
    assert image(data[: len(data) - 100]).width == 300


@pytest.mark.parametrize("size", [(1001, 1000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_limited_before_anything_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(InputTooLarge, match="AGENT_MAX_INPUT_PIXELS") as caught:
        image(png_of(*size))
    assert caught.value.facts == {"limit": 1_000_000}


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pixel_limit_holds_for_every_format(fmt: str) -> None:
    data = picture(fmt, size=(30, 40))
    assert inspect(data, MediaKind.IMAGE, MediaLimits(2**20, 1200)).height == 40
    with pytest.raises(InputTooLarge):
        inspect(data, MediaKind.IMAGE, MediaLimits(2**20, 1199))


def test_own_pixel_limit_counts_also_above_that_of_pillow() -> None:
    """Pillow's Image.open warns over 89 million pixels and refuses over 179 million; the operator may want more."""
    limits = MediaLimits(max_bytes=2**20, max_pixels=500_000_000)
    before = Image.MAX_IMAGE_PIXELS
    assert inspect(png_of(10_000, 9_500), MediaKind.IMAGE, limits).width == 10_000
    assert inspect(png_of(20_000, 20_000), MediaKind.IMAGE, limits).width == 20_000
    assert before == Image.MAX_IMAGE_PIXELS


def test_webp_that_declares_more_than_pillow_takes_is_too_large() -> None:
    canvas = (16_383).to_bytes(3, "little") * 2
    data = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + canvas
    with pytest.raises(InputTooLarge):
        image(data)


def test_bombs_in_text_and_colour_profile_chunks_are_refused() -> None:
    bomb = zlib.compress(bytes(50 * 2**20), 9)
    for each in (
        chunk(b"zTXt", b"k\0\0" + bomb),
        chunk(b"iCCP", b"k\0\0" + bomb),
        chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
    ):
        with pytest.raises(InvalidInput):
            image(png_of(10, 10, each))


@pytest.mark.parametrize(
    ("kind", "at", "part"),
    [("PNG", 33, chunk(b"teSt", b"")), ("JPEG", 2, b"\xff\xef\0\2"), ("JPEG", 2, b"\xff")],
)
def test_picture_of_a_million_empty_parts_is_refused_before_pillow_reads_them(
    kind: str, at: int, part: bytes
) -> None:
    data = picture(kind)
    some, many = (data[:at] + part * count + data[at:] for count in (100, 1_000_000))
    assert image(some).width == image(data).width
    with pytest.raises(InvalidInput):
        image(many)


def test_tiff_of_a_million_strips_is_refused_before_pillow_makes_objects_of_them() -> None:
    strips = 1_000_000
    tags = [(256, 1), (257, strips), (258, 8), (259, 1), (262, 1), (273, 134), (277, 1), (278, 1), (279, 1)]
    entries = [struct.pack("<HHII", tag, 4, strips if tag == 273 else 1, value) for tag, value in tags]
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + bytes(4 * strips)
    started = time.process_time()  # others may be busy
    with pytest.raises(InvalidInput):
        image(data)
    assert time.process_time() - started < 0.2


def test_workflow_text_inside_a_comfyui_png_is_no_problem() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 500_000)
    assert image(picture("PNG", pnginfo=info)).width == 12


@pytest.mark.parametrize(
    ("data", "kind", "hint", "extension"),
    [
        (MP4, MediaKind.VIDEO, None, "mp4"),
        (MP4.replace(b"ftypisom", b"ftypqt  "), MediaKind.VIDEO, None, "mov"),
        (WEBM, MediaKind.VIDEO, None, "webm"),
        (MKV, MediaKind.VIDEO, "x.webm", "mkv"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(20), MediaKind.VIDEO, None, "avi"),
        (animation("GIF"), MediaKind.VIDEO, None, "gif"),
        (animation("WEBP"), MediaKind.VIDEO, None, "webp"),
        ((b"\x47" + bytes(187)) * 3, MediaKind.VIDEO, None, "ts"),
        (b"\0\0\0\1strange", MediaKind.VIDEO, "https://x/CLIP.M4V", "mp4"),
        (WAV, MediaKind.AUDIO, None, "wav"),
        (MP3, MediaKind.AUDIO, None, "mp3"),
        (b"ID3\4\0" + bytes(20), MediaKind.AUDIO, None, "mp3"),
        (b"fLaC\0\0\0\x22", MediaKind.AUDIO, None, "flac"),
        (b"OggS\0\2" + bytes(20), MediaKind.AUDIO, "voice.opus", "ogg"),
        (MP4.replace(b"ftypisom", b"ftypM4A "), MediaKind.AUDIO, None, "m4a"),
        (b"\xff\xf1\x50\x80" + bytes(20), MediaKind.AUDIO, None, "aac"),
        (b"FORM\0\0\0\0AIFFCOMM", MediaKind.AUDIO, None, "aiff"),
        (MP4, MediaKind.AUDIO, None, "mp4"),
        (b"\0\1\2\3", MediaKind.AUDIO, "audio/mpeg; charset=binary", "mp3"),
        (b"glTF\2\0\0\0", MediaKind.FILE, None, "glb"),
        (b"v 0 0 0\n", MediaKind.FILE, "teapot.OBJ", "obj"),
        (b"ply\nformat ascii 1.0\n", MediaKind.FILE, None, "ply"),
        (picture("PNG"), MediaKind.FILE, "evil.html", "png"),
        (HTML, MediaKind.FILE, "evil.html", "bin"),
        (b"\x7fELF", MediaKind.FILE, "../../x.sh", "bin"),
        (b"\x7fELF", MediaKind.FILE, "x.png/../../y", "bin"),
        (b"\x7fELF", MediaKind.FILE, None, "bin"),
    ],
)
def test_other_files_get_an_extension_from_the_table(
    data: bytes, kind: MediaKind, hint: str | None, extension: str
) -> None:
    media = inspect(data, kind, LIMITS, hint=hint)
    assert media.extension == extension
    assert media.width is None


@pytest.mark.parametrize("kind", [MediaKind.VIDEO, MediaKind.AUDIO])
@pytest.mark.parametrize("data", [HTML, JSON, b"\0\1\2\3", picture("PNG"), b"%PDF-1.4"])
def test_what_is_neither_video_nor_audio_is_refused(kind: MediaKind, data: bytes) -> None:
    for hint in (None, "page.html", "x", "model.glb", "picture.png"):
        with pytest.raises(InvalidInput):
            inspect(data, kind, LIMITS, hint=hint)


def test_error_page_is_refused_even_when_named_like_a_video() -> None:
    with pytest.raises(InvalidInput, match="HTML page"):
        inspect(HTML, MediaKind.VIDEO, LIMITS, hint="clip.mp4")


def test_sound_is_no_video() -> None:
    with pytest.raises(InvalidInput, match="audio/mpeg"):
        inspect(MP3, MediaKind.VIDEO, LIMITS, hint="clip.mp4")


SAMPLES = [picture(fmt) for fmt in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")] + [
    animation("PNG"),
    animation("GIF"),
]


def check_arbitrary(data: bytes, kind: MediaKind, hint: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in production, where a reader's warning does not stop it
        try:
            media = inspect(data, kind, LIMITS, hint=hint)
        except (InvalidInput, InputTooLarge):
            return
    assert media.extension in MEDIA_TYPES
    assert media.data == data


@given(st.binary(max_size=300), st.sampled_from(MediaKind), st.none() | st.text(max_size=20))
def test_arbitrary_bytes_are_media_or_an_input_error(data: bytes, kind: MediaKind, hint: str | None) -> None:
    check_arbitrary(data, kind, hint)


@given(st.sampled_from(SAMPLES), st.integers(0, 400), st.binary(min_size=1, max_size=12), st.integers(0, 200))
def test_damaged_pictures_are_media_or_an_input_error(sample: bytes, at: int, patch: bytes, cut: int) -> None:
    check_arbitrary(
        (sample[:at] + patch + sample[at + len(patch) :])[: len(sample) - cut], MediaKind.IMAGE, None
    )


def test_inspect_may_run_in_many_threads() -> None:
    failures: list[AgentError] = []

    def work() -> None:
        for sample in SAMPLES * 5:
            try:
                image(sample)
            except AgentError as exc:
                failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert not failures
