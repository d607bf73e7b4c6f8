"""The one thread that runs prompts. Nothing guards it: what kills it upstream kills it here, and HTTP goes on."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from comfyui.simulator.executor import Engine, Execution

if TYPE_CHECKING:
    from comfyui.simulator.queue import Item, PromptQueue


def start_worker(queue: PromptQueue, engine: Engine) -> threading.Thread:
    """Run prompts until the process ends."""
    thread = threading.Thread(target=prompt_worker, args=(queue, engine), daemon=True)
    thread.start()
    return thread


def prompt_worker(queue: PromptQueue, engine: Engine) -> None:
    while True:
        item = queue.take()
        if item is not None:
            _run(item, queue, engine)
        flags = queue.take_flags()
        if flags.get("free_memory"):
            engine.forget()


def _run(item: Item, queue: PromptQueue, engine: Engine) -> None:
    taken_at, started = time.time(), time.perf_counter()
    execution = Execution(engine, item)
    entry = execution.run()
    queue.finish(item, entry)
    if execution.client_id is not None:
        data = {"node": None, "prompt_id": execution.prompt_id}
        engine.sockets.send("executing", data, execution.client_id)
    sys.stderr.write(f"Prompt executed in {time.perf_counter() - started:.2f} seconds\n")
    sys.stderr.flush()
    if engine.options.prompt_log:
        line = f"{execution.prompt_id} {taken_at:.6f} {time.time():.6f}\n"
        with engine.options.prompt_log.open("a") as log:
            log.write(line)
