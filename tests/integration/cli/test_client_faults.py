"""The client against a loopback server that drops, lies and redirects."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.client import AgentClient, AgentRequestError, AgentUnreachable, following
from tests.certificates import self_signed

QUEUED = {"id": "t", "state": "queued", "progress": 0.0, "error": None}
HALF = {**QUEUED, "state": "running", "progress": 0.5}
DONE = {**QUEUED, "state": "succeeded", "progress": 1.0}

Answer = Callable[["Server", socketserver.StreamRequestHandler], None]


class Server(socketserver.ThreadingTCPServer):
    """Gives each connection the next of `answers`, the last one for ever, and then closes it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[bytes | Answer] = []
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.released = threading.Event()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}"


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (line := self.rfile.readline()):
                return
            head += line
        text = head.decode("latin-1")
        self.server.requests.append(text)
        length = [line for line in text.lower().splitlines() if line.startswith("content-length:")]
        self.server.bodies.append(self.rfile.read(int(length[0].split(":")[1]) if length else 0))
        number = min(len(self.server.requests), len(self.server.answers)) - 1
        answer = self.server.answers[number]
        if callable(answer):
            answer(self.server, self)
        else:
            self.wfile.write(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.released.set()
        made.shutdown()
        thread.join(5)


@pytest.fixture
def client(make_client, server) -> Iterator[AgentClient]:
    with make_client(server.url(), "s3cret", timeout=20, retry_pauses=(0, 0, 0, 0)) as made:
        yield made


def answer(status: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream(*records: dict, cut: bytes = b"") -> bytes:
    """An event stream in chunks that breaks off after these events, without the last chunk."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [b"data: " + json.dumps(record).encode() + b"\n\n" for record in records] + (
        [cut] if cut else []
    )
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


UNAVAILABLE = answer(
    "503 Service Unavailable", b'{"message": "StoreUnavailable", "error": {"detail": "Later."}}'
)
NOT_FOUND = answer("404 Not Found", b'{"message": "TaskNotFound", "error": {"detail": "Gone."}}')


def test_dropped_stream_is_opened_again_without_repeating_what_is_known(server, client):
    server.answers = [stream(QUEUED, HALF), stream(HALF, DONE)]
    assert list(client.events("t")) == [QUEUED, HALF, DONE]
    assert len(server.requests) == 2


def test_event_that_was_cut_off_is_read_from_the_next_connection(server, client):
    server.answers = [stream(QUEUED, cut=b'data: {"state": "succ'), stream(DONE)]
    assert list(client.events("t")) == [QUEUED, DONE]


def test_stream_that_ends_in_order_before_the_task_is_opened_again(server, client):
    server.answers = [stream(QUEUED) + b"0\r\n\r\n", stream(DONE)]
    assert client.wait("t") == DONE


def test_stream_without_chunks_is_read_as_it_comes(server, client):
    events = b"".join(b"data: " + json.dumps(record).encode() + b"\n\n" for record in (QUEUED, DONE))

    def slowly(server: Server, handler: socketserver.StreamRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + events)
        server.released.wait(10)

    server.answers = [slowly]
    assert list(client.events("t")) == [QUEUED, DONE]


def test_instance_that_is_unavailable_for_a_moment_is_asked_again(server, client):
    server.answers = [stream(QUEUED), UNAVAILABLE, answer("502 Bad Gateway", b"<html>"), stream(DONE)]
    assert client.wait("t") == DONE


def test_task_that_is_gone_after_a_reconnect_ends_the_stream(server, client):
    server.answers = [stream(QUEUED), NOT_FOUND]
    with pytest.raises(AgentRequestError) as caught:
        list(client.events("t"))
    assert caught.value.code == "TaskNotFound"


def test_stream_that_drops_for_ever_is_given_up(server, client):
    server.answers = [stream(QUEUED)]
    with pytest.raises(AgentUnreachable):
        list(client.events("t"))
    assert len(server.requests) == 5


def test_stream_that_moves_on_is_not_given_up(server, client):
    steps = [{**HALF, "progress": step / 20} for step in range(20)]
    server.answers = [*(stream(step) for step in steps), stream(DONE)]
    assert list(client.events("t")) == [*steps, DONE]


def test_page_instead_of_a_stream_is_an_error_and_not_a_drop(server, client):
    server.answers = [answer("200 OK", b"<html>sign in</html>", "text/html")]
    with pytest.raises(AgentRequestError) as caught:
        client.wait("t")
    assert caught.value.code == "NotAnAgent"
    assert len(server.requests) == 1


@pytest.mark.parametrize("heartbeat", [b"", b"4\r\n: x\n\r\n"])
def test_silent_stream_ends_at_the_callers_limit(server, client, heartbeat):
    def silent(server: Server, handler: socketserver.StreamRequestHandler) -> None:
        handler.wfile.write(stream(QUEUED))
        while not server.released.wait(0.05):  # the interval of the heartbeat
            handler.wfile.write(heartbeat)

    server.answers = [silent]
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="not over after"):
        client.wait("t", timeout=0.4)
    assert time.monotonic() - began > 0.35
    server.released.set()


def test_huge_numbers_are_exact_in_both_directions(server, client):
    record = {**DONE, "seeds": {"3": {"seed": 2**64 - 1}}, "big": 10**40}
    server.answers = [answer("200 OK", json.dumps(record).encode()), answer("200 OK", b"{}", task_id="t")]
    assert client.task("t") == record
    client.run({"3": {"class_type": "X", "inputs": {"seed": 2**64 - 1}}})
    assert b"18446744073709551615" in server.bodies[-1]


def test_key_and_task_id_are_sent(server, client):
    server.answers = [answer("200 OK", b"{}", task_id="mine")]
    assert client.run({}, "mine").task_id == "mine"
    assert "X-Api-Key: s3cret" in server.requests[0]
    assert "task-id: mine" in server.requests[0]


def test_submit_knows_its_task_id_where_a_platform_answers_with_nothing(server, client):
    server.answers = [answer("202 Accepted", b"")]
    task_id = client.submit({})
    assert f"task-id: {task_id}" in server.requests[0]
    assert "Prefer: respond-async" in server.requests[0]
    assert "X-Fc-Invocation-Type" not in server.requests[0]


def test_submit_asks_the_platform_where_the_agent_had_to_do_the_work_within_the_request(server, client):
    server.answers = [answer("200 OK", b"{}", X_Fc_Request_Id="1-2-3"), answer("202 Accepted", b"")]
    assert client.submit({}, "first") == "first"
    assert client.submit({}, "second") == "second"
    assert "X-Fc-Invocation-Type: Async" in server.requests[1]


def test_submit_asks_the_platform_at_once_where_the_caller_knows(make_client, server):
    server.answers = [answer("202 Accepted", b"")]
    with make_client(server.url(), platform_queue=True) as client:
        client.submit({})
    assert "X-Fc-Invocation-Type: Async" in server.requests[0]


def test_task_that_the_platform_has_not_delivered_yet_is_waited_for(server, client, monkeypatch):
    monkeypatch.setattr(following, "ASK_AGAIN_SECONDS", 0.01)
    server.answers = [answer("202 Accepted", b""), *[NOT_FOUND] * 8, stream(QUEUED, DONE)]
    assert client.wait(client.submit({}, "t")) == DONE
    server.answers = [NOT_FOUND]
    with pytest.raises(AgentRequestError, match="TaskNotFound"):
        client.wait("another")


def test_output_in_object_storage_is_fetched_without_the_key(server, client):
    elsewhere = server.url("localhost") + "/bucket/picture.png"
    server.answers = [answer("302 Found", b"", Location=elsewhere), answer("200 OK", b"bytes", "image/png")]
    assert client.fetch_output("t", 0) == b"bytes"
    assert "GET /bucket/picture.png" in server.requests[1]
    assert "s3cret" in server.requests[0]
    assert "s3cret" not in server.requests[1]


def test_redirected_run_is_an_error_because_it_would_become_another_request(server, client):
    server.answers = [answer("301 Moved Permanently", b"", Location="https://agent.test/api/run?token=x")]
    with pytest.raises(AgentRequestError) as caught:
        client.run({})
    assert caught.value.code == "Redirected"
    assert "https://agent.test/api/run" in caught.value.detail
    assert "token" not in caught.value.detail


def test_error_page_of_a_gateway_is_told_apart_from_the_agents_errors(server, client):
    server.answers = [answer("502 Bad Gateway", b"<h1>upstream is down</h1>", "text/html", Retry_After="0")]
    with pytest.raises(AgentRequestError) as caught:
        client.run({})
    error = caught.value
    assert (error.status, error.code, error.retry_after) == (502, "NotAnAgent", 0)
    assert "upstream is down" in error.detail
    assert len(server.requests) == 5


BUSY = b'{"message": "QueueFull", "error": {"detail": "Later.", "transient": true}}'
BROKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
RESULT = answer("200 OK", b"{}", task_id="t")


@pytest.mark.parametrize(
    "first",
    [UNAVAILABLE, answer("429 Too Many Requests", BUSY), BROKEN, b""],
    ids=["503", "429", "cut", "none"],
)
def test_run_that_meets_a_passing_fault_is_sent_again_under_the_same_id(server, client, first):
    server.answers = [first, first, RESULT]
    assert client.run({"1": {}}).task_id == "t"
    ids = {line for request in server.requests for line in request.splitlines() if line.startswith("task-id")}
    assert (len(server.requests), len(ids), set(server.bodies)) == (3, 1, {b'{"1": {}}'})


@pytest.mark.parametrize("ask", ["task", "cancel"])
def test_polls_take_a_busy_agent_for_one_to_be_asked_later(server, client, ask):
    record = json.dumps(DONE).encode()
    server.answers = [answer("429 Too Many Requests", BUSY), answer("200 OK", record)]
    assert getattr(client, ask)("t") == DONE


def test_next_try_comes_no_sooner_than_the_answer_says(server, client):
    server.answers = [answer("429 Too Many Requests", BUSY, Retry_After="1"), RESULT]
    began = time.monotonic()
    client.run({})
    assert time.monotonic() - began >= 1


def test_tries_end_with_the_callers_limit(server, make_client):
    server.answers = [answer("503 Service Unavailable", BUSY, Retry_After="1")]
    with make_client(server.url(), retry_pauses=[60] * 9) as client, pytest.raises(TimeoutError):
        client.run({}, timeout=0.3)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("504 Gateway Timeout", {"detail": "It took too long."}),
        ("503 Service Unavailable", {"detail": "For good.", "transient": False}),
        ("500 Internal Server Error", {"detail": "It broke.", "transient": True}),
    ],
)
def test_run_that_another_try_cannot_help_is_not_sent_again(server, client, status, error):
    server.answers = [answer(status, json.dumps({"message": "SomeError", "error": error}).encode())]
    with pytest.raises(AgentRequestError, match="SomeError"):
        client.run({})
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"[1]", b'{"1": 2}', b"<html>", b'{"1": {"results": ["%"]}}'])
def test_answer_that_is_no_progress_map_does_not_come_from_an_agent(server, client, body):
    server.answers = [answer("200 OK", body)]
    with pytest.raises(AgentRequestError) as caught:
        client.run({})
    assert caught.value.code == "NotAnAgent"


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX-Other: 1", "ключ"])
def test_key_that_no_header_can_carry_is_refused_at_once_and_not_repeated(make_client, key):
    with pytest.raises(ValueError, match="API key") as caught:
        make_client("http://127.0.0.1:1", key)
    assert not key or key not in str(caught.value)


def test_signed_url_of_a_result_is_fetched_as_it_is_without_the_key(server, client):
    url = server.url("localhost") + "/b/a%20%2Bb.png?X-Amz-Signature=s%2Fx%3D&k=a+b"
    progress = {"9": {"images": [{"filename": "a.png"}], "urls": [url]}}
    server.answers = [
        answer("200 OK", json.dumps(progress).encode(), task_id="t"),
        answer("200 OK", b"bytes"),
    ]
    assert [output.data for output in client.run({}).outputs] == [b"bytes"]
    assert server.requests[1].startswith("GET /b/a%20%2Bb.png?X-Amz-Signature=s%2Fx%3D&k=a+b HTTP")
    assert "s3cret" not in server.requests[1]


def test_error_of_the_object_store_does_not_show_the_signature(server, client):
    elsewhere = server.url("localhost") + "/b/a.png?Signature=hidden"
    server.answers = [
        answer("302 Found", b"", Location=elsewhere),
        answer("403 Forbidden", b"<Signature>hidden</Signature>", "application/xml"),
    ]
    with pytest.raises(AgentRequestError) as caught:
        client.fetch_output("t", 0)
    assert "localhost" in str(caught.value)
    assert "hidden" not in f"{caught.value} {caught.value.body}"


def test_output_that_redirects_for_ever_ends(server, client):
    server.answers = [answer("302 Found", b"", Location="/somewhere/else")]
    with pytest.raises(AgentRequestError) as caught:
        client.fetch_output("t", 0)
    assert caught.value.code == "Redirected"


def test_answer_that_breaks_off_every_time_is_unreachable(server, client):
    server.answers = [BROKEN]
    with pytest.raises(AgentUnreachable, match="broke"):
        client.run({})
    assert len(server.requests) == 5


def test_answer_that_does_not_come_is_unreachable(make_client, server):
    server.answers = [lambda server, _handler: server.released.wait(10)]
    with make_client(server.url(), timeout=0.2) as client, pytest.raises(AgentUnreachable, match="in time"):
        client.task("t")
    server.released.set()


def test_certificate_that_is_not_trusted_is_named(make_client, server, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path, "localhost"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url("localhost").replace("http:", "https:")
    with make_client(url) as client, pytest.raises(AgentUnreachable) as caught:
        client.task("t")
    reason = "its certificate is not trusted, self-signed certificate"
    assert caught.value.detail == f"{url} cannot be reached: {reason}."
