"""Time from the start of a fresh process to the first depth: import, load, one image.

python benchmarks/first_depth.py [IMAGE] [--model NAME] [--engine E] [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

CHILD = """
import time; t = [time.perf_counter()]
import endolux; t.append(time.perf_counter())
model = endolux.load({model}); t.append(time.perf_counter())
frame = endolux.read({image!r}); t.append(time.perf_counter())
depth = model.predict(frame); t.append(time.perf_counter())
import json; print(json.dumps([b - a for a, b in zip(t, t[1:])]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = arguments.image
        if image is None:
            image = Path(folder) / "frame.png"
            y, x = np.mgrid[0:720, 0:1280]
            grey = (110 + 60 * np.cos(x / 90) + 50 * np.sin(y / 70)).astype(np.uint8)
            cv2.imwrite(str(image), np.stack((grey // 3, grey // 2, grey), axis=-1))
        model = f"{arguments.model!r}, " if arguments.model else ""
        code = CHILD.format(model=f"{model}engine={arguments.engine!r}", image=str(image))
        rows = []
        for _ in range(arguments.runs):
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            rows.append([time.perf_counter() - start, *json.loads(done.stdout)])
    names = ("process", "import", "load", "read", "predict")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        print(f"{name:8} best {min(values):.3f} s, median {statistics.median(values):.3f} s")
    print(f"target   process below 1.5 s: {'reached' if min(r[0] for r in rows) < 1.5 else 'MISSED'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
