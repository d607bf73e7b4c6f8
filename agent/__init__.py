"""The service: takes workflows over HTTP, runs them on a ComfyUI engine, keeps tasks."""

__version__ = "0.1.0"
