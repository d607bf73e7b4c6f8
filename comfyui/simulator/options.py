"""The command line. Switches that ComfyUI has too keep its names and meaning."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from comfyui.simulator.faults import Fault, FaultSpecError, parse_fault

IGNORED = (
    "--cpu",
    "--gpu-only",
    "--highvram",
    "--normalvram",
    "--lowvram",
    "--novram",
    "--disable-smart-memory",
    "--disable-auto-launch",
    "--disable-all-custom-nodes",
    "--disable-api-nodes",
)
"""Switches of ComfyUI that change nothing here, so that a command line written for it starts the simulator too."""


@dataclass(frozen=True)
class Options:
    """What one simulator process was started with; read once, never changed."""

    port: int
    listen: str = "127.0.0.1"
    base_directory: Path | None = None
    front_end_root: Path | None = None
    step_seconds: float = 0.05
    node_seconds: dict[str, float] = field(default_factory=dict)  #: by class; "" is every other class
    startup_seconds: float = 0.0
    preview_method: str = "none"
    preview_size: int = 512
    cache_lru: int = 0
    cache_none: bool = False
    max_upload_size: float = 100
    disable_metadata: bool = False
    cors_origin: str | None = None
    lab_nodes: bool = False
    models: tuple[str, ...] = ()
    uuid_only: bool = False
    progress_state: bool = True
    verbose: bool = False
    faults: tuple[Fault, ...] = ()
    fault_state: Path | None = None
    prompt_log: Path | None = None
    argv: tuple[str, ...] = ()

    def seconds_of(self, class_type: str) -> float:
        """The extra time that running a node of this class takes."""
        return self.node_seconds.get(class_type, self.node_seconds.get("", 0.0))

    @property
    def max_body_bytes(self) -> int | float:
        """The bound of every request body; a float if `--max-upload-size` was given, as in ComfyUI."""
        return self.max_upload_size * 1024 * 1024


def parse_options(argv: list[str]) -> Options:
    """Read the command line; exits with 2 and a sentence on stderr if it makes no sense."""
    parser = _parser()
    args = parser.parse_args(argv)
    return Options(
        port=args.port,
        listen=args.listen,
        base_directory=args.base_directory,
        front_end_root=args.front_end_root,
        step_seconds=args.step_seconds,
        node_seconds=dict(args.node_seconds),
        startup_seconds=args.startup_seconds,
        preview_method=args.preview_method,
        preview_size=args.preview_size,
        cache_lru=args.cache_lru,
        cache_none=args.cache_none,
        max_upload_size=args.max_upload_size,
        disable_metadata=args.disable_metadata,
        cors_origin=args.enable_cors_header,
        lab_nodes=args.lab_nodes,
        models=tuple(args.model),
        uuid_only=args.prompt_id == "uuid-only",
        progress_state=not args.no_progress_state and args.protocol != "0.3.40",
        verbose=args.verbose == "DEBUG",
        faults=tuple(args.fault),
        fault_state=args.fault_state,
        prompt_log=args.prompt_log,
        argv=("comfyui.simulator", *argv),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfyui.simulator", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--port", type=int, default=8188)
    add(
        "--listen", nargs="?", const="0.0.0.0,::", default="127.0.0.1", metavar="ADDRESSES", help="comma list"
    )
    add(
        "--base-directory",
        type=Path,
        metavar="DIR",
        help="holds input, output, temp and models; made if missing",
    )
    add("--front-end-root", type=_folder, metavar="DIR", help="where ComfyUI's editor lies; none is built in")
    add("--step-seconds", type=float, default=0.05, help="time of one sampler step")
    add(
        "--node-seconds",
        type=_node_seconds,
        action="append",
        default=[],
        metavar="[CLASS=]SECONDS",
        help="extra time of every executed node, or of those of one class; repeatable",
    )
    add("--startup-seconds", type=float, default=0.0, help="the port is bound only after this time")
    add("--preview-method", choices=["none", "auto", "latent2rgb", "taesd"], default="none")
    add("--preview-size", type=int, default=512, help="longer side of a preview in pixels")
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache-classic", action="store_true", help="keep results of the last prompt (the default)"
    )
    cache.add_argument(
        "--cache-lru", type=int, default=0, metavar="N", help="keep N node results over prompts"
    )
    cache.add_argument("--cache-none", action="store_true", help="run every node each time")
    add("--max-upload-size", type=float, default=100, metavar="MB")
    add("--disable-metadata", action="store_true", help="do not write the prompt into images")
    add("--enable-cors-header", nargs="?", const="*", metavar="ORIGIN")
    add("--lab-nodes", action="store_true", help="offer the Lab* nodes that tests use")
    add(
        "--model",
        action="append",
        default=[],
        metavar="[FOLDER/]NAME",
        help="one more model; folder checkpoints if none",
    )
    add(
        "--prompt-id",
        choices=["any", "uuid-only"],
        default="any",
        help="uuid-only: as later ComfyUI versions",
    )
    add("--protocol", choices=["0.3.64", "0.3.40"], default="0.3.64", help="0.3.40: before progress_state")
    add("--no-progress-state", action="store_true", help="the same as --protocol 0.3.40")
    add(
        "--verbose",
        nargs="?",
        const="DEBUG",
        default="INFO",
        metavar="LEVEL",
        help="DEBUG: log every request",
    )
    for flag in IGNORED:
        add(flag, action="store_true", help=argparse.SUPPRESS)
    add("--fault", type=_fault, action="append", default=[], metavar="SPEC", help="see faults.py; repeatable")
    add("--fault-state", type=Path, metavar="FILE", help="where times=K is counted over restarts")
    add(
        "--prompt-log",
        type=Path,
        metavar="FILE",
        help="add a line for each prompt: its id, and when the worker took it and was done with it (epoch seconds)",
    )
    return parser


def _folder(text: str) -> Path:
    """As for ComfyUI it must be there."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path


def _node_seconds(text: str) -> tuple[str, float]:
    name, _, seconds = text.rpartition("=")
    return name, float(seconds)


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except FaultSpecError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
