"""Starts the simulator: `python -m comfyui.simulator --port N`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from comfyui.simulator import NOTICE
from comfyui.simulator.executor import Engine
from comfyui.simulator.faults import Faults
from comfyui.simulator.folders import Folders
from comfyui.simulator.history import History
from comfyui.simulator.nodes import node_classes
from comfyui.simulator.options import Options, parse_options
from comfyui.simulator.queue import PromptQueue
from comfyui.simulator.server import Server, queue_info
from comfyui.simulator.sockets import Sockets
from comfyui.simulator.trouble import Trouble, block_for_ever
from comfyui.simulator.worker import start_worker

if TYPE_CHECKING:
    from collections.abc import Iterator


PREFIX = "comfyui-simulator-"

#: A folder is locked long before it is so old.
UNLOCKED_SECONDS = 10


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT (0) or SIGTERM (-15). 1 if the start fails, 2 for a bad command line."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    faults = Faults(options.faults, options.fault_state)
    if faults.take("die", start="yes"):
        _log("RuntimeError: the simulator was told to die at start (--fault die@start)")
        return 1
    with _base_directory(options.base_directory) as base:
        return asyncio.run(_serve(options, faults, base))


async def _serve(options: Options, faults: Faults, base: Path) -> int:
    await asyncio.sleep(options.startup_seconds)
    loop = asyncio.get_running_loop()
    queue = PromptQueue(History(faults))
    features = {"supports_preview_metadata": True, "max_upload_size": options.max_body_bytes}
    sockets = Sockets(features, faults, lambda: queue_info(queue))
    queue.changed = sockets.send_status
    trouble = Trouble(faults, lambda: loop.call_soon_threadsafe(block_for_ever))
    folders = Folders(base, options.models)
    engine = Engine(options, folders, faults, node_classes(with_lab=options.lab_nodes), sockets, trouble)
    runner = web.AppRunner(
        Server(engine, queue, features).application(), access_log=_access_log(options), shutdown_timeout=0
    )
    await runner.setup()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, stopped.set)
    outbox = asyncio.create_task(sockets.run_outbox())
    try:
        return await _listen(options, runner, stopped, queue, engine)
    finally:
        outbox.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await outbox
        sockets.cut()
        await runner.cleanup()


async def _listen(
    options: Options, runner: web.AppRunner, stopped: asyncio.Event, queue: PromptQueue, engine: Engine
) -> int:
    addresses = options.listen.split(",")
    try:
        for address in addresses:
            await web.TCPSite(runner, address, options.port).start()
    except OSError as exc:
        _log(f"[ERROR] cannot listen on {options.listen} port {options.port}: {exc}")
        return 1
    start_worker(queue, engine)
    _log(NOTICE)
    _log(f"Starting server\n\nTo see the GUI go to: http://{addresses[0]}:{options.port}")
    await stopped.wait()
    _log("\nStopped server")
    return 0


@contextlib.contextmanager
def _base_directory(given: Path | None) -> Iterator[Path]:
    """The given folder, or a fresh one that is gone afterwards: also after SIGTERM, and after SIGKILL with the start of
    the next simulator."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    _remove_leftovers()
    fresh = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _lock(fresh)

    def end(number: int, _frame: object) -> None:
        shutil.rmtree(fresh, ignore_errors=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_leftovers() -> None:
    """Remove the folders of simulators that were killed. One that lives holds a lock on its folder, which the kernel
    takes away with the process; of a folder that was made just now the lock may be missing yet."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if (
                is_ours
                and found.st_mtime < time.time() - UNLOCKED_SECONDS
                and (lock := _lock(folder)) is not None
            ):
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the returned descriptor is closed. None: somebody else has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _access_log(options: Options) -> logging.Logger | None:
    if not options.verbose:
        return None
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    return logging.getLogger("comfyui.simulator")


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
