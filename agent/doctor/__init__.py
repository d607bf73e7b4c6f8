"""`comfyui-agent doctor`: looks for what would keep this machine from running tasks, and says what to do about it."""
