"""What the agent knows that the deployment files must agree with."""

from __future__ import annotations

from typing import Any

from agent.api import health, hooks, run, socket, tasks
from agent.settings import Settings, variable

KNOWN_VARIABLES = {variable(name) for name in Settings.model_fields}
ROUTES = {(e.method, e.path) for group in (run, socket, tasks, health, hooks) for e in group.ENDPOINTS}


def default_of(name: str) -> Any:
    """The default of a setting, by its variable."""
    (field,) = (field for key, field in Settings.model_fields.items() if variable(key) == name)
    return field.get_default(call_default_factory=True)
