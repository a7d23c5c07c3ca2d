"""Latency of RepDepth variants, interleaved in one process: ``python benchmarks/network.py [--threads 2]``.

Only the ratios of one run mean something; absolute numbers move by 5-20 % between runs and far more on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnxruntime

from endolux.export.onnx import inference_network, onnx_bytes
from endolux.models import RepDepth

VARIANTS: dict[str, dict[str, object]] = {
    "stride-4": {"fine": 0, "dilations": (1,), "decoder": (128, 80, 64)},
    "stride-4, no context": {"fine": 0, "dilations": (1,), "decoder": (128, 80, 64), "context": False},
    "stride-4, dilated": {"fine": 0, "decoder": (128, 80, 64)},
    "default (fine 16, dilated)": {},
    "fine 8": {"fine": 8},
    "fine 32": {"fine": 32},
    "decoder 128-80-64": {"decoder": (128, 80, 64)},
    "width 256": {"widths": (48, 96, 192, 256)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=15)
    parser.add_argument("--size", default="320x256", help="WIDTHxHEIGHT")
    parser.add_argument("--only", nargs="*", default=None)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    sessions, parameters = {}, {}
    for name, config in VARIANTS.items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        network = inference_network(RepDepth(**config))
        parameters[name] = sum(parameter.numel() for parameter in network.parameters())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        sessions[name] = onnxruntime.InferenceSession(onnx_bytes(network), options, providers=["CPUExecutionProvider"])
    rounds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(arguments.rounds + 1):
        for name, session in sessions.items():
            times = []
            for _ in range(arguments.calls):
                start = time.perf_counter()
                session.run(None, {"image": image})
                times.append(time.perf_counter() - start)
            if number > 0:
                rounds[name].append(statistics.median(times) * 1e3)
    reference = statistics.median(next(iter(rounds.values())))
    for name, values in rounds.items():
        middle = statistics.median(values)
        ratio = middle / reference
        print(f"{name:28s} {parameters[name] / 1e6:5.2f} M {middle:7.2f} ms  min {min(values):6.2f}  {ratio:5.2f}x")


if __name__ == "__main__":
    main()
