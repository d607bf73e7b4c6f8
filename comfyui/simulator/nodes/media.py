"""Video and audio. Pillow encodes neither: videos are labelled stand-in files, audio is real WAV."""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfyui.simulator import NOTICE
from comfyui.simulator.nodes.images import file_exists
from comfyui.simulator.nodes.saving import PREFIX_TIP, SAVES, saved, spoil
from comfyui.simulator.nodes.spec import Output, Registry, choice, image, link, number, optional, string
from comfyui.simulator.raster import solid

if TYPE_CHECKING:
    from comfyui.simulator.folders import Folders
    from comfyui.simulator.nodes.job import Job
    from comfyui.simulator.raster import Raster

registry = Registry("comfy_extras.nodes_video")
node = registry.node

VIDEO: dict[str, Any] = {"category": "image/video", "is_v3": True}
AUDIO: dict[str, Any] = {"category": "audio", "module": "comfy_extras.nodes_audio"}
HIDDEN = ("prompt", "extra_pnginfo")
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
AUDIO_SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aac", ".opus")

MP4_HEAD = bytes.fromhex("000000206674797069736f6d0000020069736f6d69736f32617663316d703431")
WEBM_HEAD = bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d428781024285810253")
"""The first bytes of an MP4 (ftyp box) and a WebM (EBML header) file, so that a file's kind is recognised."""


@dataclass(frozen=True)
class Video:
    """Frames with their rate, or the content of an uploaded file."""

    frames: Raster | None
    fps: float
    content: bytes = b""


@dataclass(frozen=True)
class Audio:
    """One sound as WAV bytes, or whatever an uploaded file holds."""

    content: bytes


def of_suffix(*suffixes: str) -> Any:
    return lambda folders: [name for name in folders.input_files() if name.lower().endswith(suffixes)]


@node(
    "CreateVideo",
    image("images", tooltip="The images to create a video from."),
    number("fps", 30.0, min=1.0, max=120.0, step=1.0),
    optional(link("audio", "AUDIO", tooltip="The audio to add to the video.")),
    outputs="VIDEO",
    title="Create Video",
    description="Create a video from images.",
    **VIDEO,
)
def create_video(images: Raster, fps: float, audio: Audio | None = None) -> tuple[Video]:  # noqa: ARG001 - the stand-in is silent
    return (Video(images, fps),)


@node(
    "LoadVideo",
    choice("file", of_suffix(*VIDEO_SUFFIXES), video_upload=True),
    outputs="VIDEO",
    title="Load Video",
    check={"file": file_exists},
    fingerprint=lambda folders, inputs: folders.digest(inputs["file"]),
    **VIDEO,
)
def load_video(file: str, job: Job) -> tuple[Video]:
    return (Video(None, 24.0, _read(job.folders, file)),)


def _read(folders: Folders, name: str) -> bytes:
    with open(folders.locate(name), "rb") as file:  # noqa: PTH123 - the path may not exist as such
        return file.read()


@node(
    "GetVideoComponents",
    link("video", "VIDEO", tooltip="The video to extract components from."),
    outputs=("IMAGE", "AUDIO", "FLOAT"),
    names=("images", "audio", "fps"),
    title="Get Video Components",
    description="Extracts all components from a video: frames, audio, and framerate.",
    **VIDEO,
)
def get_video_components(video: Video) -> tuple[Raster, Audio, float]:
    """An uploaded video is not decoded: it gives one grey frame."""
    frames = solid(64, 64, [0.5, 0.5, 0.5]) if video.frames is None else video.frames
    return frames, Audio(_silence()), video.fps


@node(
    "SaveWEBM",
    image("images"),
    string("filename_prefix", "ComfyUI", multiline=False),
    choice("codec", ("vp9", "av1")),
    number("fps", 24.0, min=0.01, max=1000.0, step=0.01),
    number(
        "crf",
        32.0,
        tooltip="Higher crf means lower quality with a smaller file size, "
        "lower crf means higher quality higher filesize.",
        min=0,
        max=63.0,
        step=1,
    ),
    is_output=True,
    is_experimental=True,
    hidden=HIDDEN,
    **VIDEO,
)
def save_webm(images: Raster, filename_prefix: str, codec: str, fps: float, crf: float, job: Job) -> Output:
    label = f"{len(images.frames)} frames {images.size} {codec} {fps} fps crf {crf}"
    return _save(job, filename_prefix, images.size, "webm", WEBM_HEAD, label)


@node(
    "SaveVideo",
    link("video", "VIDEO", tooltip="The video to save."),
    string("filename_prefix", "video/ComfyUI", tooltip=PREFIX_TIP, multiline=False),
    choice("format", ("auto", "mp4"), tooltip="The format to save the video as.", default="auto"),
    choice("codec", ("auto", "h264"), tooltip="The codec to use for the video.", default="auto"),
    title="Save Video",
    description=SAVES,
    is_output=True,
    hidden=HIDDEN,
    **VIDEO,
)
def save_video(video: Video, filename_prefix: str, format: str, codec: str, job: Job) -> Output:  # noqa: A002 - the node's input
    size = (64, 64) if video.frames is None else video.frames.size
    count = 0 if video.frames is None else len(video.frames.frames)
    label = f"{count} frames {size} {codec} {video.fps} fps {format}"
    return _save(job, filename_prefix, size, "mp4", MP4_HEAD, label)


def _save(job: Job, prefix: str, size: tuple[int, int], suffix: str, head: bytes, label: str) -> Output:
    place = job.folders.place("output", prefix, *size)
    name = f"{place.name}_{place.counter:05}_.{suffix}"
    (place.folder / name).write_bytes(head + f"\nNo video: {NOTICE} {label}\n".encode())
    spoil(job, place.folder / name)
    return saved(name, place.subfolder)


@node(
    "LoadAudio",
    choice("audio", of_suffix(*AUDIO_SUFFIXES, *VIDEO_SUFFIXES), audio_upload=True),
    outputs="AUDIO",
    check={"audio": file_exists},
    fingerprint=lambda folders, inputs: folders.digest(inputs["audio"]),
    **AUDIO,
)
def load_audio(audio: str, job: Job) -> tuple[Audio]:
    return (Audio(_read(job.folders, audio)),)


@node(
    "SaveAudio",
    link("audio", "AUDIO"),
    string("filename_prefix", "audio/ComfyUI"),
    title="Save Audio (FLAC)",
    is_output=True,
    hidden=HIDDEN,
    **AUDIO,
)
def save_audio(audio: Audio, filename_prefix: str, job: Job) -> Output:
    """ComfyUI writes FLAC; this writes what it has, named .wav if that is what it is."""
    place = job.folders.place("output", filename_prefix)
    suffix = "wav" if audio.content.startswith(b"RIFF") else "flac"
    name = f"{place.name}_{place.counter:05}_.{suffix}"
    (place.folder / name).write_bytes(audio.content)
    spoil(job, place.folder / name)
    return Output(ui={"audio": [{"filename": name, "subfolder": place.subfolder, "type": "output"}]})


def _silence(seconds: float = 1.0, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(2 * math.ceil(seconds * rate)))
    return buffer.getvalue()
