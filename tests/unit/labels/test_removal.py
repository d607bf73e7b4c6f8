"""Removal of what ComfyUI, or a node in its place, writes of the prompt; everything else stays."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from agent.labels.container import ALL_TEXTS, MOST_PARTS, BrokenPicture
from agent.labels.exif import BrokenExif, user_comment, with_user_comment, without_texts
from agent.labels.picture import Wanted, label, parse
from tests.exif_tool import ExifTool
from tests.unit.labels.files import OTHER_XMP, comfyui_png, encode, encoded, exif_of, frames, noise

SECRET = "a secret recipe"
PROMPT = json.dumps({"3": {"class_type": "CLIPTextEncode", "inputs": {"text": SECRET}}})
REMOVED = Wanted(remove_prompt=True, extra_names=("lineage",))


def clean(data: bytes, wanted: Wanted = REMOVED) -> bytes:
    found = label(data, wanted)
    assert found is not None
    assert SECRET.encode() not in found.data
    assert SECRET.encode("utf-16-be") not in found.data
    assert encoded(found.data) == encoded(data)
    return found.data


def animated(kind: str, **how: Any) -> bytes:
    return encode(noise(), kind, save_all=True, append_images=[noise(seed=2)], duration=50, **how)


def test_texts_of_a_png() -> None:
    data = comfyui_png(
        PROMPT, workflow=PROMPT, lineage=json.dumps(SECRET), Software="kept", Author="kept too"
    )
    found = Image.open(clean_file := __import__("io").BytesIO(clean(data)))
    assert found.info == {"Software": "kept", "Author": "kept too"}
    clean_file.close()


def test_packed_texts_and_those_of_saving_nodes() -> None:
    info = PngInfo()
    info.add_text("prompt", PROMPT, zip=True)
    info.add_itxt("Workflow", PROMPT, zip=True)
    info.add_text("parameters", f"{SECRET}\nSteps: 4, Sampler: euler")
    info.add_text("Description", PROMPT)
    info.add_text("Comment", "kept")
    found = parse(clean(encode(noise(), "PNG", pnginfo=info)))
    assert found is not None
    assert b"kept" in found.to_bytes()
    for gone in (b"prompt", b"Workflow", b"parameters", b"Description"):
        assert gone not in found.to_bytes()


def test_what_is_too_much_to_be_read_is_removed_whole() -> None:
    info = PngInfo()
    info.add_text("Author", "kept")
    for number in range(12):
        info.add_text(f"Comment{number}", "x" * (ALL_TEXTS // 6) + PROMPT, zip=True)
    found = Image.open(io.BytesIO(clean(encode(noise(), "PNG", pnginfo=info))))
    assert found.info == {"Author": "kept"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_files_of_more_parts_than_any_picture_has_are_refused(kind: str) -> None:
    data = encode(noise(), kind)
    part, at = {
        "PNG": (b"\0\0\0\0teSt\0\0\0\0", 33),
        "JPEG": (b"\xff\xef\0\2", 2),
        "WEBP": (b"teSt\0\0\0\0", len(data)),
    }[kind]

    def with_parts(count: int) -> bytes:
        made = data[:at] + part * count + data[at:]
        return made[:4] + (len(made) - 8).to_bytes(4, "little") + made[8:] if kind == "WEBP" else made

    assert parse(with_parts(1000)) is not None
    with pytest.raises(BrokenPicture, match="more than 130000 parts"):
        parse(with_parts(MOST_PARTS + 1))


def test_parameters_may_be_written_where_the_prompt_is_removed() -> None:
    data = clean(comfyui_png(PROMPT), Wanted(remove_prompt=True, parameters="Steps: 4, Sampler: euler"))
    assert b"parameters\0Steps: 4" in data


def test_chunks_of_an_animated_png() -> None:
    info = PngInfo()
    info.add(b"comf", b"prompt\0" + PROMPT.encode(), after_idat=True)
    info.add(b"comf", b"workflow\0" + PROMPT.encode(), after_idat=True)
    data = animated("PNG", pnginfo=info)
    assert b"comf" in data
    found = clean(data)
    assert b"comf" not in found
    assert frames(found) == frames(data)


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_exif_as_comfyui_writes_it(kind: str) -> None:
    """Model holds the prompt, Make the workflow, and further names the tags before them."""
    exif = exif_of(model=f"prompt:{PROMPT}", make=f"workflow:{PROMPT}", description=f'lineage:"{SECRET}"')
    data = animated(kind, exif=exif) if kind == "WEBP" else encode(noise(), kind, exif=exif)
    found = clean(data)
    assert frames(found) == frames(data)
    picture = parse(found)
    assert picture is not None
    assert picture.exif is None


def test_other_tags_stay(tool: ExifTool) -> None:
    exif = exif_of(model=f"prompt:{PROMPT}", make="Maker", artist="Somebody")
    data = encode(noise(), "JPEG", exif=exif, comment=b"a comment", xmp=OTHER_XMP)
    tags = tool.read(clean(data))
    assert (tags["IFD0:Make"], tags["IFD0:Artist"], tags["File:Comment"]) == (
        "Maker",
        "Somebody",
        "a comment",
    )
    assert "IFD0:Model" not in tags
    assert tags["XMP-dc:Format"] == "image/x-test"


@pytest.mark.parametrize("text", [PROMPT, f"Prompt:{PROMPT}", f"{SECRET}\nSteps: 4, Sampler: euler"])
def test_comments_of_saving_nodes(text: str, tool: ExifTool) -> None:
    exif = with_user_comment(exif_of(artist="Somebody").removeprefix(b"Exif\0\0"), text)
    tags = tool.read(clean(encode(noise(), "WEBP", exif=exif)))
    assert tags["IFD0:Artist"] == "Somebody"
    assert "ExifIFD:UserComment" not in tags
    clean(encode(noise(), "JPEG", exif=b"Exif\0\0" + with_user_comment(None, text), comment=text.encode()))


def test_other_comments_stay() -> None:
    exif = with_user_comment(None, "holiday")
    assert without_texts(exif, lambda text: text == SECRET) == exif


def test_exif_that_nobody_can_read_goes_whole() -> None:
    found = parse(clean(encode(noise(), "WEBP", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + SECRET.encode())))
    assert found is not None
    assert found.exif is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("text", ["plain", "猫 \U0001f431", ""])
def test_comment_is_read_as_it_was_written(order: str, text: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x013B] = "Somebody"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0older and longer"
    before = exif.tobytes().removeprefix(b"Exif\0\0")
    assert user_comment(before) == "older and longer"
    after = with_user_comment(before, text)
    assert user_comment(after) == text
    assert b"older and longer" not in after
    found = Image.Exif()
    found.load(after)
    assert found[0x013B] == "Somebody"


@pytest.mark.parametrize(
    "tiff", [b"", b"MM", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + bytes(99)]
)
def test_broken_exif(tiff: bytes) -> None:
    with pytest.raises(BrokenExif):
        user_comment(tiff)
    assert user_comment(with_user_comment(tiff, "new")) == "new"
    assert without_texts(tiff, lambda _: True) is None
