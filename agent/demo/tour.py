"""The story of the demo: start an agent, give it three tasks in three ways, check what comes back, tidy up."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from PIL import Image

import workflows
from agent.client import AgentClient, AgentClientError, AgentRequestError, Result, new_task_id
from agent.demo.display import Display, Row, Show, display_for
from agent.demo.pictures import (
    WrongPicture,
    check_generated,
    check_negative,
    check_postcard,
    draw_photo,
    draw_stamp,
    open_picture,
    serve_picture,
    to_png,
)
from agent.demo.service import Service, ServiceFailed, running_service

#: Whatever hangs, the demo begins to tidy up after this time; a minute is then enough for all of it.
DEADLINE_SECONDS = 45

INTERRUPTED = 128 + signal.SIGINT
STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)

#: On one machine a connection breaks for good: the agent died, and that is to be said soon.
RETRY_PAUSES = (0.0, 0.2)

#: Pause before asking again for a task that its own request has not created yet.
ASK_AGAIN_SECONDS = 0.02


class DemoFailed(Exception):
    """The demo cannot go on. `log` holds the last lines of the agent, where there is one."""

    def __init__(self, detail: str, log: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.log = log


@dataclass(frozen=True, slots=True)
class Job:
    """One task of the demo."""

    title: str
    how: str
    file: str
    workflow: dict[str, Any] = field(repr=False)
    is_async: bool
    check: Callable[[Image.Image], None]


def run_demo(out: str, pace: float = 1) -> int:
    """Run the demo and return the exit code: 0, 1 after a failure, 130 after Ctrl-C.

    `pace` scales the simulator's pauses. Nothing that was started is left, whatever happens. Main thread only.
    """
    display = display_for(sys.stdout)
    try:
        with _tidying_up_when_stopped():
            _run(Path(out).expanduser().resolve(), pace, display)
    except KeyboardInterrupt:
        display.fail("stopped; nothing is left running.")
        return INTERRUPTED
    except DemoFailed as failure:
        display.fail(f"the demo failed: {failure}", failure.log)
        return 1
    return 0


def _run(folder: Path, pace: float, display: Display) -> None:
    _make_folder(folder)
    display.say("Starting the agent on its embedded simulator: real requests, stand-in pictures.")
    began = time.monotonic()
    # The pool is left last: its thread waits for an answer until the agent is gone.
    with (
        ThreadPoolExecutor(1) as pool,
        serve_picture(to_png(draw_photo())) as photo_url,
        running_service(os.environ, pace) as service,
        _explaining(service),
        _ending_in_time(),
    ):
        service.wait_ready()
        display.say(f"It is ready after {time.monotonic() - began:.1f} s at {service.url}.\n")
        rows = _run_all(jobs(photo_url), service.url, pool, folder, display)
    display.say()
    display.table(rows)
    display.say(f"\nThe pictures are in {folder}\n")
    for line in next_steps():
        display.say(line)


def jobs(photo_url: str) -> list[Job]:
    """What the demo runs: the ready workflows, with pictures put in."""
    photo = base64.b64encode(to_png(draw_photo())).decode()
    stamp = "data:image/png;base64," + base64.b64encode(to_png(draw_stamp())).decode()
    return [
        Job(
            "Negative",
            "base64 input, answer awaited",
            "1-negative.png",
            load_workflow("invert", Photo=photo),
            is_async=False,
            check=check_negative,
        ),
        Job(
            "Postcard",
            "http input, answer awaited",
            "2-postcard.png",
            load_workflow("postcard", Photo=photo_url, Stamp=stamp),
            is_async=False,
            check=check_postcard,
        ),
        Job(
            "Text to image",
            "async by task-id, followed",
            "3-text-to-image.png",
            load_workflow("text-to-image"),
            is_async=True,
            check=check_generated,
        ),
    ]


def load_workflow(name: str, **pictures: str) -> dict[str, Any]:
    """A ready workflow, with these pictures in the loaders that have their titles."""
    workflow: dict[str, Any] = json.loads(_workflow_path(name).read_text())
    loaders = {node["_meta"]["title"]: node for node in workflow.values()}
    for title, picture in pictures.items():
        loaders[title]["inputs"]["image"] = picture
    return workflow


def next_steps() -> list[str]:
    """Commands that work as they are printed."""
    command, url = _own_command(), f"http://localhost:{os.environ.get('AGENT_PORT') or 9000}"
    body = shlex.quote(_short(_workflow_path("text-to-image")))
    return [
        "What to try next: start the service,",
        f"  {command} serve",
        f"open {url} in a browser, or run a workflow from another terminal and fetch its picture:",
        f"  curl -s {url}/api/run -H 'task-id: hello' -d @{body} -o answer.json",
        f"  curl -s {url}/api/tasks/hello/outputs/0 -o picture.png",
    ]


def _run_all(
    todo: list[Job], url: str, pool: ThreadPoolExecutor, folder: Path, display: Display
) -> list[Row]:
    rows = []
    with AgentClient(url, retry_pauses=RETRY_PAUSES) as client, display.tasks() as begin:
        for job in todo:
            show = begin(job.title, job.how)
            began = time.monotonic()
            run = _run_async if job.is_async else _run_sync
            data = run(client, job, show, pool)
            _check(job, data)
            (folder / job.file).write_bytes(data)
            rows.append(Row(job.title, job.how, time.monotonic() - began, job.file, len(data)))
    return rows


def _run_sync(client: AgentClient, job: Job, show: Show, pool: ThreadPoolExecutor) -> bytes:
    """One request whose answer holds the picture; beside it, this thread follows the task by its id."""
    task_id = new_task_id()
    answer = pool.submit(_post, client.url, job, task_id)
    with suppress(AgentClientError):  # what goes wrong is the request's to say
        _follow(client, task_id, answer, show)
    outputs = answer.result().outputs
    if len(outputs) != 1:
        raise WrongPicture(f"there are {len(outputs)} pictures, not one")
    return outputs[0].data


def _post(url: str, job: Job, task_id: str) -> Result:
    with AgentClient(url) as client:  # a client belongs to one thread
        return client.run(job.workflow, task_id, timeout=DEADLINE_SECONDS)


def _follow(client: AgentClient, task_id: str, answer: Future[Result], show: Show) -> None:
    while True:
        try:
            client.wait(task_id, show)
            return
        except AgentRequestError as error:
            if error.status != 404 or answer.done():
                raise
        time.sleep(ASK_AGAIN_SECONDS)  # the request is on its way


def _run_async(client: AgentClient, job: Job, show: Show, _pool: ThreadPoolExecutor) -> bytes:
    """Submitted under an id, answered 202, followed by events; the picture is fetched at the end."""
    task_id = client.submit(job.workflow, f"demo-{new_task_id()}")
    record = client.wait(task_id, show)
    return client.fetch_output(task_id, record["outputs"][0]["index"])


def _check(job: Job, data: bytes) -> None:
    try:
        job.check(open_picture(data))
    except WrongPicture as wrong:
        raise WrongPicture(f'the picture of "{job.title}" is wrong: {wrong}') from wrong


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DemoFailed(f"the folder {folder} cannot be made: {exc.strerror}.") from exc
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DemoFailed(f"the folder {folder} is not writable; name another with --out.")


@contextmanager
def _explaining(service: Service) -> Iterator[None]:
    """Turn what can go wrong into a sentence, and add what the agent said last."""
    try:
        yield
    except (AgentClientError, ServiceFailed, WrongPicture, TimeoutError, OSError, DemoFailed) as exc:
        reason = str(exc)
        try:
            service.check_alive()
        except ServiceFailed as died:
            reason = str(died)
        raise DemoFailed(reason, tuple(service.log)) from exc


@contextmanager
def _ending_in_time() -> Iterator[None]:
    """Raise DemoFailed in the main thread when time is up, wherever it hangs."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise DemoFailed(f"it was not done after {DEADLINE_SECONDS} s.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _tidying_up_when_stopped() -> Iterator[None]:
    """A closed terminal or a `kill` unwinds the stack as Ctrl-C does, instead of ending the process at once."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _workflow_path(name: str) -> Path:
    return Path(workflows.__file__).with_name(f"{name}.json")


def _own_command() -> str:
    """How this command is called from here: its name where that finds it, else its path."""
    beside_python = Path(sys.executable).with_name("comfyui-agent")
    found = shutil.which("comfyui-agent")
    if found and Path(found).resolve() == beside_python.resolve():
        return "comfyui-agent"
    if beside_python.exists():
        return shlex.quote(_short(beside_python))
    return f"{shlex.quote(sys.executable)} -m agent.cli"


def _short(path: Path) -> str:
    """Relative where it lies below the folder that the reader is in."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
