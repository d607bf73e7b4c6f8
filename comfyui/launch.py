"""What is launched, and with how much patience: decisions only, nothing starts here."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from comfyui.errors import EngineFailedError

LOOPBACK = "127.0.0.1"

#: Without it ComfyUI sends no previews. "auto" takes the one that costs next to nothing.
PREVIEWS = ("--preview-method", "auto")

# Custom nodes are other people's code: they get what they need for their models, not what opens our store or account.
SECRET_NAMES = (
    "AGENT_*",
    "REDIS_URL",
    "ALIBABA_CLOUD_*",
    "AWS_*",
    "*_SECRET*",
    "FC_*ACCESS_KEY*",
    "FC_*SECURITY_TOKEN*",
    "ACCESSKEYID",  # these three: Function Compute's older names, written in camel case
    "ACCESSKEYSECRET",
    "SECURITYTOKEN",
)
KEPT_NAMES = ("HF_*",)


@dataclass(frozen=True)
class Launch:
    """One way to start an engine. `cwd` None: the agent's own folder. `env` is the child's whole environment."""

    argv: tuple[str, ...]
    cwd: Path | None
    env: Mapping[str, str]


@dataclass(frozen=True)
class Address:
    """Where a launched engine is reached, and which flags of the user moved it there."""

    host: str
    port: int
    moved_by: tuple[str, ...]  #: such as ("--port 8188",); to be reported, empty when the defaults hold

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True)
class RestartLimits:
    """How patiently a dying engine is started again."""

    backoff_seconds: float = 0.5  #: before the second restart in a row; the first one comes at once
    longest_backoff_seconds: float = 30  #: the back-off doubles up to this
    settled_seconds: float = 60  #: ready for so long, the row of restarts is over
    crash_limit: int = 3  #: starts in a row that never became ready
    death_limit: int = 5  #: deaths of any kind ...
    death_window_seconds: float = 300  #: ... within this time


class RestartPolicy:
    """Decides from the deaths so far when to start again, and what to call hopeless. Times are handed in."""

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._failed_starts = self._in_a_row = 0
        self._deaths: deque[float] = deque(maxlen=limits.death_limit)

    def died(self, now: float, ready_seconds: float | None) -> None:
        """Note an end at `now`, after the engine was ready for `ready_seconds` (None: never)."""
        self._deaths.append(now)
        self._failed_starts = self._failed_starts + 1 if ready_seconds is None else 0
        is_settled = ready_seconds is not None and ready_seconds >= self._limits.settled_seconds
        self._in_a_row = 1 if is_settled else self._in_a_row + 1

    def verdict(self) -> str | None:
        """Say why this is a crash loop, or None while it is not one."""
        limits = self._limits
        if self._failed_starts >= limits.crash_limit:
            return f"failed to start {self._failed_starts} times in a row"
        is_full = len(self._deaths) == limits.death_limit
        if is_full and self._deaths[-1] - self._deaths[0] <= limits.death_window_seconds:
            return f"died {limits.death_limit} times within {self._deaths[-1] - self._deaths[0]:.0f} s"
        return None

    def delay(self) -> float:
        """Return the seconds to wait before the next start."""
        limits = self._limits
        if self.verdict():
            return limits.longest_backoff_seconds
        if self._in_a_row < 2:
            return 0.0
        return min(limits.longest_backoff_seconds, limits.backoff_seconds * 2.0 ** (self._in_a_row - 2))


@dataclass(frozen=True)
class EngineLimits:
    """How patient the supervisor is."""

    start_seconds: float = 600  #: for loading; custom nodes may download models meanwhile
    probe_seconds: float = 5  #: between two probes of a ready engine
    probe_timeout_seconds: float = 10  #: for one probe; ComfyUI's heavy nodes hold the GIL for seconds
    unresponsive_seconds: float = 60  #: without any answer for longer, it hangs
    grace_seconds: float = 5  #: from SIGTERM to SIGKILL when a hung engine is replaced
    restarts: RestartLimits = RestartLimits()


class Patience:
    """Tells a hung engine from a busy one, by the number of failed probes and the time that they took.

    A platform freezes idle instances; on waking, the clock has jumped. So no step between two probes counts for more
    than `longest_step` seconds, and one late probe is never enough.
    """

    FAILURES = 3

    def __init__(self, seconds: float, longest_step: float, now: float) -> None:
        self._limit, self._longest_step, self._last = seconds, longest_step, now
        self.failures, self.seconds = 0, 0.0

    def answered(self, now: float) -> None:
        self._last, self.failures, self.seconds = now, 0, 0.0

    def failed(self, now: float) -> None:
        self.seconds += min(now - self._last, self._longest_step)
        self._last, self.failures = now, self.failures + 1

    @property
    def is_exhausted(self) -> bool:
        return self.failures >= self.FAILURES and self.seconds >= self._limit


def simulator_command(port: int, args: str = "") -> tuple[str, ...]:
    """Return the command of the embedded simulator. Raises EngineFailedError when `args` has an open quote."""
    return (
        sys.executable,
        "-m",
        "comfyui.simulator",
        "--port",
        str(port),
        *PREVIEWS,
        *split_words(args, "COMFYUI_ARGS"),
    )


def checkout_command(root: str | Path, python: str | None, args: str, port: int) -> tuple[str, ...]:
    """Return the command of a ComfyUI checkout, on loopback unless `args` say otherwise (see `listen_address`).

    Raises EngineFailedError when `root` holds no main.py or `args` have an open quote.
    """
    folder = Path(root).expanduser().absolute()
    main = folder / "main.py"
    if not main.is_file():
        raise EngineFailedError(
            f"COMFYUI_ROOT is {folder}, which has no main.py: set it to a ComfyUI checkout"
        )
    # The user's flags come last, because the last of two equal flags counts. A flag without a value stands before
    # them: after "--listen" a stray word would be taken for an address.
    ours = ("--listen", LOOPBACK, "--port", str(port), "--disable-auto-launch", *PREVIEWS)
    return (python or _interpreter(folder), str(main), *ours, *split_words(args, "COMFYUI_ARGS"))


def template_command(template: str, port: int) -> tuple[str, ...]:
    """Return the words of `template` with `{port}` filled in. Raises EngineFailedError when there are none."""
    words = split_words(template, "COMFYUI_COMMAND")
    if not words:
        raise EngineFailedError("COMFYUI_COMMAND is empty")
    # Not str.format: other braces belong to the command.
    return tuple(word.replace("{port}", str(port)) for word in words)


def listen_address(args: str, port: int) -> Address:
    """Return where the engine of `checkout_command` is reached, given the user's `args`.

    Raises EngineFailedError when `args` have an open quote, or a port that is no number.
    """
    host, moved_by = LOOPBACK, []
    words = split_words(args, "COMFYUI_ARGS")
    for i, word in enumerate(words):
        flag, _, value = word.partition("=")
        follower = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else ""
        value = value or ("" if "=" in word else follower)
        if means(flag, "--port"):
            port = _port(value)
        elif means(flag, "--listen"):
            host = _reachable(value)
        else:
            continue
        moved_by.append(f"{flag} {value}".strip())
    return Address(host, port, tuple(moved_by))


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without our secrets."""
    kept = {name: value for name, value in environ.items() if not _is_secret(name)}
    # Into a pipe Python holds back up to 8 KB of stdout, which are lost when the process is killed.
    kept.setdefault("PYTHONUNBUFFERED", "1")
    return kept


def dying_with_us(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Prefix `argv` so that the kernel kills it when its starter dies, where util-linux is there to arrange that.

    Without it a killed agent would leave an engine behind that keeps the GPU and the port.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "SIGKILL", "--", *argv) if setpriv else argv


def _is_secret(name: str) -> bool:
    upper = name.upper()
    return _matches(upper, SECRET_NAMES) and not _matches(upper, KEPT_NAMES)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _interpreter(folder: Path) -> str:
    for venv in (".venv", "venv"):
        python = folder / venv / "bin" / "python"
        if python.exists():
            return str(python)
    return "python3"


def means(flag: str, name: str) -> bool:
    """Say whether argparse takes `flag` for `name`: it accepts abbreviations. Below "--xx" they are ambiguous."""
    return len(flag) >= 4 and name.startswith(flag)


def _port(text: str) -> int:
    if not text.isdecimal():
        raise EngineFailedError(f"COMFYUI_ARGS has --port {text}, which is no number".replace("  ", " "))
    return int(text)


def _reachable(listen: str) -> str:
    """Return an address that reaches a server started with `--listen listen`: a comma list, or empty for all."""
    hosts = [host.strip() for host in listen.split(",") if host.strip()]
    if not hosts or LOOPBACK in hosts or "0.0.0.0" in hosts:  # noqa: S104 - compared, not bound
        return LOOPBACK
    return "::1" if "::" in hosts else hosts[0]


def split_words(text: str, setting: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as exc:
        raise EngineFailedError(f"{setting} cannot be split into words: {exc}") from exc
