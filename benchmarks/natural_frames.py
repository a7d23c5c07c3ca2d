"""Score a model and the baselines on natural images, through manifests and the protocol runner.

    python benchmarks/natural_frames.py [--data ../shared/data] [--model repdepth-colon]

NYU, KITTI 2015, 7-Scenes and Middlebury are nothing that an endoscopic network is for: the table shows that the readers
work on other people's files, and what the network does far from home. Disparity is compared after scale and shift in
disparity, depth after median scaling.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from endolux.datasets.manifest import write_manifest

DATA = Path(os.environ.get("ENDOLUX_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))


def manifests(data: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """Write a table a set; returns its path and the alignment that its truth needs."""
    nyu, kitti = data / "nyu_fastdepth", data / "kitti2015_000046"
    kitchen, motorcycle = data / "rgbd_7scenes_kitchen", data / "middlebury2014_motorcycle"
    rows = {
        "nyu": [{"image": str(nyu / "rgb.png"), "depth": str(nyu / "depth.npy"), "mm_per_unit": 1000}],
        "7-scenes": [
            {
                "image": str(picture),
                "depth": str(picture.with_name(picture.name.replace(".color.jpg", ".depth.png"))),
                "mm_per_unit": 1,
                "no_value": 65535,
            }
            for picture in sorted(kitchen.glob("*.color.jpg"))
        ],
        "kitti-2015": [
            {
                "image": str(kitti / "image_2/000046_10.png"),
                "depth": str(kitti / "disp_occ_0/000046_10.png"),
                "kind": "disparity",
            }
        ],
        "middlebury": [
            {"image": str(motorcycle / "im0.png"), "depth": str(motorcycle / "disp0GT.pfm"), "kind": "disparity"}
        ],
    }
    found = {}
    for name, lines in rows.items():
        (folder / name).mkdir()
        write_manifest(folder / name / "manifest.csv", lines)
        found[name] = (folder / name, "scale-shift-disparity" if "kind" in lines[0] else "median")
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", default="repdepth-colon")
    arguments = parser.parse_args()
    models = ("baseline:constant", "baseline:brightness", arguments.model)
    print(f"| set | frames | alignment | {' | '.join(f'{model} AbsRel / delta1' for model in models)} |")
    print(f"|{'---|' * (3 + len(models))}")
    with tempfile.TemporaryDirectory() as temporary:
        for name, (table, alignment) in manifests(arguments.data.resolve(), Path(temporary)).items():
            cells, frames = [], 0
            for model in models:
                command = [sys.executable, "-m", "endolux", "evaluate", model, "--protocol", "manifest"]
                command += ["--data", str(table), "--alignment", alignment, "--json"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(done.stderr, file=sys.stderr)
                    return done.returncode
                metrics = json.loads(done.stdout)["metrics"]
                frames = metrics["abs_rel"]["frames"]
                cells.append(f"{metrics['abs_rel']['mean']:.3f} / {metrics['delta1']['mean']:.3f}")
            print(f"| {name} | {frames} | {alignment} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
