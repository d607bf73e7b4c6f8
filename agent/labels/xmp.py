"""XMP packets: properties in RDF/XML (ISO 16684-1). Those that a picture has already are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from agent.labels.container import Container, DoesNotFit
from agent.labels.jpeg import JpegFile

if TYPE_CHECKING:
    from xml.dom.minidom import Document, Element

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP_NOTE = "http://ns.adobe.com/xmp/note/"

#: Packets of more than this are not taken apart, but replaced.
LONGEST_MERGED = 4 * 2**20

_PACKET = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{}\n<?xpacket end="w"?>'


class Property(NamedTuple):
    """A property with a text as its value."""

    namespace: str
    prefix: str
    name: str
    value: str


#: Says that a model made the whole picture (IPTC Photo Metadata 2025.1; newscodes of IPTC).
SOURCE_TYPE_URL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SOURCE_TYPE = Property(
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "Iptc4xmpExt", "DigitalSourceType", SOURCE_TYPE_URL
)


def add_properties(picture: Container, properties: Sequence[Property]) -> None:
    """Write properties into a picture's XMP beside those that are there. Raises DoesNotFit."""
    before = picture.xmp
    try:
        picture.set_xmp(with_properties(before, properties))
    except DoesNotFit:
        if not isinstance(picture, JpegFile):
            raise
        try:
            _split(picture, before, properties)
        except RecursionError:
            raise DoesNotFit("the XMP packet is nested too deeply") from None


def with_properties(packet: bytes | None, properties: Sequence[Property]) -> bytes:
    """A packet with these properties in place of any of the same name, and with all others that it had. One that
    cannot be read is replaced."""
    try:
        return _serialize(_merge(packet, properties) or _fresh(properties))
    except RecursionError:
        return _serialize(_fresh(properties))


def find_property(packet: bytes, namespace: str, name: str) -> str | None:
    """The text of a property."""
    try:
        document = _parse(packet)
        rdf = _rdf(document) if document is not None else None
    except RecursionError:
        return None
    for description in _descriptions(rdf) if rdf is not None else []:
        if description.hasAttributeNS(namespace, name):
            return str(description.getAttributeNS(namespace, name))
        for child in description.childNodes:
            if (child.namespaceURI, getattr(child, "localName", None)) == (namespace, name):
                return "".join(str(text.data) for text in child.childNodes if hasattr(text, "data"))
    return None


def _merge(packet: bytes | None, properties: Sequence[Property]) -> str | None:
    """None where there is nothing to merge with."""
    document = _parse(packet)
    if document is None or (rdf := _rdf(document)) is None:
        return None
    _remove(rdf, {(p.namespace, p.name) for p in properties})
    described = _descriptions(rdf)
    # Descriptions of one packet are of one thing, so their names of it must be the same.
    about = described[0].getAttributeNS(RDF, "about") if described else ""
    _graft(document, rdf, _fresh(properties, about))
    return _xml(document)


def _xml(document: Document) -> str:
    return str(document.documentElement.toxml()) if document.documentElement else ""


def _split(picture: JpegFile, before: bytes | None, properties: Sequence[Property]) -> None:
    """Move what a JPEG had already into its extended XMP, and write only ours into the first segment."""
    parts = [document for packet in (before, picture.extended_xmp) if (document := _parse(packet))]
    ours = {(p.namespace, p.name) for p in properties} | {(XMP_NOTE, "HasExtendedXMP")}
    first, first_rdf = parts[0], _rdf(parts[0])
    if first_rdf is None:
        raise DoesNotFit("the XMP packet has no RDF")
    _remove(first_rdf, ours)
    for other in parts[1:]:
        _graft(first, first_rdf, _xml(other))
    name = picture.set_extended_xmp(_xml(first).encode())
    note = Property(XMP_NOTE, "xmpNote", "HasExtendedXMP", name)
    picture.set_xmp(with_properties(None, [*properties, note]))


def _fresh(properties: Iterable[Property], about: str = "") -> str:
    lines = "".join(
        f'\n  <rdf:Description rdf:about="{escape(about, {chr(34): "&quot;"})}" xmlns:{p.prefix}="{p.namespace}">'
        f"\n   <{p.prefix}:{p.name}>{escape(p.value)}</{p.prefix}:{p.name}>"
        "\n  </rdf:Description>"
        for p in properties
    )
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n <rdf:RDF xmlns:rdf="{RDF}">{lines}\n </rdf:RDF>\n</x:xmpmeta>'


def _serialize(meta: str) -> bytes:
    return _PACKET.format(meta).encode()


def _parse(packet: bytes | None) -> Document | None:
    """None where there is none that can be read, and for one with entities, which may grow without end."""
    if not packet or len(packet) > LONGEST_MERGED or _has_entities(packet):
        return None
    from xml.dom import minidom  # noqa: PLC0415 - few pictures have XMP yet
    from xml.parsers.expat import ExpatError  # noqa: PLC0415

    try:
        # No DTD can be in it, so nothing is fetched and nothing grows.
        return minidom.parseString(packet.strip(b"\0 \r\n\t"))  # noqa: S318
    except (ExpatError, ValueError, LookupError, RecursionError):
        return None


def _has_entities(packet: bytes) -> bool:
    plain = packet.replace(b"\0", b"")  # it may be UTF-16
    return b"<!DOCTYPE" in plain or b"<!ENTITY" in plain


def _rdf(document: Document) -> Element | None:
    found = document.getElementsByTagNameNS(RDF, "RDF")
    return found[0] if found else None


def _descriptions(rdf: Element) -> list[Element]:
    return [
        child
        for child in rdf.childNodes
        if child.nodeType == child.ELEMENT_NODE and child.namespaceURI == RDF
    ]


def _remove(rdf: Element, names: set[tuple[str, str]]) -> None:
    """Properties are elements within a description, or, in short, attributes of it."""
    for description in _descriptions(rdf):
        for namespace, name in names:
            if description.hasAttributeNS(namespace, name):
                description.removeAttributeNS(namespace, name)
        for child in list(description.childNodes):
            if (child.namespaceURI, getattr(child, "localName", None)) in names:
                description.removeChild(child)


def _graft(document: Document, rdf: Element, other: str) -> None:
    """Append the descriptions of another packet."""
    parsed = _parse(other.encode())
    source = _rdf(parsed) if parsed else None
    for description in _descriptions(source) if source is not None else []:
        rdf.appendChild(document.importNode(description, deep=True))
