"""What is measured, one module a group. Each has `measure`, which yields its figures as they are known."""

#: All, in the order in which they run.
GROUPS = ("latency", "throughput", "gap", "status", "memory", "start", "growth")

#: Those that are measured on a real ComfyUI too, where COMFYUI_ROOT names one.
REAL_GROUPS = ("latency", "throughput", "start")
