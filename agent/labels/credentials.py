"""C2PA content credentials: a signed statement inside the file of who made it, and that a model did."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.labels.xmp import SOURCE_TYPE_URL

if TYPE_CHECKING:
    from c2pa import Context

#: A grey pixel, signed at the start: what is wrong with certificate or key shall not be found by the first task.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a4944415478da636800000082008177cd72b6"
    "0000000049454e44ae426082"
)

#: So much is repeated of what the library says.
LONGEST_REASON = 300


class CannotSign(ValueError):
    """Certificate and key cannot be used, or the library is missing, or it failed."""


class Credentials:
    """Signs pictures with the operator's certificate."""

    def __init__(self, certificate: str, key: str, algorithm: str) -> None:
        """Read the files and try them. Raises CannotSign."""
        try:
            from c2pa import Context, Settings  # noqa: PLC0415 - an extra, and 0.2 s
        except ImportError as exc:
            raise CannotSign(
                f"c2pa-python cannot be imported ({exc}); pip install 'comfyui-agent[c2pa]'"
            ) from None
        self._certificate, self._key = _read(certificate), _read(key)
        self._algorithm = algorithm
        # By default the library embeds a thumbnail, which may be larger than the picture.
        settings = Settings.from_dict(
            {"builder": {"thumbnail": {"enabled": False}, "created_assertion_labels": ["c2pa.actions"]}}
        )
        self._context: Context = Context(settings)
        self._check(self.sign(PIXEL, "image/png", "pixel.png"))

    def __repr__(self) -> str:
        return f"Credentials({self._algorithm})"

    def sign(self, data: bytes, media_type: str, title: str) -> bytes:
        """The picture with credentials; those that it had are replaced. Any change after this breaks them. Takes a
        while. Raises CannotSign."""
        from c2pa import Builder, C2paError, C2paSignerInfo, Signer  # noqa: PLC0415

        out = io.BytesIO()
        try:
            # No time stamp: it would be fetched from an authority for each picture.
            info = C2paSignerInfo(self._algorithm, self._certificate, self._key, None)
            with (
                Signer.from_info(info) as signer,
                Builder(_manifest(title), context=self._context) as builder,
            ):
                builder.sign(signer, media_type, io.BytesIO(data), out)
        except (C2paError, ValueError) as exc:
            raise CannotSign(str(exc)[:LONGEST_REASON]) from None
        return out.getvalue()

    def _check(self, signed: bytes) -> None:
        from c2pa import C2paError, Reader  # noqa: PLC0415

        try:
            with Reader("image/png", io.BytesIO(signed), context=self._context) as reader:
                state = reader.get_validation_state()
        except C2paError as exc:
            raise CannotSign(str(exc)[:LONGEST_REASON]) from None
        if state not in ("Valid", "Trusted"):
            raise CannotSign("what they sign cannot be verified")


def _manifest(title: str) -> str:
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE_URL,
        "softwareAgent": {"name": "ComfyUI"},
    }
    return json.dumps(
        {
            "title": title,
            "claim_generator_info": [{"name": "comfyui-agent", "version": __version__}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
        }
    )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise CannotSign(f"{path} cannot be read ({exc.strerror})") from None
