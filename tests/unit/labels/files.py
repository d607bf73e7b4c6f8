"""Pictures of every kind that the labels must cope with, and their parts seen without our own parsers."""

from __future__ import annotations

import io
import struct
from typing import Any

from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageSequence
from PIL.PngImagePlugin import PngInfo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

#: Modes that each format can be made of.
MODES = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
}


def noise(size: tuple[int, int] = (32, 24), mode: str = "RGB", seed: int = 1) -> Image.Image:
    """A picture with many colours."""
    width, height = size
    grey = Image.new("L", size)
    grey.putdata([(x * 7 * seed + y * 13 + x * y) % 256 for y in range(height) for x in range(width)])
    if mode == "I;16":
        return grey.convert("I").point(lambda value: value * 257).convert("I;16")
    if mode in ("RGBA", "LA"):
        opaque = noise(size, mode[:-1], seed)
        opaque.putalpha(grey.rotate(180))
        return opaque
    if mode == "RGB":
        return Image.merge("RGB", (grey, grey.rotate(180), grey.point(lambda value: 255 - value)))
    return grey.convert("RGB").convert(mode) if mode != "L" else grey


def exif_of(**tags: str) -> bytes:
    """EXIF data with these tags, by their names in ExifTags.Base; as Pillow writes them."""
    exif = Image.Exif()
    for name, value in tags.items():
        exif[{"make": 0x010F, "model": 0x0110, "description": 0x010E, "artist": 0x013B}[name]] = value
    return exif.tobytes()


def comfyui_png(prompt: str = '{"3": {"class_type": "KSampler", "inputs": {}}}', **more: str) -> bytes:
    """As ComfyUI's SaveImage writes it."""
    info = PngInfo()
    info.add_text("prompt", prompt)
    for name, value in more.items():
        info.add_text(name, value)
    return encode(noise(), "PNG", pnginfo=info)


def encode(image: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """A file in one of the formats, with whatever Pillow can put into it."""
    kind = draw(st.sampled_from(list(MODES)))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    image = noise(size, draw(st.sampled_from(MODES[kind])), draw(st.integers(1, 9)))
    how: dict[str, Any] = {}
    if draw(st.booleans()):
        how["exif"] = exif_of(artist="Somebody", model="Camera")
    if draw(st.booleans()) and image.mode in ("RGB", "RGBA", "P"):
        how["icc_profile"] = PROFILE
    if draw(st.booleans()) and kind in ("JPEG", "WEBP"):
        how["xmp"] = draw(st.sampled_from([OTHER_XMP, b"", b"no XML"]))
    if kind == "JPEG":
        how |= {
            "progressive": draw(st.booleans()),
            "quality": draw(st.integers(1, 95)),
            "optimize": draw(st.booleans()),
            "comment": draw(st.sampled_from([b"", b"a comment"])),
            "dpi": draw(st.sampled_from([(0, 0), (300, 300)])),
        }
    elif kind == "WEBP":
        how["lossless"] = draw(st.booleans())
    else:
        info = PngInfo()
        if draw(st.booleans()):
            info.add_text("Software", "Somebody's", zip=draw(st.booleans()))
        if draw(st.booleans()):
            info.add_itxt("XML:com.adobe.xmp", OTHER_XMP.decode(), zip=draw(st.booleans()))
        how["pnginfo"] = info
    if kind != "JPEG" and image.mode in ("RGB", "RGBA") and draw(st.booleans()):
        how |= {
            "save_all": True,
            "append_images": [noise(size, image.mode, n) for n in (2, 3)],
            "duration": 70,
        }
    return encode(image, kind, **how)


OTHER_XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/x-test">'
    b"<dc:subject><rdf:Bag><rdf:li>one</rdf:li></rdf:Bag></dc:subject></rdf:Description>"
    b"</rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)


def frames(data: bytes) -> list[tuple[str, tuple[int, int], bytes, Any]]:
    """Everything that is decoded: mode, size and pixels of each frame, and how long it is shown."""
    with Image.open(io.BytesIO(data)) as image:
        return [(f.mode, f.size, f.tobytes(), f.info.get("duration")) for f in ImageSequence.Iterator(image)]


def encoded(data: bytes) -> bytes:
    """The bytes that the pixels are decoded from, found by the formats' plainest rules."""
    if data.startswith(b"\xff\xd8"):
        at = 2
        tables = b""
        while data[at + 1] != 0xDA:
            length = struct.unpack(">H", data[at + 2 : at + 4])[0]
            if not 0xE0 <= data[at + 1] <= 0xFE:
                tables += data[at : at + 2 + length]
            at += 2 + length
        return tables + data[at:]
    if data.startswith(b"RIFF"):
        kinds, at, length = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"), 12, struct.Struct("<I")
    else:
        kinds, at, length = (
            (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"fdAT", b"fcTL", b"acTL"),
            8,
            struct.Struct(">I"),
        )
    found = b""
    while at < len(data):
        if data.startswith(b"RIFF"):
            kind, size = data[at : at + 4], length.unpack(data[at + 4 : at + 8])[0]
            body, at = data[at + 8 : at + 8 + size], at + 8 + size + size % 2
        else:
            kind, size = data[at + 4 : at + 8], length.unpack(data[at : at + 4])[0]
            body, at = data[at + 8 : at + 8 + size], at + 12 + size
        if kind in kinds:
            found += kind + body
    return found
