"""What is where in Redis. All keys of one task carry its id as hash tag, so that each script stays within one slot:

    {ID}:task            hash: the task (see redis_scripts)
    {ID}:lease           string: the owner, while its lease is alive
    {ID}:output:N:INDEX  string: bytes of an output of attempt N
    {ID}:preview         string: the latest picture of the task at work
    parked:SHA256        string: a part of a request that is on its way
    {index}:position     sorted set: all tasks, in order of creation
    {index}:expiry       sorted set: when they leave the index
    {index}:due          sorted set: ids of tasks that owe an end or a message, by when others must see to them

and channels: `{ID}:changes` carries each stored record, `cancels:OWNER` ids of tasks to cancel.
"""

from __future__ import annotations


class Keys:
    """The names, each behind the prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.positions = f"{prefix}{{index}}:position"
        self.expiry = f"{prefix}{{index}}:expiry"
        self.due = f"{prefix}{{index}}:due"
        #: What a stored record changes beside the task itself.
        self.index = (self.positions, self.expiry, self.due)

    def task(self, task_id: str) -> tuple[str, str]:
        """The task and its lease, which most scripts take."""
        return f"{self._prefix}{{{task_id}}}:task", f"{self._prefix}{{{task_id}}}:lease"

    def output(self, task_id: str, attempt: int, index: int) -> str:
        return f"{self._prefix}{{{task_id}}}:output:{attempt}:{index}"

    def preview(self, task_id: str) -> str:
        return f"{self._prefix}{{{task_id}}}:preview"

    def parked(self, digest: str) -> str:
        return f"{self._prefix}parked:{digest}"

    def changes(self, task_id: str) -> str:
        """The channel of the task's stored records."""
        return f"{self._prefix}{{{task_id}}}:changes"

    def cancels(self, owner: str) -> str:
        """The channel of the ids of tasks that this owner is to cancel."""
        return f"{self._prefix}cancels:{owner}"
