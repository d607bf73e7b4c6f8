"""What an account and a function on it are: the settings that the platform's behaviour depends on.

"Section N" in this folder means section N of the notes on Function Compute 3.0 that the simulator was written from.
Nobody here has compared it with a live account. Where the platform's behaviour is not documented, a switch here lets
tests try both.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfyui.launch import dying_with_us

#: Section 8: what the HTTP trigger can let through.
METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"})

#: Section 3: an environment variable may be so long.
LONGEST_VARIABLE = 4096


@dataclass(frozen=True)
class Account:
    """Whose functions they are. The credentials are recognisable, so that a leak is seen wherever it shows."""

    id: str = "1234567890123456"
    region: str = "cn-simulated"
    mark: str = field(default_factory=lambda: f"L34k{secrets.token_hex(8)}", repr=False)

    @property
    def credentials(self) -> dict[str, str]:
        """Section 3: in every request of a function that has a role; none of it may be logged, stored or passed on."""
        return {
            "x-fc-access-key-id": f"STS.id-{self.mark}",
            "x-fc-access-key-secret": f"secret-{self.mark}",
            "x-fc-security-token": f"token-{self.mark}",
        }


@dataclass(frozen=True)
class AsyncConfig:
    """Section 4: how asynchronous invocations are delivered (`asyncInvokeConfig` in s.yaml)."""

    task_mode: bool = True  #: `asyncTask`: states are kept, and an id that was used is refused with 409
    max_retries: int = 3  #: `maxAsyncRetryAttempts`
    max_age_seconds: float = 86_400  #: `maxAsyncEventAgeInSeconds`
    retry_seconds: float = (
        0.1  #: pause before the first retry, doubled each time; the platform's is not documented
    )
    duplicate_every: int = 0  #: every N-th invocation is delivered twice; 0: none
    shows_type: bool = False  #: whether the container gets X-Fc-Invocation-Type too: unknown
    counts_5xx: bool = False  #: whether an HTTP 5xx without x-fc-status is a function error: unknown


def _nothing(_folder: Path) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Function:
    """One deployed function with an HTTP trigger."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    own: Callable[[Path], Mapping[str, str]] = _nothing
    """Variables that differ between instances, from an instance's folder. On the platform each has a network and a
    disk of its own, so that all can use the same port and path; processes on one machine share both."""
    methods: frozenset[str] = METHODS
    instance_concurrency: int = 1
    max_instances: int = 1  #: `reservedConcurrency`, or the GPU quota
    timeout_seconds: float = 60
    has_initializer: bool = True
    has_pre_stop: bool = True
    health_path: str | None = "/healthz"
    health_period_seconds: float = 30
    health_timeout_seconds: float = (
        20  #: the platform allows 1 to 3; a test machine that is loaded needs more
    )
    idle_seconds: float = 60  #: after so long without a request an instance is destroyed; 30 s to minutes
    asynchronous: AsyncConfig = AsyncConfig()

    def __post_init__(self) -> None:
        for name, value in self.environment.items():
            if name.startswith("FC_") or len(value) > LONGEST_VARIABLE:
                raise ValueError(f"the platform refuses the variable {name} (section 3)")


def container_variables(
    function: Function, account: Account, instance: str, port: int, folder: Path
) -> dict[str, str]:
    """The whole environment of an instance: section 3. PATH and HOME are the container's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TZ": "UTC",
        **function.environment,
        **function.own(folder),
        "FC_FUNCTION_NAME": function.name,
        "FC_INSTANCE_ID": instance,
        "FC_REGION": account.region,
        "FC_ACCOUNT_ID": account.id,
        "FC_FUNCTION_HANDLER": "not-used",
        "FC_FUNCTION_MEMORY_SIZE": "32768",
        "FC_CUSTOM_LISTEN_PORT": str(port),
        "FC_VER_ID": "LATEST",
        "FC_FUNCTION_VERSION": "LATEST",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": account.credentials["x-fc-access-key-id"],
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": account.credentials["x-fc-access-key-secret"],
        "ALIBABA_CLOUD_SECURITY_TOKEN": account.credentials["x-fc-security-token"],
    }


def agent_command() -> tuple[str, ...]:
    """The agent as the container's command. A test run that is killed takes it along."""
    return dying_with_us((sys.executable, "-m", "agent.cli", "serve"))
