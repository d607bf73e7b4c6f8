"""What only the store in a shared folder has: processes that race and die, files that are damaged, a file server that
is away, full or silent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from agent.errors import StoreUnavailable
from agent.tasks import directory, directory_files, directory_sweep
from agent.tasks.directory import DirectoryStore
from agent.tasks.directory_claims import Found
from agent.tasks.directory_files import Files, ServerClock
from agent.tasks.directory_tasks import Tasks
from agent.tasks.record import State
from agent.tasks.store import Claim, ClaimLost, Stored, TaskStore
from tests.integration.tasks.directory_child import NODES
from tests.integration.tasks.steps import CALLS, Follower, claim_of, eventually, lease_to_end, make_task

PATIENCE_SECONDS = 45
NO_POLL = 600  # seconds: what a watcher sees, it was told
TASK = "tasks/*/000001.task"

ROOT = Path(__file__).parents[3]

MakeStore = Callable[..., DirectoryStore]
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shared folder."""
    shared = tmp_path / "shared"
    shared.mkdir()
    return shared


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """One in memory, where that is to be had: syncing costs nothing there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def make_store(opened: Callable[[TaskStore], TaskStore], folder: Path) -> MakeStore:
    def make(where: Path | None = None, **options: float) -> DirectoryStore:
        options = {"record_ttl_seconds": 600, "output_ttl_seconds": 600, "poll_seconds": 0.05, **options}
        store = DirectoryStore(where or folder, **options)
        opened(store)
        return store

    return make


class Child:
    """Another process that uses the folder (see directory_child)."""

    def __init__(self, what: str, folder: Path, *args: str, before: tuple[str, ...] = ()) -> None:
        module = (sys.executable, "-m", "tests.integration.tasks.directory_child")
        self._command = (*before, *module, what, str(folder), *args)

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, cwd=ROOT)
        assert await self.line() == "ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            await self.kill()

    async def line(self) -> str:
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")

    async def to_end(self) -> list[str]:
        """What it said until it was done and its process ended."""
        said: list[str] = []
        while (line := await self.line()) != "done":
            assert line or not self.process.stdout.at_eof(), said
            said.append(line)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await self.process.wait() == 0
        return said

    async def kill(self) -> None:
        self.process.kill()
        await self.process.communicate()


@contextlib.asynccontextmanager
async def children(what: str, folder: Path, count: int) -> AsyncIterator[tuple[Child, Child]]:
    async with Child(what, folder, "a", str(count)) as one, Child(what, folder, "b", str(count)) as two:
        one.go()
        two.go()
        yield one, two


class TestRaces:
    @pytest.mark.timeout(120)
    async def test_of_two_processes_exactly_one_gets_each_of_two_thousand_tasks(
        self, quick_folder: Path
    ) -> None:
        async with children("race", quick_folder, 2000) as (one, two):
            won = await asyncio.gather(one.to_end(), two.to_end())
        assert sorted(map(int, won[0] + won[1])) == list(range(2000))

    @pytest.mark.timeout(120)
    async def test_of_two_processes_exactly_one_gets_each_of_a_thousand_fences(
        self, quick_folder: Path
    ) -> None:
        async with children("relay", quick_folder, 1000) as (one, two):
            won = await asyncio.gather(one.to_end(), two.to_end())
        fences = sorted(map(int, won[0] + won[1]))
        assert fences == list(range(1, len(fences) + 1))
        assert len(fences) >= 1000
        (task,) = (quick_folder / "tasks").iterdir()
        assert len(list(task.iterdir())) < 5, "the files of old claims stay"

    async def test_taker_whose_ground_is_swept_away_gives_way_to_who_began_again(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        # It saw an expired task and is about to follow it with claim 2. Meanwhile that is removed, and somebody
        # who finds nothing makes claim 1: both files are new, both links succeed.
        store = make_store(record_ttl_seconds=0.05)
        await claim_of(store, make_task(), owner="gone", lease_seconds=0.01)
        await eventually(lambda: _is_gone(store))
        files = _Hooked(folder)
        clock = ServerClock(files.temporary)
        tasks, other = Tasks(files, clock, 0.05), Tasks(Files(folder), clock, 600)

        def meanwhile() -> None:
            shutil.rmtree(next(files.tasks.iterdir()))
            assert isinstance(other.take(make_task(), 0, "quick", 60), Claim)

        files.before_create = meanwhile
        answer = await asyncio.to_thread(tasks.take, make_task(), 0, "slow", 60)
        assert isinstance(answer, Stored)
        assert answer.owner == "quick"
        other.write(Claim("task-1", 1, "quick", 60), make_task(state=State.SUCCEEDED), ends=True)

    async def test_sweep_that_comes_late_leaves_the_claim_of_who_began_again(self, folder: Path) -> None:
        files = Files(folder)
        files.prepare()
        clock = ServerClock(files.temporary)
        tasks, other = _Interrupted(files, clock, 0.05), Tasks(files, clock, 600)
        assert isinstance(other.take(make_task(created_at=1000), 0, "gone", 0.01), Claim)

        async def is_expired() -> bool:
            return Tasks(files, clock, 0.05).find("task-1").snapshot is None

        await eventually(is_expired)

        def meanwhile() -> None:
            shutil.rmtree(next(files.tasks.iterdir()))
            assert isinstance(other.take(make_task(created_at=1000), 0, "new", 60), Claim)

        tasks.after_find = meanwhile
        tasks.sweep(tasks.index.oldest("", 1)[0], output_ttl_seconds=0.05)
        found = other.find("task-1").snapshot
        assert found
        assert found.header.owner == "new"

    async def test_write_that_was_given_up_does_not_overtake_the_next(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        store = make_store()
        claim = await claim_of(store, make_task())
        files = _Hooked(folder)
        store._tasks._files = files
        reached, release = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            assert release.wait(PATIENCE_SECONDS)

        files.before_replace = hold
        slow = asyncio.create_task(store.write(claim, make_task(progress=0.5)))
        await asyncio.to_thread(reached.wait, PATIENCE_SECONDS)
        slow.cancel()
        final = make_task(state=State.SUCCEEDED)
        last = asyncio.create_task(store.write(claim, final))
        release.set()
        await last
        assert await make_store().read("task-1") == Stored(final, 1, None, cancel_requested=False)


class TestDeath:
    async def test_process_killed_in_the_middle_of_a_write_leaves_a_whole_record(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        store = make_store()
        for pause in (0, 0.01, 0.02, 0.03, 0.05, 0.08):
            shutil.rmtree(folder)
            folder.mkdir()
            async with Child("write", folder) as child:
                child.go()
                assert await child.line() == "writing"
                await eventually(lambda: _is_running(store), PATIENCE_SECONDS)
                await asyncio.sleep(pause)  # the moment of death, somewhere in a write
                await child.kill()
            stored = await store.read("task-1")
            assert stored
            assert len(stored.record.nodes) == NODES
            assert len({node.value for node in stored.record.nodes.values()}) == 1

    async def test_what_the_dead_left_in_the_making_is_removed_after_an_hour(
        self, make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(directory, "SWEEP_SECONDS", 0)
        store = make_store()
        await store.ping()
        left, young = folder / "tmp" / "left", folder / "tmp" / "young"
        request = folder / "cancels" / "dead" / "task"
        empty = folder / "cancels" / "long-dead"
        request.parent.mkdir()
        empty.mkdir()
        for path in (left, young, request):
            path.write_bytes(b"half")
        for path in (left, request, empty):
            os.utime(path, (time.time() - 3700,) * 2)
        await _swept(store, lambda: not (left.exists() or request.exists() or empty.exists()))
        assert young.exists()


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"\0" * 1000, b"\xff\xfe\n{}", b"{}\n{}", b"null\nnull", b'{"fence": "x"}\n\n'],
        ids=["empty", "half", "zeros", "no text", "no fields", "null", "wrong"],
    )
    async def test_damaged_file_is_one_task_less_and_its_owner_stores_it_anew(
        self, make_store: MakeStore, folder: Path, content: bytes
    ) -> None:
        store, other = make_store(), make_store()
        claim = await claim_of(store, make_task())
        (file,) = folder.glob(TASK)
        file.write_bytes(content)
        await claim_of(store, make_task("healthy"))
        assert await other.read("task-1") is None
        assert [record.id for record in (await other.page()).records] == ["healthy"]
        assert await other.request_cancel("task-1") is None
        assert [stored async for stored in other.watch("task-1")] == []
        assert await store.extend(claim) is False
        final = make_task(state=State.SUCCEEDED)
        await store.write(claim, final)
        assert await other.read("task-1") == Stored(final, 1, None, cancel_requested=False)

    async def test_damaged_task_can_be_taken_anew(self, make_store: MakeStore, folder: Path) -> None:
        store = make_store()
        zombie = await claim_of(store, make_task())
        (file,) = folder.glob(TASK)
        file.write_bytes(b"{")
        claim = await claim_of(make_store(), make_task(), owner="b")
        with pytest.raises(ClaimLost):
            await store.write(zombie, make_task(state=State.SUCCEEDED))
        await store.write(claim, make_task(state=State.SUCCEEDED))

    async def test_strange_things_in_the_folder_are_passed_over(
        self, make_store: MakeStore, folder: Path, tmp_path: Path
    ) -> None:
        store = make_store()
        await claim_of(store, make_task("healthy"))
        await claim_of(store, make_task("folder"))
        await claim_of(store, make_task("link"))
        await claim_of(store, make_task("copied"))
        (tmp_path / "secret").write_text("secret")
        for file in folder.glob(TASK):
            if file.parent.name.startswith("folder"):
                file.unlink()
                file.mkdir()
            elif file.parent.name.startswith("link"):
                file.unlink()
                file.symlink_to(tmp_path / "secret")
            elif file.parent.name.startswith("copied"):
                shutil.copy(next(folder.glob("tasks/healthy*/*.task")), file)
        for where in (".", "tasks", "index", "index/nonsense", "parked", "cancels", "tmp"):
            (folder / where).mkdir(exist_ok=True)
            for name in (".nfs000001", "README", "\udcff", "000002.task"):
                (folder / where / name).write_text("not ours")
        assert [record.id for record in (await make_store().page()).records] == ["healthy"]
        assert await store.read("link") is None
        assert await store.read("copied") is None

    async def test_task_that_may_not_be_read_is_one_less_in_the_list(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        store = make_store()
        await claim_of(store, make_task("mine"))
        await claim_of(store, make_task("forbidden"))
        (file,) = folder.glob("tasks/forbidden*/*.task")
        with _as_nobody_special(folder):
            file.chmod(0)
            assert [record.id for record in (await store.page()).records] == ["mine"]
            with pytest.raises(StoreUnavailable, match="same user"):
                await store.read("forbidden")
            file.chmod(0o600)


class TestNames:
    IDS = (
        ".",
        "..",
        "../../up",
        "/etc/passwd",
        "",
        " ",
        ".hidden",
        "..a",
        "-rf",
        "a:b",
        "a/b",
        "a\\b",
        "a\0b",
        "CON",
    )
    MORE = (
        "case",
        "Case",
        "CASE",
        "名前",
        "e\u0301",
        "\u00e9",
        "x" * 128,
        "X" * 128,
        "x" * 5000,
        "a\nb",
        "~",
        "$(id)",
    )

    async def test_any_id_is_a_task_of_its_own_inside_the_folder(
        self, make_store: MakeStore, folder: Path, tmp_path: Path
    ) -> None:
        store = make_store()
        ids = self.IDS + self.MORE
        for number, task_id in enumerate(ids):
            claim = await claim_of(store, make_task(task_id, progress=number / 100), owner=task_id)
            await store.put_output(claim, 0, task_id.encode())
            await store.put_parked(task_id, task_id.encode())
            await store.extend(claim)
            await store.request_cancel(task_id)
        for number, task_id in enumerate(ids):
            stored = await store.read(task_id)
            assert stored
            assert (stored.record.id, stored.record.progress) == (task_id, number / 100)
            assert await store.get_output(task_id, 1, 0) == task_id.encode()
            assert await store.get_parked(task_id) == task_id.encode()
        assert {record.id for record in (await store.page(limit=100)).records} == set(ids)
        assert [path.name for path in tmp_path.iterdir()] == ["shared"], "it was led outside"
        names = [path.name for path in folder.rglob("*")]
        assert all(name == name.lower() and name.isascii() and name[0] != "." for name in names)

    async def test_no_cursor_leads_outside(self, make_store: MakeStore, tmp_path: Path) -> None:
        store = make_store()
        await claim_of(store, make_task())
        (tmp_path / "0000000000").mkdir()
        for cursor in ("..", "../", "/", "\0", "9" * 300, "~"):
            assert len((await store.page(before=cursor)).records) <= 1

    async def test_files_are_the_owners_alone(self, make_store: MakeStore, folder: Path) -> None:
        before = os.umask(0)
        try:
            store = make_store()
            claim = await claim_of(store, make_task())
            await store.put_output(claim, 0, b"data")
            await store.put_parked("digest", b"data")
            await store.extend(claim)
            await store.request_cancel("task-1")
        finally:
            os.umask(before)
        modes = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
        assert len(modes) > 12
        for path, mode in modes.items():
            assert mode == (0o700 if (folder / path).is_dir() else 0o600), path


class TestFaults:
    @every_call
    async def test_missing_folder_is_said_and_not_made(
        self, make_store: MakeStore, tmp_path: Path, call: Callable[[TaskStore], Awaitable[object]]
    ) -> None:
        store = make_store(tmp_path / "not-mounted")
        with pytest.raises(StoreUnavailable, match="The folder must be there"):
            await call(store)
        assert not (tmp_path / "not-mounted").exists()

    async def test_folder_in_which_nothing_can_be_made_is_not_called_missing(
        self, make_store: MakeStore
    ) -> None:
        store = make_store(Path("/proc"))
        with pytest.raises(StoreUnavailable, match=r"nothing can be made in it.*must be writable"):
            await store.ping()

    @every_call
    async def test_folder_that_goes_away_is_said_and_works_when_it_is_back(
        self, make_store: MakeStore, folder: Path, call: Callable[[TaskStore], Awaitable[object]]
    ) -> None:
        store = make_store()
        await claim_of(store, make_task(), owner="a")
        away = folder.rename(folder.with_name("away"))
        with pytest.raises(StoreUnavailable, match="must be there"):
            await call(store)
        away.rename(folder)
        await call(store)

    async def test_folder_that_was_emptied_gets_the_result_all_the_same(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        store = make_store()
        claim = await claim_of(store, make_task())
        shutil.rmtree(folder)
        folder.mkdir()
        final = make_task(state=State.SUCCEEDED)
        await store.put_output(claim, 0, b"data")
        await store.write(claim, final)
        assert await make_store().read("task-1") == Stored(final, 1, None, cancel_requested=False)
        assert (await make_store().page()).records == (final,)
        assert await make_store().get_output("task-1", 1, 0) == b"data"

    @pytest.mark.parametrize("name", ["take", "write", "release", "extend", "request_cancel", "put_output"])
    async def test_folder_that_may_not_be_written_is_said_and_read_all_the_same(
        self, make_store: MakeStore, folder: Path, name: str
    ) -> None:
        store = make_store()
        await claim_of(store, make_task(), owner="a")
        folders = [path for path in folder.rglob("*") if path.is_dir()]
        with _as_nobody_special(folder):
            for path in folders:
                path.chmod(0o500)
            with pytest.raises(StoreUnavailable, match="same user"):
                await CALLS[name](store)
            assert await store.read("task-1")
            for path in folders:
                path.chmod(0o700)
            await CALLS[name](store)

    async def test_file_that_grows_too_large_is_said_as_no_room(self, folder: Path) -> None:
        async with Child("fill", folder, "200000") as child:
            child.go()
            (said,) = await child.to_end()
        assert "full" in said

    async def test_full_disk_is_said_and_half_files_are_removed(self, folder: Path) -> None:
        namespace = ("unshare", "--map-root-user", "--mount")
        if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
            pytest.skip("a small disk needs a mount, and this machine allows none (unshare)")
        mount = f"mount -t tmpfs -o size=1m tmpfs {folder} && exec "
        async with Child("fill", folder, "0", before=(*namespace, "sh", "-c", mount + '"$@"', "sh")) as child:
            child.go()
            said = await child.to_end()
        assert len(said) == 4
        assert all("No space left on device" in line and "AGENT_TASK_TTL_SECONDS" in line for line in said)


class TestSilence:
    """A file that never opens: a pipe in the place of a task's file makes whoever reads it wait, as a NAS does."""

    async def test_file_server_that_does_not_answer_is_given_up_and_found_again(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        store = make_store(timeout_seconds=4)
        await claim_of(store, make_task("silent"))
        await claim_of(store, make_task("other"))
        (file,) = folder.glob("tasks/silent*/*.task")
        content = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await store.read("silent")
        assert await store.read("other"), "one call that hangs is not all"
        many = await asyncio.gather(*(store.read("silent") for _ in range(40)), return_exceptions=True)
        assert {type(answer) for answer in many} == {StoreUnavailable}
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await store.read("other")
        pipe = os.open(file, os.O_RDWR)  # now it opens for everybody, and holds nothing

        async def answers() -> bool:
            with contextlib.suppress(StoreUnavailable):
                return await store.read("other") is not None
            return False

        await eventually(answers, PATIENCE_SECONDS)
        file.unlink()
        file.write_bytes(content)
        os.close(pipe)
        assert await store.read("silent")

    async def test_file_that_is_replaced_while_it_is_read_is_read_again(
        self, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # An NFS server forgets the file; a local disk keeps it for who has it open.
        store = make_store()
        await claim_of(store, make_task())
        reads, really = 0, directory_files._read

        def read(file: int, size: int) -> bytes:
            nonlocal reads
            reads += 1
            if reads % 2:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return really(file, size)

        monkeypatch.setattr(directory_files, "_read", read)
        assert await store.read("task-1")
        assert reads > 1

    async def test_process_ends_although_a_call_hangs(self, make_store: MakeStore, folder: Path) -> None:
        await claim_of(make_store(), make_task())
        (file,) = folder.glob(TASK)
        file.unlink()
        os.mkfifo(file)
        async with Child("hang", folder) as child:
            child.go()
            (said,) = await child.to_end()
        assert "does not answer" in said

    async def test_closed_store_leaves_no_thread(self, make_store: MakeStore) -> None:
        store = make_store()
        await asyncio.gather(*(claim_of(store, make_task(f"task-{i}")) for i in range(20)))
        threads = store._threads._threads
        assert threads
        await store.close()

        async def none() -> bool:
            return not any(thread.is_alive() for thread in threads)

        await eventually(none, PATIENCE_SECONDS)


class TestForgetting:
    async def test_all_that_has_expired_is_removed(
        self, make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(directory, "SWEEP_SECONDS", 0)
        monkeypatch.setattr(directory_sweep, "AT_ONCE", 7)  # it takes several rounds
        store = make_store(record_ttl_seconds=1, output_ttl_seconds=1)
        for i in range(20):
            claim = await claim_of(store, make_task(f"old-{i}", created_at=1000 + 100 * i), lease_seconds=0.1)
            await store.put_output(claim, 0, b"data")
            await store.put_parked(f"digest-{i}", b"data")
            await store.extend(claim)
            await store.request_cancel(claim.task_id)
        await store.put_output(Claim("never-stored", 1, "a", 30), 0, b"data")

        traces = ("tasks/old-*", "tasks/never-*", "index/*/*-old-*", "index/*/*-never-*", "parked/*")
        assert all(list(folder.glob(trace)) for trace in traces)
        await _swept(store, lambda: not any(list(folder.glob(trace)) for trace in traces))
        assert await store.get_parked("digest-0") is None

    async def test_sweep_leaves_what_lives(
        self, make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(directory, "SWEEP_SECONDS", 0)
        store = make_store(output_ttl_seconds=0.05)
        claim = await claim_of(store, make_task(created_at=1000))
        await store.put_output(claim, 0, b"data")
        await _swept(store, lambda: not list(folder.glob("tasks/task-1*/*.output")))
        await store.write(claim, make_task(state=State.SUCCEEDED, created_at=1000))
        assert "task-1" in [record.id for record in (await store.page(limit=1000)).records]

    async def test_task_whose_time_of_creation_changes_is_listed_once(
        self, make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(directory, "SWEEP_SECONDS", 0)
        store = make_store(output_ttl_seconds=0.05)
        claim = await claim_of(store, make_task(created_at=1000))
        await store.write(claim, make_task(created_at=2000))
        assert [record.created_at for record in (await store.page()).records] == [2000]
        await _swept(store, lambda: len(list(folder.glob("index/*/*-task-1.*"))) == 1)
        assert 2000 in [record.created_at for record in (await store.page(limit=1000)).records]


class TestFollowing:
    async def test_changes_of_this_process_are_told_at_once(self, make_store: MakeStore) -> None:
        store = make_store(poll_seconds=NO_POLL)
        claim = await claim_of(store, make_task(), owner="a")
        follower = Follower(store)
        await follower.until(lambda stored: stored.owner == "a")
        async with contextlib.aclosing(store.cancels("a")) as cancels:
            heard = asyncio.ensure_future(anext(cancels))
            await asyncio.sleep(0)
            await store.request_cancel("task-1")
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await heard == "task-1"
        await follower.until(lambda stored: stored.cancel_requested)
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert await follower.to_end(PATIENCE_SECONDS) is State.SUCCEEDED

    async def test_watch_goes_on_when_the_folder_is_back(self, make_store: MakeStore, folder: Path) -> None:
        store, other = make_store(), make_store()
        claim = await claim_of(store, make_task())
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        away = folder.rename(folder.with_name("away"))
        with pytest.raises(StoreUnavailable):
            await store.write(claim, make_task(state=State.SUCCEEDED))
        away.rename(folder)
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert await follower.to_end(PATIENCE_SECONDS) is State.SUCCEEDED

    async def test_change_long_after_the_last_one_is_seen(
        self, make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Then a look is one request for the folder's time, and the task is read only if that has changed.
        monkeypatch.setattr("agent.tasks.directory_claims.TICK_SECONDS", 0.1)
        store, other = make_store(), make_store()
        claim = await claim_of(store, make_task(), lease_seconds=2)
        follower = Follower(other)
        await follower.until(lambda stored: stored.owner == "a")
        await follower.until(lambda stored: stored.owner is None, PATIENCE_SECONDS)
        await store.write(claim, make_task(state=State.SUCCEEDED))
        assert await follower.to_end(PATIENCE_SECONDS) is State.SUCCEEDED

    async def test_request_to_an_earlier_attempt_is_not_heard_by_the_next(
        self, make_store: MakeStore, folder: Path
    ) -> None:
        store, other = make_store(), make_store()
        claim = await claim_of(store, make_task(), owner="a")
        await other.request_cancel("task-1")
        await store.release(claim, make_task())
        await claim_of(store, make_task(), fence=1, owner="a")
        await claim_of(store, make_task("second"), owner="a")
        await other.request_cancel("second")
        async with contextlib.aclosing(store.cancels("a")) as cancels, asyncio.timeout(PATIENCE_SECONDS):
            assert await anext(cancels) == "second"


class TestTime:
    async def test_instances_whose_clocks_are_wrong_agree_on_a_lease(self, folder: Path) -> None:
        files = Files(folder)
        files.prepare()

        def instance(error_seconds: float) -> Tasks:
            clock = ServerClock(files.temporary, wall=lambda: time.time() + error_seconds)
            return Tasks(files, clock, 600)

        ahead, behind = instance(86_400), instance(-86_400)
        assert isinstance(ahead.take(make_task(), 0, "ahead", 60), Claim)
        refused = behind.take(make_task(), 1, "behind", 60)
        assert isinstance(refused, Stored)
        assert refused.owner == "ahead"
        claim = behind.take(make_task("short"), 0, "behind", 0.05)
        assert isinstance(claim, Claim)

        async def is_over() -> bool:
            return isinstance(ahead.take(make_task("short"), 1, "ahead", 60), Claim)

        await eventually(is_over)

    async def test_lease_of_a_killed_process_runs_out(self, make_store: MakeStore) -> None:
        store, other = make_store(), make_store()
        await claim_of(store, make_task(), owner="a", lease_seconds=0.3)
        await lease_to_end(other)
        assert (await claim_of(other, make_task(), fence=1, owner="b")).fence == 2


class _Hooked(Files):
    """Does something else just before it creates or replaces a file, once."""

    before_create: Callable[[], None] | None = None
    before_replace: Callable[[], None] | None = None

    def create(self, path: Path, *pieces: bytes) -> bool:
        hook, self.before_create = self.before_create, None
        if hook:
            hook()
        return super().create(path, *pieces)

    def replace(self, path: Path, *pieces: bytes, is_durable: bool = True) -> None:
        hook, self.before_replace = self.before_replace, None
        if hook:
            hook()
        super().replace(path, *pieces, is_durable=is_durable)


class _Interrupted(Tasks):
    """Something else happens right after it has found out what there is, once."""

    after_find: Callable[[], None] | None = None

    def find_named(self, name: str) -> Found:
        found = super().find_named(name)
        hook, self.after_find = self.after_find, None
        if hook:
            hook()
        return found


@contextlib.contextmanager
def _as_nobody_special(folder: Path) -> Iterator[None]:
    """Root may do anything. Within, the folder is that of a user who may not."""
    if os.geteuid() != 0:
        yield
        return
    user, parents = (
        65534,
        [p for p in folder.parents if p.stat().st_uid == 0 and not p.stat().st_mode & 0o010],
    )
    modes = [(p, p.stat().st_mode) for p in parents]
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user)
    for path, mode in modes:
        path.chmod(mode | 0o011)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in modes:
            path.chmod(stat.S_IMODE(mode))


async def _is_gone(store: TaskStore) -> bool:
    return await store.read("task-1") is None


async def _is_running(store: TaskStore) -> bool:
    stored = await store.read("task-1")
    return stored is not None and stored.record.state is State.RUNNING


async def _swept(store: TaskStore, condition: Callable[[], bool]) -> None:
    """Take tasks until what has expired is removed."""
    count = 0

    async def look() -> bool:
        nonlocal count
        count += 1
        await claim_of(store, make_task(f"sweeper-{count}"), lease_seconds=0.01)
        return condition()

    await eventually(look, PATIENCE_SECONDS)
