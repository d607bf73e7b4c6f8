"""ComfyUI's own clients on the agent's port: its editor, comfy-cli, scripts that use /prompt, /ws and /history.

A prompt that they queue becomes a task like every other; its events and its end are told to them in ComfyUI's own
messages. Everything here is of this one instance: these clients know no other.
"""
