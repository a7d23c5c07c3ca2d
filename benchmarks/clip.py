"""End-to-end throughput of a clip: decode, prep, network, resize, depth and vis, as `endolux predict` does it.

    python benchmarks/clip.py [CLIP] [--model NAME] [--frames 5000] [--threads N] [--engine E] [--json]

With --frames the clip is looped (its packets are copied) to that many frames, and memory is watched: its peak, and
whether it stays flat from the first quarter to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from importlib.resources import files
from pathlib import Path

import av

import endolux.runtime.model as model_module
from endolux.runtime.bundles import DEFAULT_MODEL
from endolux.runtime.run_predict import PredictOptions, predict_source

TARGET_FPS = 25.0
TARGET_MB = 600.0
FLAT = 1.05


class Memory(threading.Thread):
    """Resident memory of this process, sampled."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples_mb: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Sample until told that it is over."""
        page = os.sysconf("SC_PAGE_SIZE")
        while not self.over.wait(0.05):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.samples_mb.append(pages * page / 1e6)

    def quarters(self) -> list[float]:
        """Median of each quarter of the run, in MB."""
        step = max(1, len(self.samples_mb) // 4)
        return [statistics.median(self.samples_mb[i * step : (i + 1) * step] or [0.0]) for i in range(4)]


class TimedEngine:
    """An engine that adds up the time inside the network alone."""

    def __init__(self, engine) -> None:  # noqa: ANN001
        self._engine, self.seconds, self.calls = engine, 0.0, 0

    def __getattr__(self, name: str):  # noqa: ANN204
        return getattr(self._engine, name)

    def run(self, batch):  # noqa: ANN001, ANN201
        """Run the network and add up the time."""
        start = time.perf_counter()
        try:
            return self._engine.run(batch)
        finally:
            self.seconds += time.perf_counter() - start
            self.calls += 1


def loop(clip: Path, target: Path, *, frames: int) -> None:
    """Copy the packets of a clip again and again until there are enough frames."""
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        packets = [p for p in source.demux(stream) if p.dts is not None]
        stamps = sorted(p.pts for p in packets)
        span = stamps[-1] - stamps[0] + (stamps[1] - stamps[0] if len(stamps) > 1 else 1)
    written = 0
    with av.open(str(target), "w") as out:
        copy = None
        while written < frames:
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts += span * (written // len(packets))
                    packet.dts += span * (written // len(packets))
                    packet.stream = copy
                    out.mux(packet)
            written += len(packets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=Path(str(files("endolux") / "data" / "demo.mp4")))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--no-vis", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    engines: list[TimedEngine] = []
    create = model_module.create_engine

    def timed(*positional, **named):  # noqa: ANN002, ANN003, ANN202
        engines.append(TimedEngine(create(*positional, **named)))
        return engines[-1]

    model_module.create_engine = timed
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        clip = arguments.clip
        if arguments.frames:
            clip = Path(folder) / "looped.mp4"
            loop(arguments.clip, clip, frames=arguments.frames)
        options = PredictOptions(
            model=arguments.model,
            engine=arguments.engine,
            precision=arguments.precision,
            threads=arguments.threads,
            limit=arguments.frames,
            vis=not arguments.no_vis,
        )
        memory.start()
        cpu = time.process_time()
        report = predict_source(clip, Path(folder) / "out", options=options)
        cpu = time.process_time() - cpu
        memory.over.set()
        memory.join()
    stages = dict(report.stages_ms)
    network = 1e3 * engines[0].seconds / max(1, engines[0].calls)
    slowest = max(stages, key=stages.get)
    quarters = memory.quarters()
    result = {
        "clip": str(arguments.clip),
        "model": report.model,
        "engine": report.engine,
        "precision": report.precision,
        "cores": len(os.sched_getaffinity(0)),
        "frames": report.frames,
        "frames_per_s": report.frames_per_s,
        "real_time": (report.frames_per_s or 0) >= TARGET_FPS,
        "stages_ms": stages,
        "network_ms": round(network, 3),
        "network_to_slowest_stage": round(network / stages[slowest], 3),
        "slowest_stage": slowest,
        "cpu_ms_per_frame": round(1e3 * cpu / report.frames, 2),
        "peak_mb": round(max(memory.samples_mb), 1),
        "memory_quarters_mb": [round(q, 1) for q in quarters],
        "memory_flat": quarters[3] <= quarters[1] * FLAT,
        "memory_below_target": max(memory.samples_mb) < TARGET_MB,
    }
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
        return 0
    for name, value in result.items():
        print(f"{name:26} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
