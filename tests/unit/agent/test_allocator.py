"""Threads share one heap."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: glibc reserves 64 MB of addresses for each heap of a thread's own, beside 8 MB for its stack.
CODE = """
import os, threading
from agent.allocator import share_heap
def size():
    return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE") // 2**20
print(share_heap())
before, all_there = size(), threading.Barrier(9)
def work():
    kept = [bytes(10_000) for _ in range(100)]
    all_there.wait(30)
    all_there.wait(30)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
all_there.wait(30)
print(size() - before)
all_there.wait(30)
for thread in threads: thread.join()
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads /proc; other systems have other allocators"
)
def test_threads_have_no_heaps_of_their_own() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    was_set, megabytes = ran.stdout.split()
    if was_set == "True":  # glibc
        assert int(megabytes) < 8 * 40
