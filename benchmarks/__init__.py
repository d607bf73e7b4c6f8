"""What the agent costs beside the engine, measured against an ideal client of ComfyUI itself in the same run.

`python -m benchmarks run` starts agents, engines and what they talk to as child processes, each on a core of its own as
far as there are cores, and prints figures beside their targets. `docs/performance.md` says what they mean.
"""
