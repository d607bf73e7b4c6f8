"""One child process: output, end, and what it leaves behind."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
import tracemalloc
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from comfyui.errors import EngineFailedError
from comfyui.launch import Launch
from comfyui.process import MAX_LINE_BYTES, ChildProcess
from tests.integration.engine.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("processes")


async def end_of(launch, seconds=PATIENCE_SECONDS):
    """Start `launch`; return its report and the lines that were relayed."""
    with capture_logs() as logs:
        child = await ChildProcess.start(launch)
        report = await asyncio.wait_for(child.wait(), seconds)
    return report, [entry["line"] for entry in logs if entry["event"] == "engine.output"]


async def test_exit_code_and_last_lines_are_reported(launch_of):
    script = "import sys\nfor i in range(60): print('line', i)\nsys.exit(7)"
    report, _ = await end_of(launch_of(script=script))
    assert (report.exit_code, report.signal_name) == (7, None)
    assert report.last_lines == tuple(f"line {i}" for i in range(10, 60))
    assert re.match(r"the engine exited with code 7 after \d+\.\d", report.summary)


async def test_signal_is_reported_by_name(launch_of):
    report, _ = await end_of(launch_of(script="import os\nos.abort()"))
    assert (report.exit_code, report.signal_name) == (None, "SIGABRT")


async def test_progress_without_newlines_does_not_stop_the_reader(launch_of):
    # 70 KB of tqdm: more than asyncio's readline() and Go's Scanner take as a line.
    script = "import sys\nfor i in range(2000): sys.stderr.write(f'\\r{i:34d}')\nprint('\\nafter', file=sys.stderr)"
    _, lines = await end_of(launch_of(script=script))
    assert lines[-2:] == [f"{1999:34d}", "after"]
    assert len(lines) < 10


async def test_progress_on_one_stream_does_not_silence_the_other(launch_of):
    script = "import sys\nfor s in (sys.stdout, sys.stderr): s.write('1%\\r2%\\r'); s.flush()"
    _, lines = await end_of(launch_of(script=script))
    assert lines.count("1%") == 2


async def test_endless_line_is_cut_in_bounded_memory(launch_of):
    script = "import sys\nfor _ in range(500): sys.stdout.write('x' * 10_000)\nprint('\\nafter')"
    tracemalloc.start()
    try:
        _, lines = await end_of(launch_of(script=script))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(line) for line in lines] == [MAX_LINE_BYTES + len(" [cut]"), len("after")]
    assert peak < 1_000_000


async def test_stop_ends_a_child_with_sigterm(launch_of):
    child = await ChildProcess.start(launch_of())
    report = await asyncio.wait_for(child.stop(60), PATIENCE_SECONDS)
    assert report.signal_name == "SIGTERM"
    assert await child.stop(5) == await child.wait() == report


async def test_stop_kills_a_child_that_ignores_sigterm(launch_of, until):
    child = await ChildProcess.start(launch_of("--ignore-sigterm", "--ready-after", "60"))
    await until(lambda: "loading nodes" in child.last_lines)
    await until(lambda: is_ignoring_sigterm(child.pid))
    report = await asyncio.wait_for(child.stop(0.2), PATIENCE_SECONDS)
    assert report.signal_name == "SIGKILL"
    assert report.seconds >= 0.2


def is_ignoring_sigterm(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    return ignored >> (signal.SIGTERM - 1) & 1


async def test_stopped_child_gets_to_see_sigterm(launch_of, processes, until):
    child = await ChildProcess.start(launch_of())
    processes.kill(child.pid, signal.SIGSTOP)
    await until(lambda: processes.state(child.pid) == "T")
    report = await asyncio.wait_for(child.stop(60), PATIENCE_SECONDS)
    assert report.signal_name == "SIGTERM"


async def test_cancelled_stop_kills_at_once(launch_of, until):
    child = await ChildProcess.start(launch_of("--ignore-sigterm", "--ready-after", "60"))
    await until(lambda: is_ignoring_sigterm(child.pid))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.stop(30), 0.1)
    assert (await asyncio.wait_for(child.wait(), PATIENCE_SECONDS)).signal_name == "SIGKILL"


async def test_grandchild_dies_with_the_child(launch_of, processes, until, tmp_path):
    note = tmp_path / "grandchild"
    child = await ChildProcess.start(launch_of("--grandchild", str(note), "--ready-after", "60"))
    await until(note.exists)
    grandchild = int(note.read_text())
    assert processes.is_alive(grandchild)
    processes.kill(child.pid)
    await asyncio.wait_for(child.wait(), PATIENCE_SECONDS)
    await until(lambda: not processes.is_alive(grandchild))


async def test_escaped_grandchild_that_holds_the_pipes_delays_nobody(launch_of, processes, until, tmp_path):
    note = tmp_path / "grandchild"
    child = await ChildProcess.start(
        launch_of("--grandchild", str(note), "--own-session", "--ready-after", "60")
    )
    await until(note.exists)
    grandchild = int(note.read_text())
    report = await asyncio.wait_for(child.stop(60), PATIENCE_SECONDS)
    assert report.signal_name == "SIGTERM"
    assert processes.is_alive(grandchild)  # in a session of its own; the fixture ends it


@pytest.mark.parametrize("has_setpriv", [True, False])
async def test_missing_program_is_named(launch_of, monkeypatch, has_setpriv):
    if not has_setpriv:
        monkeypatch.setenv("PATH", "/nowhere")
    launch = Launch(("/nowhere/comfy", "--x"), None, {})
    if has_setpriv:  # then it is setpriv that does not find it
        report, _ = await end_of(launch)
        assert report.exit_code == 127
        assert "/nowhere/comfy" in report.summary
    else:
        with pytest.raises(EngineFailedError, match=r"cannot be started.*'/nowhere/comfy'"):
            await ChildProcess.start(launch)


async def test_missing_folder_is_named(launch_of, tmp_path):
    launch = Launch(launch_of().argv, tmp_path / "gone", {})
    with pytest.raises(EngineFailedError, match=r"cannot be started.*gone"):
        await ChildProcess.start(launch)


async def test_secrets_do_not_reach_the_child(launch_of, monkeypatch):
    for name in ("AGENT_API_KEYS", "REDIS_URL", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("HF_TOKEN", "kept")
    launch = launch_of(script="import os\nfor pair in os.environ.items(): print(*pair)")
    _, lines = await end_of(launch)
    assert "HF_TOKEN kept" in lines
    assert not [line for line in lines if "hush-hush" in line]


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_of_many_children(launch_of, processes, until):
    launch = launch_of(script="print('hello')")
    threads = set(threading.enumerate())
    await end_of(launch)
    files = open_files()
    for _ in range(10):
        await end_of(launch)
    await until(lambda: open_files() <= files)
    waiting = [
        thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("asyncio-waitpid")
    ]
    for thread in waiting:  # asyncio's own thread, which tells of the end just before it ends itself
        thread.join(timeout=10)
    assert not [thread for thread in waiting if thread.is_alive()]
    assert "Z" not in processes.children().values()
