"""Videos, from the file to the frames for the model: Transformers with torchcodec and other readers, and ours.

    python -m benches.bench_video [--rounds 5] [--seconds 60] [--only CLIP] [--sides …] [clip …]
    python -m benches.bench_video --memory CLIP    # peak memory for CLIP and for its first 10 s, as many frames of each

Without clips it writes its own (720p H.264, with and without B-frames, and the first one ten times over), kept in
$FASTER_SMOLVLM_BENCH, or a temporary folder, for the next run; `--make` does no more than that. Readers that are not
installed are left out, saying so. Both sides use two threads and the settings of SmolVLM2-256M's files; memory is
measured in a process of its own for each side.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benches.timing import alternate, machine, table

THREADS = 2
SAMPLE = {"num_frames": 64, "fps": 1}
SETTINGS: dict[str, Any] = {
    "size": {"longest_edge": 2048},
    "max_image_size": {"longest_edge": 512},
    "video_sampling": {"max_frames": 64, "fps": 1, "video_size": {"longest_edge": 512}},
}


def write_clip(path: Path, seconds: int, b_frames: int, gop: int = 250) -> Path:
    """Pan over a photograph with a little noise: 720p, 30 frames a second."""
    if path.exists():
        return path
    import av
    from PIL import Image
    from skimage import data

    photo = np.asarray(Image.fromarray(data.coffee()).resize((2000, 1200)), dtype=np.int16)
    noise = np.random.default_rng(0).normal(0, 3, (8, 720, 1280, 1)).astype(np.int16)
    partial_file = path.with_suffix(".part.mp4")
    with av.open(str(partial_file), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 1280, 720, "yuv420p", THREADS
        stream.options = {"preset": "fast" if b_frames else "veryfast", "bf": str(b_frames), "g": str(gop)}
        for index in range(30 * seconds):
            x, y = int(360 * (1 + np.sin(index / 200))), int(240 * (1 + np.cos(index / 260)))
            picture = np.clip(photo[y : y + 720, x : x + 1280] + noise[index % 8], 0, 255).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    partial_file.rename(path)
    return path


def copy_packets(source: Path, path: Path, times: int = 1, seconds: float | None = None) -> Path:
    """Write a clip `times` over, or its first `seconds`, without encoding it again."""
    if path.exists():
        return path
    import av

    partial_file = path.with_suffix(".part.mp4")
    with av.open(str(partial_file), "w") as out:
        written: Any = None
        start = 0
        for _ in range(times):
            with av.open(str(source)) as whole:
                stream: Any = whole.streams.video[0]
                written = written or out.add_stream_from_template(stream)
                end = start
                for packet in whole.demux(stream):
                    if packet.dts is None or (seconds is not None and packet.dts * packet.time_base >= seconds):
                        continue
                    packet.stream, packet.pts, packet.dts = written, packet.pts + start, packet.dts + start
                    end = max(end, packet.pts + packet.duration)
                    out.mux(packet)
                start = end
    partial_file.rename(path)
    return path


def theirs(reader: str) -> Callable[[str], Any]:
    import torch
    import transformers
    from transformers.video_utils import load_video

    torch.set_num_threads(THREADS)
    processor = transformers.SmolVLMVideoProcessor(**json.loads(json.dumps(SETTINGS)))

    def run(path: str, **ask: Any) -> Any:
        frames, _ = decode_theirs(path, **ask)
        return processor(frames, return_tensors="pt")

    def decode_theirs(path: str, **ask: Any) -> Any:
        def sampled(metadata: Any, **unused: Any) -> Any:
            return processor.sample_frames(metadata, **{**SAMPLE, **ask})

        if reader == "torchcodec":  # what Transformers does, with the threads of both sides made equal
            from torchcodec.decoders import VideoDecoder

            decoder = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=THREADS)
            found = decoder.metadata
            metadata = transformers.video_utils.VideoMetadata(
                found.num_frames, fps=found.average_fps, duration=found.duration_seconds
            )
            return decoder.get_frames_at(indices=sampled(metadata).tolist()).data.contiguous(), metadata
        return load_video(path, backend=reader, sample_indices_fn=sampled)

    run.decode = decode_theirs  # type: ignore[attr-defined]
    run.process = lambda frames: processor(frames, return_tensors="pt")  # type: ignore[attr-defined]
    return run


def ours(fast: bool) -> Callable[[str], Any]:
    from faster_smolvlm import SmolVLMVideoProcessor
    from faster_smolvlm.media.video import load_video

    processor = SmolVLMVideoProcessor(**json.loads(json.dumps(SETTINGS)), threads=THREADS)

    def run(path: str, **ask: Any) -> Any:
        return processor(path, do_sample_frames=True, fast=fast, return_tensors="pt", **ask)

    sampler = partial(processor.sample_frames, **SAMPLE)
    run.decode = lambda path: load_video(path, sample_indices_fn=sampler, threads=THREADS)  # type: ignore[attr-defined]
    run.process = lambda frames: processor(frames, return_tensors="pt")  # type: ignore[attr-defined]
    return run


def sides() -> dict[str, Callable[[], Callable[[str], Any]]]:
    modules = {"torchcodec": "torchcodec", "pyav": "av", "opencv": "cv2", "decord": "decord"}
    found: dict[str, Callable[[], Callable[[str], Any]]] = {}
    for reader, module in modules.items():
        if importlib.util.find_spec(module) is None:
            print(f"{reader} is not installed and left out", file=sys.stderr)
        else:
            found[f"Transformers, {reader}"] = partial(theirs, reader)
    return {**found, "ours, exact": partial(ours, False), "ours, fast": partial(ours, True)}


def peak_memory(side: str, path: Path, fps: float = 1) -> tuple[int, int]:
    """Peak resident bytes that one call adds to what the imports take, in a process of its own; and frames taken."""
    command = [sys.executable, "-m", "benches.bench_video", "--measure", side, "--fps", str(fps), str(path)]
    added, frames = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return int(added), int(frames)


def measure(side: str, path: str, fps: float) -> None:
    import resource

    import av  # noqa: F401 - what both sides load is no memory of theirs
    import torch  # noqa: F401

    run = sides()[side]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frames = run(path, fps=fps)["pixel_values"].shape[1]
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), frames)


def report_memory(path: Path, folder: Path) -> None:
    """Peak memory for a long clip and for its first ten seconds, 64 frames of each."""
    short = copy_packets(path, folder / f"10s-of-{path.name}", seconds=10)
    rows = []
    for side in sides():
        (long_bytes, long_frames), (short_bytes, short_frames) = peak_memory(side, path), peak_memory(side, short, 6.4)
        cells = [f"{size / 2**20:.0f} MiB, {count} frames" for size, count in
                 ((short_bytes, short_frames), (long_bytes, long_frames))]  # fmt: skip
        rows.append([side, *cells, f"{long_bytes / short_bytes:.2f}×"])
    print(table(["", short.name, path.name, "ratio"], rows), flush=True)


def report(path: Path, rounds: int, wanted: list[str], warm: Path, stages: bool) -> None:
    runs = {name: make() for name, make in sides().items() if not wanted or name.split(", ")[1] in wanted}
    for run in runs.values():
        run(str(warm))
    whole = alternate({name: partial(run, str(path)) for name, run in runs.items()}, rounds=rounds, warm_up=0)
    first = next(iter(runs))
    if not stages:
        print(f"\n#### {path.name}\n")
        rows = [[name, str(time), f"{whole[first].median / time.median:.2f}×"] for name, time in whole.items()]
        print(table(["", "end to end", "ratio"], rows), flush=True)
        return
    decode = alternate(
        {name: partial(run.decode, str(path)) for name, run in runs.items() if name != "ours, fast"},  # type: ignore[attr-defined]
        rounds=rounds,
        warm_up=0,
    )
    frames, _ = runs["ours, exact"].decode(str(path))  # type: ignore[attr-defined]
    given = {name: runs[name].process for name in (first, "ours, exact")}  # type: ignore[attr-defined]
    process = alternate({name: partial(step, frames) for name, step in given.items()}, rounds=rounds, warm_up=1)
    print(f"\n#### {path.name}, {len(frames)} frames of {frames.shape[2]}×{frames.shape[1]}\n")
    rows = [
        [
            name,
            str(whole[name]),
            f"{whole[first].median / whole[name].median:.2f}×",
            str(decode.get(name, "")),
            str(process.get(name, "")),
        ]
        for name in runs
    ]
    print(table(["", "end to end", "ratio", "decode", "frames given"], rows), flush=True)
    print(f"\nframes given: {process[first].median / process['ours, exact'].median:.2f}×", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", choices=["b-frames", "no-b-frames", "long"], help="one of the clips written here")
    parser.add_argument("--sides", nargs="*", default=[], help="torchcodec, pyav, opencv, decord, exact, fast")
    parser.add_argument("--end-to-end", action="store_true", help="leave the stages out")
    parser.add_argument("--make", action="store_true", help="write the clips and stop")
    parser.add_argument("--memory", type=Path, metavar="CLIP", help="measure peak memory against the clip's length")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--fps", type=float, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, str(options.clips[0]), options.fps)
        return
    folder = Path(os.environ.get("FASTER_SMOLVLM_BENCH", Path(tempfile.gettempdir()) / "faster-smolvlm-bench"))
    folder.mkdir(parents=True, exist_ok=True)
    print(machine("torch", "transformers", "av"))
    if options.memory:
        report_memory(options.memory, folder)
        return
    seconds = options.seconds
    b_frames = write_clip(folder / f"b-frames-{seconds}s.mp4", seconds, 3)
    own = {
        "b-frames": b_frames,
        "no-b-frames": write_clip(folder / f"no-b-frames-{seconds}s.mp4", seconds, 0),
        "long": copy_packets(b_frames, folder / f"long-{10 * seconds}s.mp4", times=10),
    }
    if options.make:
        return
    import torch

    torch.set_num_threads(THREADS)
    for clip in options.clips or ([own[options.only]] if options.only else own.values()):
        warm = b_frames if clip == own["long"] else clip
        report(clip, options.rounds, options.sides, warm, stages=not options.end_to_end)


if __name__ == "__main__":
    main()
