"""Turns what happens to the nodes of one prompt into events, in ComfyUI's order and with its fields."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from comfyui.simulator.graph import Graph
    from comfyui.simulator.options import Options
    from comfyui.simulator.sockets import Sockets

JPEG, PNG = 1, 2
JPEG_QUALITY = 95


class Progress:
    """The progress of one prompt. Events go to its client, or to everybody if it has none."""

    def __init__(
        self, prompt_id: str, client_id: str | None, graph: Graph, sockets: Sockets, options: Options
    ) -> None:
        self._prompt_id, self._client_id = prompt_id, client_id
        self._graph, self._sockets, self._options = graph, sockets, options
        self._states: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> None:
        self._states[node_id] = self._state(node_id, 0.0, 1.0, "running")
        self._send_states()
        if self._client_id is not None:
            display = self._graph.root(node_id)
            self._sockets.running_node = display
            self._send("executing", {"node": node_id, "display_node": display, "prompt_id": self._prompt_id})

    def update(
        self, node_id: str, value: float, maximum: float, picture: Image.Image | None, kind: str
    ) -> None:
        """One step of a node; the preview goes before `progress` with metadata, after it without."""
        self._states[node_id] = self._state(node_id, value, maximum, "running")
        self._send_states()
        with_metadata = self._options.progress_state and self._sockets.takes_preview_metadata(self._client_id)
        frame = None if picture is None else self._frame(picture, kind)
        if frame and with_metadata:
            about = self._identity(node_id) | {"image_type": f"image/{kind.lower()}"}
            self._sockets.send_preview_with_metadata(about, frame, self._client_id)
        data = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": node_id}
        self._send("progress", data)
        if frame and not with_metadata:
            self._sockets.send_preview(JPEG if kind == "JPEG" else PNG, frame, self._client_id)

    def finish(self, node_id: str) -> None:
        """The node is done; one that did not run (cached) shows 1 of 1."""
        state = self._states.get(node_id) or self._state(node_id, 0, 1, "running")
        self._states[node_id] = state | {"value": state["max"], "state": "finished"}
        self._send_states()

    def executed(self, node_id: str, ui: dict[str, Any] | None) -> None:
        if self._client_id is not None:
            data = {"node": node_id, "display_node": self._graph.root(node_id), "output": ui}
            self._send("executed", data | {"prompt_id": self._prompt_id})

    def _send_states(self) -> None:
        if self._options.progress_state:
            self._send("progress_state", {"prompt_id": self._prompt_id, "nodes": dict(self._states)})

    def _state(self, node_id: str, value: float, maximum: float, state: str) -> dict[str, Any]:
        return {"value": value, "max": maximum, "state": state} | self._identity(node_id)

    def _identity(self, node_id: str) -> dict[str, Any]:
        root = self._graph.root(node_id)
        return {
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": root,
            "parent_node_id": self._graph.parent(node_id),
            "real_node_id": root,
        }

    def _send(self, event: str, data: dict[str, Any]) -> None:
        self._sockets.send(event, data, self._client_id)

    def _frame(self, picture: Image.Image, kind: str) -> bytes:
        """Encode; a JPEG is a preview and made as large as --preview-size, a PNG goes out as it is."""
        buffer = io.BytesIO()
        if kind == "PNG":
            picture.save(buffer, format="PNG", compress_level=1)
        else:
            by = self._options.preview_size / max(picture.size)
            size = (max(1, int(picture.width * by)), max(1, int(picture.height * by)))
            enlarged = picture.resize(size, Image.Resampling.BILINEAR)
            enlarged.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()
