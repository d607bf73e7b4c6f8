"""How a browser is told to treat an output: show it, or save it under its name."""

from __future__ import annotations

from urllib.parse import quote

from agent.tasks.record import Output

#: Kinds that a browser may show in place; anything else (HTML, SVG, ...) could run scripts where it is served from.
SHOWN_IN_PLACE = (
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/avif",
    "video/",
    "audio/",
    "text/plain",
)


def content_disposition(output: Output) -> str:
    """The header's value."""
    place = "inline" if output.media_type.startswith(SHOWN_IN_PLACE) else "attachment"
    return f"{place}; filename*=UTF-8''{quote(output.filename, safe='')}"
