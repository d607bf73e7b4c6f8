def run_demo(out: str) -> int:
    return 0
