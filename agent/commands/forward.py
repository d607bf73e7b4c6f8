"""`comfyui-agent forward`: an agent anywhere, as the ComfyUI of this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated

import typer

from agent.commands.remote import DEFAULT_URL, ApiKey, Stop, Url, run_until_stopped

#: Where ComfyUI itself listens, and where its clients look for it.
COMFYUI_PORT = 8188


def forward(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of this machine to open.", metavar="PORT")
    ] = COMFYUI_PORT,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Make an agent look like a ComfyUI on this machine. That is for comfy-cli, scripts and the editor, which can send
    no API key and know no HTTPS. The agent may be anywhere, and must let them in: AGENT_PASS_THROUGH=all.

    Other machines cannot reach the port; every program of this one can, and uses your key by it. Ctrl-C ends it.

    Exit code: 0 after Ctrl-C, 1 if the agent does not let ComfyUI's clients in, 2 if the command line is wrong (also a
    wrong key, or a port that is in use), 3 if the agent cannot be reached.
    """
    run_until_stopped(_forward(port, url, api_key))


async def _forward(port: int, url: str, api_key: str | None) -> int:
    import asyncio  # noqa: PLC0415

    from agent.commands.forwarder import Forwarder  # noqa: PLC0415

    try:
        forwarder = Forwarder(url, api_key or None)
    except ValueError as exc:
        raise Stop(f"{exc}") from None
    async with forwarder:
        await forwarder.check()
        try:
            await forwarder.listen(port)
        except OSError as exc:
            raise Stop(
                f"port {port} cannot be opened: {os.strerror(exc.errno or 0)}. Choose another with --port."
            ) from None
        typer.echo(
            f"http://127.0.0.1:{port} is now the ComfyUI of {forwarder.shown_url}. Ctrl-C ends it.", err=True
        )
        with suppress(asyncio.CancelledError):  # by a signal: this is how it ends when all is well
            await asyncio.Event().wait()
        return 0
