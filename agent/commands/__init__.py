"""The commands that use an agent from afar: `comfyui-agent run`, `status`, `cancel` and `outputs`.

They need the agent's address and nothing else of it. Each imports what it needs itself.
"""
