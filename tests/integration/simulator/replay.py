"""Plays a recording against a simulator: sends what was sent, and collects what comes back beside what came then.

Order between connections is kept by waiting: a step is sent once every message that the recording shows before it has
arrived. Where nothing can be waited for, because the recording only let time pass, the scenario sets a pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from tests.integration.simulator.process import Simulator
from tests.integration.simulator.scenarios import PICTURE, Scenario
from tests.integration.simulator.transcript import (
    Normaliser,
    blanked,
    collapsed,
    joined_failures,
    load,
    output_orders,
    submissions,
)

DEADLINE = 15  #: seconds that any awaited message may take
QUIET = 0.05  #: seconds in which a message too many would arrive on the loopback
MAGIC = 4  #: bytes at the start of a file that tell its kind

HEADERS = ("Content-Type", "Content-Disposition", "Accept-Ranges", "Content-Range")
CORS = "Access-Control-Allow-"


@dataclass
class Connection:
    """One WebSocket of ours."""

    socket: aiohttp.ClientWebSocketResponse
    messages: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.messages.append(json.loads(message.data))
            else:
                self.messages.append({"binary": decode(message.data)})
            self.news.set()
        self.news.set()

    async def wait(self, count: int) -> bool:
        """Whether that many messages (repeated status counted once) arrive before the deadline."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                while len(collapsed(self.messages)) < count and not self.reader.done():
                    self.news.clear()
                    await self.news.wait()
        return len(collapsed(self.messages)) >= count

    async def close(self, *, abruptly: bool = False) -> None:
        if abruptly:
            transport = self.socket.get_extra_info("transport") or self.socket._response.connection.transport
            transport.abort()
        else:
            await self.socket.close()
        await self.reader


def decode(content: bytes) -> dict[str, Any]:
    """A binary message as the recorder writes it down, without what depends on the picture."""
    (event,) = struct.unpack_from(">I", content)
    if event == 1:
        (image_type,) = struct.unpack_from(">I", content, 4)
        return {"event": event, "image_type": image_type, "head": content[8:11].hex()}
    (length,) = struct.unpack_from(">I", content, 4)
    inner, rest = content[8 : 8 + length], content[8 + length :]
    if event == 3:
        return {"event": event, "node_id": inner.decode(), "text": rest.decode()}
    return {"event": event, "metadata": json.loads(inner), "head": rest[:3].hex()}


def recorded_message(message: dict[str, Any]) -> dict[str, Any]:
    """The recorder's form in ours."""
    if "binary" not in message:
        return message
    binary = message["binary"]
    kept = {
        key: binary[key] for key in ("event", "image_type", "node_id", "text", "metadata") if key in binary
    }
    if binary["event"] == 1:
        kept["head"] = binary["head_hex"][16:22]
    if binary["event"] == 4:
        kept["head"] = binary["image_head_hex"][:6]
    return {"binary": kept}


@dataclass
class Player:
    """One run of one scenario."""

    scenario: Scenario
    base: Path

    def __post_init__(self) -> None:
        self.steps = joined_failures(self.scenario.amend(load(self.scenario.recording)["steps"]))
        self.connections: dict[str, Connection] = {}
        self.expected: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[int, Any] = {}
        self.differences: list[tuple[str, Any, Any]] = []
        self._ids: dict[str, str] = {}
        self._etags: dict[str, str] = {}
        self._orders = output_orders(self.steps)
        self._uploads = iter(self.scenario.uploads)
        self._latest = 0.0
        self._accepted = submissions(self.steps)

    async def play(self) -> None:
        """Run all steps; afterwards `report` says what differed."""
        self.scenario.prepare(self.base)
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        self.session = aiohttp.ClientSession(timeout=timeout)
        self.server = Simulator(self.base, self._switches())
        try:
            await self.server.start()
            await self._bring_to_number()
            for index, step in enumerate(self.steps):
                await self._step(index, step)
            await self._settle(float("inf"))
            await asyncio.sleep(QUIET)  # nothing to wait for: that no message too many comes is the point
        finally:
            for connection in self.connections.values():
                await connection.close()
            await self.session.close()
            await self.server.stop()

    def _switches(self) -> tuple[str, ...]:
        """Those of the recording's server that mean something here, and the scenario's own."""
        argv = load(self.scenario.recording).get("server", {}).get("argv", [])
        meant = ("--preview-method", "--preview-size", "--cache-lru", "--max-upload-size")
        found = [word for at, word in enumerate(argv) if word in meant or (at and argv[at - 1] in meant)]
        found += [
            word for word in argv if word in {"--cache-none", "--enable-cors-header", "--disable-metadata"}
        ]
        return (*found, *self.scenario.switches)

    async def _bring_to_number(self) -> None:
        """The recordings share servers, so the queue counter starts where the earlier ones left it: rejected
        requests raise it too."""
        for prompt in self.scenario.before:
            await self._post({"prompt": prompt})
            async with asyncio.timeout(DEADLINE):
                while (await self._get("/prompt"))["exec_info"]["queue_remaining"]:
                    await asyncio.sleep(0.01)  # the prompt has no client, so no event tells its end
        for _ in range(self.scenario.first_number - len(self.scenario.before)):
            await self._post({})

    async def _post(self, body: dict[str, Any]) -> None:
        async with self.session.post(f"{self.server.url}/prompt", json=body) as answer:
            await answer.read()

    async def _get(self, path: str) -> Any:
        async with self.session.get(self.server.url + path) as answer:
            return await answer.json()

    async def _step(self, index: int, step: dict[str, Any]) -> None:
        if "ws" in step:
            self.expected[step["conn"]].append((step["t"], recorded_message(step["ws"])))  # type: ignore[arg-type]
            self._latest = max(self._latest, step["t"])
            return
        if "restarted" in step.get("note", "") and "http" not in step:
            await self.server.stop()
            self.server = Simulator(self.base)
            await self.server.start()
        if not step.keys() & {"http", "ws_open", "ws_send", "client"}:
            return
        await self._settle(step["t"])
        await asyncio.sleep(max(0.0, step["t"] - self._latest) * self.scenario.pace)
        self._latest = max(self._latest, step["t"], step.get("t_end", 0))
        if "http" in step:
            await self._http(index, step["http"])
        elif "ws_open_failed" in step:
            await self._open_in_vain(index, step)
        elif "ws_open" in step:
            socket = await self.session.ws_connect(self.server.url + step["ws_open"]["path"], max_msg_size=0)
            self.connections[step["conn"]], self.expected[step["conn"]] = Connection(socket), []
        elif "ws_send" in step:
            sent = step["ws_send"]
            await self.connections[step["conn"]].socket.send_str(
                sent if isinstance(sent, str) else json.dumps(sent)
            )
        else:
            await self.connections[step["conn"]].close(abruptly="dropped" in step["client"])

    async def _open_in_vain(self, index: int, step: dict[str, Any]) -> None:
        name, _, value = step["ws_open_failed"]["sent_header"].partition(": ")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await self.session.ws_connect(self.server.url + step["ws_open"]["path"], headers={name: value})
        assert refused.value.status == step["ws_open_failed"]["status"], f"step {index}"

    async def _settle(self, until: float) -> None:
        """Wait for the messages that the recording shows up to this time."""
        for name, connection in self.connections.items():
            due = collapsed([message for at, message in self.expected[name] if at <= until])
            if not await connection.wait(len(due)):
                break  # the comparison at the end shows what is missing

    async def _http(self, index: int, http: dict[str, Any]) -> None:
        path = self._translate(http["path"])
        if path.partition("?")[0] in self.scenario.skipped_paths:
            return
        body: dict[str, Any] = {}
        if "json" in http:
            body["data"] = json.dumps(self._ordered(http))
        elif "body" in http:
            body["data"] = io.BytesIO(self.scenario.bodies.get(http["body"], http["body"]).encode())
        elif "multipart" in http:
            # The recorder used aiohttp's percent-encoding of names once, to show that nobody decodes it.
            quoted = "%20" in json.dumps(http.get("response_json"))
            body["data"] = self._form(http["multipart"], quoted=quoted)
        headers = {key: self._translate(value) for key, value in http.get("headers", {}).items()}
        url = aiohttp.client.URL(self.server.url + path, encoded=True)
        async with self.session.request(http["method"], url, headers=headers, **body) as answer:
            content = await answer.read()
            self._note(index, http, answer, content)

    def _ordered(self, http: dict[str, Any]) -> Any:
        """The recorded body, its output nodes in the order in which the recording's server took them."""
        body = json.loads(self._translate(json.dumps(http["json"])))
        prompt_id = (http.get("response_json") or {}).get("prompt_id") if http["path"] == "/prompt" else None
        order = self._orders.get(prompt_id or "", [])
        if order and isinstance(body.get("prompt"), dict):
            nodes = body["prompt"]
            others = [node_id for node_id in nodes if node_id not in order]
            outputs = [node_id for node_id in order if node_id in nodes]
            body["prompt"] = {node_id: nodes[node_id] for node_id in [*others, *outputs]}
        return body

    def _translate(self, text: str) -> str:
        """Recorded ids, temp names and etags as they are in this run."""
        for recorded, actual in (self._ids | self._etags | self._temp_names()).items():
            text = text.replace(recorded, actual)
        return text.replace("127.0.0.1:18288", f"127.0.0.1:{self.server.port}")

    def _temp_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for name, connection in self.connections.items():
            recorded = re.findall(
                r"ComfyUI_temp_\w{5}_\d{5}_", json.dumps([one for _, one in self.expected[name]])
            )
            actual = re.findall(r"ComfyUI_temp_\w{5}_\d{5}_", json.dumps(connection.messages))
            names |= dict(zip(recorded, actual, strict=False))
        return names

    def _upload(self, filename: str, size: int) -> bytes:
        """The scenario's next content; else a picture, or zeros of the recorded size."""
        if not size:
            return b""
        return next(self._uploads, None) or (PICTURE if filename.endswith(".png") else bytes(size))

    def _form(self, parts: list[dict[str, str]], *, quoted: bool) -> aiohttp.FormData:
        form = aiohttp.FormData(quote_fields=quoted)
        for part in parts:
            if size := re.fullmatch(r"<(\d+) bytes>", part["value"]):
                value: Any = io.BytesIO(self._upload(part["filename"], int(size[1])))
            else:
                value = self._translate(part["value"])
            form.add_field(
                part["name"], value, filename=part.get("filename"), content_type=part.get("content_type")
            )
        return form

    def _note(self, index: int, http: dict[str, Any], answer: aiohttp.ClientResponse, content: bytes) -> None:
        """Keep the answer for the comparison, in the recorder's form."""
        self.answers[index] = {"status": answer.status} | self._headers(http, answer.headers)
        if "response_json" in http:
            got = json.loads(content) if content else None
            self.answers[index]["response_json"] = got
            if isinstance(got, dict) and "prompt_id" in got and "number" in got:
                self._ids[http["response_json"]["prompt_id"] or "(none)"] = got["prompt_id"]
        elif "response_text" in http:
            self.answers[index]["response_text"] = content.decode()
        elif not _is_picture(http):
            self.answers[index]["response_bytes"] = len(content)
        else:
            self.answers[index]["head"] = content[:MAGIC].hex()
        if tag := http.get("response_headers", {}).get("Etag"):
            self._etags[tag] = answer.headers["ETag"]

    def _headers(self, http: dict[str, Any], headers: CIMultiDictProxy[str]) -> dict[str, Any]:
        recorded = http.get("response_headers", {})
        names = [name for name in recorded if name in HEADERS or name.startswith(CORS)]
        return {
            "headers": {name: headers.get(name) for name in names},
            "has etag": "Etag" in recorded and "ETag" in headers,
        }

    def recorded_answer(self, http: dict[str, Any]) -> dict[str, Any]:
        headers = http.get("response_headers", {})
        kept = {name: value for name, value in headers.items() if name in HEADERS or name.startswith(CORS)}
        answer: dict[str, Any] = {"status": http["status"], "headers": kept, "has etag": "Etag" in headers}
        if "response_json" in http:
            answer["response_json"] = http["response_json"]
        elif "response_text" in http:
            answer["response_text"] = http["response_text"]
        elif not _is_picture(http):
            answer["response_bytes"] = http["response_bytes"]
        else:
            answer["head"] = http["response_head_hex"][: 2 * MAGIC]
        return answer

    def compare(self) -> list[tuple[str, Any, Any]]:
        """(where, recorded, actual) for every HTTP step and connection, cleaned of what may differ."""
        then, now = Normaliser(), Normaliser(str(self.base))
        for recorded, actual in self._ids.items():
            then.add_prompt(recorded)
            now.add_prompt(actual)
        seen = dict.fromkeys(self.connections, 0)
        pairs = []
        for index, step in enumerate(self.steps):
            if "ws" in step:
                self._see_temp_names(step["conn"], seen, now)
                then.clean(step["ws"])
            if index in self.answers:
                left = then.clean(self.recorded_answer(step["http"]))
                right = self.scenario.trim(step["http"]["path"], left, now.clean(self.answers[index]))
                pairs.append(
                    (
                        f"step {index}: {step['http']['method']} {step['http']['path']}",
                        left,
                        blanked(left, right),
                    )
                )
        for name, connection in self.connections.items():
            left = collapsed([then.clean(message) for _, message in self.expected[name]])
            right = collapsed([now.clean(message) for message in connection.messages])
            pairs.append((f"websocket {name}", self.scenario.arrange(left), self.scenario.arrange(right)))
        return pairs

    def _see_temp_names(self, name: str, seen: dict[str, int], now: Normaliser) -> None:
        """Meet this run's temp names in the order of the recording's steps, so that both get the same letters."""
        messages = self.connections[name].messages
        if seen[name] < len(messages):
            now.clean(messages[seen[name]])
        seen[name] += 1


def _is_picture(http: dict[str, Any]) -> bool:
    """Whether the answer's bytes depend on encoders, which differ between Pillow and library versions."""
    kind = http.get("response_headers", {}).get("Content-Type", "")
    return kind.startswith(("image/", "video/")) and "response_head_hex" in http
