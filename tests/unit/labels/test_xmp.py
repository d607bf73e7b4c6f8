"""XMP packets: ours beside those that a picture has."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from agent.labels.picture import Wanted, label, parse
from agent.labels.xmp import SOURCE_TYPE, Property, find_property, with_properties
from tests.exif_tool import ExifTool
from tests.unit.labels.files import OTHER_XMP, encode, encoded, noise

NS = SOURCE_TYPE.namespace
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def packet(inside: str, attributes: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="urn:x" xmlns:e="{NS}" {attributes}>{inside}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def test_others_are_kept(tool: ExifTool) -> None:
    tags = tool.read(_png(with_properties(OTHER_XMP, [SOURCE_TYPE])))
    assert tags["XMP-dc:Format"] == "image/x-test"
    assert tags["XMP-dc:Subject"] in ("one", ["one"])
    assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE.value


@pytest.mark.parametrize(
    "before",
    [
        packet("<e:DigitalSourceType>http://x/old</e:DigitalSourceType>"),
        packet("", 'e:DigitalSourceType="http://x/old"'),
    ],
)
def test_an_older_value_is_replaced(before: bytes) -> None:
    after = with_properties(before, [SOURCE_TYPE])
    assert b"http://x/old" not in after
    assert after.count(b"DigitalSourceType>") == 2
    assert after.count(b'about="urn:x"') == 2
    assert find_property(after, NS, "DigitalSourceType") == SOURCE_TYPE.value


def test_attributes_are_found_too() -> None:
    assert find_property(packet("", 'e:DigitalSourceType="x"'), NS, "DigitalSourceType") == "x"
    assert find_property(packet(""), NS, "DigitalSourceType") is None
    assert find_property(b"", NS, "DigitalSourceType") is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no XML",
        b"<x:xmpmeta/>",
        b"<a/>",
        b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><a>&d;</a>',
        '<!DOCTYPE a [<!ENTITY b "cc">]><a>&b;</a>'.encode("utf-16"),
        b"<a>" * 50_000 + b"</a>" * 50_000,
        OTHER_XMP[:200],
        OTHER_XMP.replace(b"xmlns:dc", b"xmlns:dd"),
        b"\xff\xfe<a",
    ],
)
def test_what_cannot_be_read_is_replaced(broken: bytes) -> None:
    after = with_properties(broken, [SOURCE_TYPE])
    assert find_property(after, NS, "DigitalSourceType") == SOURCE_TYPE.value
    assert b"ENTITY" not in after


def test_values_are_escaped(tool: ExifTool) -> None:
    value = "\"<&>'猫"
    odd = Property("http://purl.org/dc/elements/1.1/", "dc", "format", value)
    assert find_property(with_properties(OTHER_XMP, [odd]), odd.namespace, odd.name) == value
    assert tool.read(_png(with_properties(None, [odd])))["XMP-dc:Format"] == value


@pytest.mark.parametrize("parts", [1, 5])
def test_a_jpeg_whose_xmp_is_full_gets_extended_xmp(parts: int, tool: ExifTool) -> None:
    long = "x" * 13_000
    subjects = "".join(f"<rdf:li>{n}{long}</rdf:li>" for n in range(5))
    full = OTHER_XMP.replace(b"<rdf:li>one</rdf:li>", subjects.encode())
    assert len(full) < 65_502
    data = encode(noise(), "JPEG", xmp=full)
    for _ in range(parts):  # the second time there is extended XMP already
        found = label(data, Wanted(iptc=True, aigc="{}"))
        assert found is not None
        assert encoded(found.data) == encoded(data)
        data = found.data
    picture = parse(data)
    assert picture is not None
    assert len(picture.xmp or b"") < 2000
    tags = tool.read(data)
    assert tags["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPE.value
    assert tags["XMP-TC260:Aigc"] == "{}"
    assert tags["XMP-dc:Subject"] == [f"{n}{long}" for n in range(5)]
    assert tags["XMP-dc:Format"] == "image/x-test"
    assert Image.open(io.BytesIO(data)).size == (32, 24)


def _png(xmp: bytes) -> bytes:
    picture = parse(encode(noise(), "PNG"))
    assert picture is not None
    picture.set_xmp(xmp)
    return picture.to_bytes()
