"""`comfyui-agent demo`: shows on any machine, in seconds, what the agent does."""

from agent.demo.tour import run_demo

__all__ = ["run_demo"]
