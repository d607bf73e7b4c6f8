"""Labels on pictures of every kind: other programs read them, and the pixels are the same byte by byte."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest
from c2pa import Reader
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from agent.labels.aigc import aigc_json
from agent.labels.container import BrokenPicture, DoesNotFit
from agent.labels.credentials import CannotSign, Credentials
from agent.labels.picture import Wanted, carry, label, parse
from tests.exif_tool import ExifTool
from tests.unit.labels.files import (
    MODES,
    OTHER_XMP,
    PROFILE,
    encode,
    encoded,
    exif_of,
    frames,
    noise,
    pictures,
)

AIGC = aigc_json("Example Ltd 示例", "task-1-0")
PARAMETERS = "a cat, 猫, \U0001f431\nNegative prompt: dog\nSteps: 4, Sampler: euler, Seed: 7, Size: 8x8"
ALL = Wanted(iptc=True, aigc=AIGC, parameters=PARAMETERS)

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FIELDS = [
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
]

slow = settings(max_examples=25, deadline=None)


def labelled(data: bytes, wanted: Wanted = ALL) -> bytes:
    found = label(data, wanted)
    assert found is not None
    assert found.missing == ()
    return found.data


def check_labels(tool: ExifTool, data: bytes) -> dict[str, Any]:
    """What exiftool reads of our labels; returns all that it reads."""
    tags = tool.read(data)
    assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    aigc = json.loads(tags["XMP-TC260:Aigc"])
    assert list(aigc) == FIELDS
    assert (aigc["Label"], aigc["ContentProducer"], aigc["ProduceID"]) == (
        "1",
        "Example Ltd 示例",
        "task-1-0",
    )
    is_png = data.startswith(b"\x89PNG")
    assert tags["PNG:Parameters" if is_png else "ExifIFD:UserComment"] == PARAMETERS
    assert not is_png or json.loads(tags["PNG:AIGC"]) == aigc
    return tags


@slow
@given(data=pictures())
def test_labels_are_read_by_others_and_no_pixel_changes(data: bytes, tool: ExifTool) -> None:
    found = labelled(data)
    assert frames(found) == frames(data)
    assert encoded(found) == encoded(data)
    before, after = tool.read(data), check_labels(tool, found)
    ours = ("XMP-iptcExt", "XMP-TC260", "PNG:AIGC", "PNG:Parameters", "ExifIFD:UserComment")
    for name, value in before.items():  # all that the picture told of itself
        if name.startswith(
            ("IFD0:", "XMP-dc:", "ICC_Profile", "ICC-header", "File:Comment", "JFIF:", "PNG:")
        ):
            assert after.get(name) == value or name.startswith(ours), name
    assert _complaints(after) <= _complaints(before)
    # Labelled once more, it is as large as before: nothing piles up but what EXIF leaves unused.
    assert frames(labelled(found)) == frames(data)
    check_labels(tool, labelled(found))


def _complaints(tags: dict[str, Any]) -> set[str]:
    """What exiftool's validation finds wrong with a file; EXIF of a comment alone lacks what cameras must write."""
    found = [value for name, value in tags.items() if name.endswith(":Warning")]
    texts = {str(text) for value in found for text in (value if isinstance(value, list) else [value])}
    return {text for text in texts if not text.startswith("Missing required")}


@pytest.mark.parametrize(
    ("how", "flags"), [({}, 0x0C), ({"lossless": True}, 0x0C), ({"lossless": True, "mode": "RGBA"}, 0x1C)]
)
def test_simple_webp_gets_the_header_that_says_what_follows(
    how: dict[str, Any], flags: int, tool: ExifTool
) -> None:
    data = encode(noise((37, 21), how.pop("mode", "RGB")), "WEBP", **how)
    assert data[12:16] in (b"VP8 ", b"VP8L")
    tags = check_labels(tool, labelled(data))
    assert tags["File:FileType"] == "Extended WEBP"
    assert (tags["RIFF:ImageWidth"], tags["RIFF:ImageHeight"]) == (37, 21)
    assert tags["RIFF:WebP_Flags"] == flags


def test_segments_of_a_jpeg_stand_in_the_order_that_readers_expect() -> None:
    data = labelled(
        encode(noise(), "JPEG", icc_profile=PROFILE, exif=exif_of(artist="Somebody"), xmp=OTHER_XMP)
    )
    begins = [
        data.index(mark)
        for mark in (b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0")
    ]
    assert begins == sorted(begins)


@slow
@given(data=pictures())
def test_content_credentials_fit_what_was_labelled(
    data: bytes, credentials: Credentials, tool: ExifTool
) -> None:
    signed = labelled(data, Wanted(iptc=True, aigc=AIGC, parameters=PARAMETERS, credentials=credentials))
    picture = parse(signed)
    assert picture is not None
    assert picture.has_credentials
    with Reader(picture.media_type, io.BytesIO(signed)) as reader:
        assert reader.get_validation_state() == "Valid"
    assert frames(signed) == frames(data)
    check_labels(tool, signed)
    # Whatever labels it again first takes out what would be broken.
    again = labelled(signed)
    found = parse(again)
    assert found is not None
    assert not found.has_credentials


@pytest.mark.parametrize("kind", list(MODES))
@settings(max_examples=100, deadline=None)
@given(choice=st.data())
def test_broken_files_raise_nothing_but_ours_and_end(kind: str, choice: st.DataObject) -> None:
    whole = WHOLE[kind]
    data = bytearray(whole)
    for _ in range(choice.draw(st.integers(0, 6))):
        at = choice.draw(st.integers(0, min(len(data) - 1, 900)))
        data[at] = choice.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1]))
    start = choice.draw(st.integers(0, len(data)))
    gap = choice.draw(st.integers(0, 40))
    broken = bytes(data[:start] + data[start + gap :])[: choice.draw(st.integers(0, len(data)))]
    with contextlib.suppress(BrokenPicture, DoesNotFit):
        found = label(broken, Wanted(iptc=True, aigc=AIGC, parameters=PARAMETERS, remove_prompt=True))
        assert found is None or parse(found.data) is not None
    with contextlib.suppress(CannotSign):
        carry(broken, whole, None)
        carry(whole, whole, None)


WHOLE = {
    "PNG": labelled(encode(noise((9, 9)), "PNG", icc_profile=PROFILE)),
    "JPEG": labelled(
        encode(noise((9, 9)), "JPEG", icc_profile=PROFILE, exif=exif_of(model="prompt:{}"), xmp=OTHER_XMP)
    ),
    "WEBP": labelled(encode(noise((9, 9)), "WEBP", exif=exif_of(model="prompt:{}"), xmp=OTHER_XMP)),
}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff" * 100_000,
        b"RIFF\x04\0\0\0WEBP",
        b"RIFF\xff\xff\xff\xffWEBP",
        b"RIFF\x18\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10),
        b"\x89PNG\r\n\x1a\n" + (b"\0\0\0\0tEXt\0\0\0\0") * 20_000,
    ],
)
def test_hollow_files_are_broken_or_none_of_ours(data: bytes) -> None:
    with contextlib.suppress(BrokenPicture):
        assert label(data, ALL) is None


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "AVIF"])
def test_other_formats_are_left_alone(kind: str) -> None:
    assert label(encode(noise(), kind), ALL) is None
    assert label(b"a text", ALL) is None


@pytest.mark.parametrize("kind", list(MODES))
@pytest.mark.parametrize("other", list(MODES))
def test_conversion_carries_the_labels(
    kind: str, other: str, tool: ExifTool, credentials: Credentials
) -> None:
    source = labelled(encode(noise(), kind))
    check_labels(tool, carry(source, encode(noise(), other), None))
    signed = labelled(
        encode(noise(), kind), Wanted(iptc=True, aigc=AIGC, parameters=PARAMETERS, credentials=credentials)
    )
    with pytest.raises(CannotSign, match="conversion breaks"):
        carry(signed, encode(noise(), other), None)
    carried = carry(signed, encode(noise(), other), credentials)
    check_labels(tool, carried)
    with Reader(f"image/{other.lower()}", io.BytesIO(carried)) as reader:
        assert reader.get_validation_state() == "Valid"


def test_conversion_to_a_jpeg_leaves_out_what_has_no_room_but_the_labels(tool: ExifTool) -> None:
    long = OTHER_XMP.replace(b">one<", b">" + b"one " * 20_000 + b"<")
    picture = parse(encode(noise(), "PNG"))
    assert picture is not None
    picture.set_xmp(long)
    source = labelled(picture.to_bytes(), Wanted(iptc=True, aigc=AIGC, parameters="long " * 20_000))
    tags = tool.read(carry(source, encode(noise(), "JPEG"), None))
    assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE
    assert json.loads(tags["XMP-TC260:Aigc"]) == json.loads(AIGC)
    assert "XMP-dc:Subject" not in tags
    assert "ExifIFD:UserComment" not in tags


@pytest.mark.parametrize("kind", list(MODES))
def test_unlabelled_picture_is_converted_as_it_is(kind: str) -> None:
    converted = encode(noise(), kind)
    assert carry(encode(noise(), "GIF"), converted, None) == converted
    assert carry(b"\x89PNG\r\n\x1a\nbroken", converted, None) == converted
    assert frames(carry(encode(noise(), "PNG"), converted, None)) == frames(converted)


def test_parameters_that_a_jpeg_has_no_room_for_are_named() -> None:
    found = label(encode(noise(), "JPEG"), Wanted(iptc=True, parameters="long " * 10_000))
    assert found is not None
    assert found.missing == ("parameters",)
    assert SOURCE_TYPE.encode() in found.data
    assert Image.open(io.BytesIO(found.data)).size == (32, 24)
