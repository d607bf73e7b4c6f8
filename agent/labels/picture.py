"""The labels of one picture: bytes in, bytes out. Everything here takes a while, and belongs into a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.labels import aigc, parameters
from agent.labels.container import BrokenPicture, Container, DoesNotFit
from agent.labels.credentials import CannotSign
from agent.labels.exif import BrokenExif, user_comment, with_user_comment, without_texts
from agent.labels.jpeg import JpegFile
from agent.labels.png import PngFile
from agent.labels.webp import WebpFile
from agent.labels.xmp import SOURCE_TYPE, Property, add_properties, find_property

if TYPE_CHECKING:
    from agent.labels.credentials import Credentials
    from agent.labels.mark import Mark

#: Formats that can carry labels, and how their files begin.
FORMATS: dict[type[Container], bytes] = {
    PngFile: b"\x89PNG\r\n\x1a\n",
    JpegFile: b"\xff\xd8\xff",
    WebpFile: b"RIFF",
}

#: Under these names ComfyUI writes the whole prompt and the editor's workflow into its files.
PROMPTS = ("prompt", "workflow")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be written into one picture, and removed from it."""

    iptc: bool = False
    aigc: str | None = None  #: the label as JSON
    parameters: str | None = None
    mark: Mark | None = None
    most_pixels: int | None = None  #: of a picture that is drawn upon; None: any
    is_unwanted: Callable[[], bool] = bool  #: asked between frames: nobody waits any more; bool() is False
    credentials: Credentials | None = None
    remove_prompt: bool = False
    extra_names: tuple[str, ...] = ()  #: further names under which ComfyUI was told to write something
    title: str = "picture"


def parse(data: bytes) -> Container | None:
    """The file taken apart; None where it is none of FORMATS. Raises BrokenPicture."""
    for kind, start in FORMATS.items():
        if data.startswith(start) and (kind is not WebpFile or data[8:12] == b"WEBP"):
            return kind.parse(data)
    return None


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None as `parse`. Raises BrokenPicture."""
    picture = parse(data)
    return picture.size if picture is not None else None


class Labelled(NamedTuple):
    """A picture with its labels, and the names of those that it has no room for, or too many pixels."""

    data: bytes
    missing: tuple[str, ...] = ()


def label(data: bytes, wanted: Wanted) -> Labelled | None:
    """The picture with its labels; None where its format cannot carry any.

    Raises BrokenPicture, DoesNotFit, CannotSign, and whatever Pillow meets in a picture that is to have a mark.
    """
    missing: tuple[str, ...] = ()
    picture = parse(data)
    if picture is None:
        return None
    if wanted.mark is not None:
        from agent.safety.picture import TooManyPixels  # noqa: PLC0415 - Pillow

        try:
            drawn = parse(wanted.mark.draw(data, wanted.most_pixels, wanted.is_unwanted))
        except TooManyPixels:
            missing = ("mark",)
        else:
            assert drawn is not None  # noqa: S101 - it has the same format
            drawn.adopt(picture)
            picture = drawn
    picture.remove_credentials()  # they would be broken
    if wanted.remove_prompt:
        _remove_prompt(picture, (*PROMPTS, *wanted.extra_names))
    if wanted.parameters is not None:
        try:
            _write_parameters(picture, wanted.parameters)
        except DoesNotFit:  # a JPEG's 64 KB; no duty depends on them
            missing = (*missing, "parameters")
    properties = [SOURCE_TYPE] if wanted.iptc else []
    if wanted.aigc is not None:
        properties.append(aigc.aigc_property(wanted.aigc))
        if isinstance(picture, PngFile):
            picture.set_text(aigc.KEYWORD, wanted.aigc)
    if properties:
        add_properties(picture, properties)
    labelled = picture.to_bytes()
    if wanted.credentials is not None:
        labelled = wanted.credentials.sign(labelled, picture.media_type, wanted.title)
    return Labelled(labelled, missing)


def carry(source: bytes, converted: bytes, credentials: Credentials | None) -> bytes:
    """A picture that was made of another one by converting it, with the other's labels. Its content credentials do not
    fit another file: new ones are made. Raises CannotSign."""
    try:
        before, after = parse(source), parse(converted)
    except BrokenPicture:  # then it was not labelled
        return converted
    if before is None or after is None:
        return converted
    if (packet := before.xmp) is not None:
        found = aigc.find_label(packet)
        try:
            after.set_xmp(packet)
        except DoesNotFit:  # then without what others have written
            add_properties(after, _ours(packet, found))
        if isinstance(after, PngFile) and found is not None:
            after.set_text(aigc.KEYWORD, found)
    if (text := _read_parameters(before)) is not None:
        with suppress(DoesNotFit):
            _write_parameters(after, text)
    carried = after.to_bytes()
    if not before.has_credentials:
        return carried
    if credentials is None:
        raise CannotSign(
            "a conversion breaks its content credentials, and there is no certificate to make new ones"
        )
    return credentials.sign(carried, after.media_type, "picture")


def _ours(packet: bytes, label: str | None) -> list[Property]:
    """The labels in an XMP packet."""
    has_type = find_property(packet, SOURCE_TYPE.namespace, SOURCE_TYPE.name) == SOURCE_TYPE.value
    return [*([SOURCE_TYPE] if has_type else []), *([aigc.aigc_property(label)] if label is not None else [])]


def _write_parameters(picture: Container, text: str) -> None:
    if isinstance(picture, PngFile):
        picture.set_text(parameters.KEYWORD, text)
    else:
        picture.set_exif(with_user_comment(picture.exif, text))


def _read_parameters(picture: Container) -> str | None:
    if isinstance(picture, PngFile):
        return picture.text(parameters.KEYWORD)
    try:
        found = user_comment(picture.exif) if picture.exif is not None else None
    except BrokenExif:
        return None
    return found if found is not None and _are_parameters(found) else None


def _remove_prompt(picture: Container, names: Iterable[str]) -> None:
    """Remove what ComfyUI, or a node that saves files in its place, has written of the prompt."""
    starts = tuple(f"{name.lower()}:" for name in names)

    def holds_prompt(text: str) -> bool:
        return (
            text.lstrip().lower().startswith(starts)
            or ('"class_type"' in text and '"inputs"' in text)
            or _are_parameters(text)
        )

    keywords = {name.lower() for name in (*names, parameters.KEYWORD)}
    picture.remove_texts(lambda keyword, text: keyword.lower() in keywords or holds_prompt(text))
    if (tiff := picture.exif) is not None and (left := without_texts(tiff, holds_prompt)) != tiff:
        picture.set_exif(left)


def _are_parameters(text: str) -> bool:
    return "Steps: " in text and "Sampler: " in text
