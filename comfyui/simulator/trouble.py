"""Makes the faults happen that belong to running: dying, hanging, freezing, running out of memory."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyui.simulator.faults import Faults

FOR_EVER = 1e8  #: seconds
GRACE_SECONDS = 0.05
"""No real crash comes within a millisecond of the prompt: let the answer to POST /prompt and earlier events out."""
FLOOD = 256 * 1024  #: more than a pipe holds

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.37 GiB is "
    "free. "
    "Of the allocated memory 21.05 GiB is allocated by PyTorch, and 412.07 MiB is reserved by PyTorch but unallocated."
)
ILLEGAL_ACCESS = (
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some "
    "other API call, so the stacktrace below might be incorrect."
)


class OutOfMemoryError(RuntimeError):
    """As torch reports it, so the name of its type is torch's."""


OutOfMemoryError.__module__ = "torch"


class Trouble:
    """Asked by the worker thread at the places where something may go wrong."""

    def __init__(self, faults: Faults, block_loop: Callable[[], object]) -> None:
        self._faults, self._block_loop = faults, block_loop
        self._context_is_broken = False

    def at_prompt(self) -> None:
        if self._faults.take("stderr-flood"):
            line = "\r 50%|#####     | 10/20 [00:01<00:01,  9.87it/s]"
            sys.stderr.write(line * (FLOOD // len(line)))
            sys.stderr.flush()

    def at_node(self, node_id: str) -> None:
        """Called before the node runs; may raise, never return, or end the process."""
        if self._faults.take("die", node=node_id):
            _die()
        if self._faults.take("hang", node=node_id):
            self._hang()
        if self._faults.take("freeze", node=node_id):
            time.sleep(GRACE_SECONDS)
            self._block_loop()
            self._hang()
        if self._faults.take("oom", node=node_id):
            raise OutOfMemoryError(OUT_OF_MEMORY)
        # A broken CUDA context stays broken: only a new process helps.
        if self._context_is_broken or self._faults.take("cuda-error", node=node_id):
            self._context_is_broken = True
            raise RuntimeError(ILLEGAL_ACCESS)

    def at_step(self, node_id: str, step: float) -> None:
        if self._faults.take("die", node=node_id, step=f"{step:.0f}"):
            _die()

    @staticmethod
    def _hang() -> NoReturn:
        threading.Event().wait()
        raise AssertionError


def _die() -> NoReturn:
    """End the process as a crash does: no cleanup, no close frames."""
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def block_for_ever() -> None:
    """Stop the thread that calls this."""
    time.sleep(FOR_EVER)
