"""Kills a training again and again, resumes it each time, and says what is left: run as a program by the tests.

    python kill_child.py DATA OUTPUT SEED

Forks, so that torch is imported once. Nothing runs in torch before the forks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from runs import small

from endolux.train import checkpoints
from endolux.train.engine import fit

CHANGES = ("steps=8", "checkpoint_every=2", "log_every=1", "data.validation.fraction=0.5", "evaluation.every=2")


def child(data: Path, output: Path, *, die_at_write: int | None) -> int:
    """Train in a forked process; with ``die_at_write`` killed in the middle of that write."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if die_at_write is not None:
            _die_in(die_at_write)
        fit(None, small(*CHANGES), [data], output, resume=True)
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{error}\n")
    finally:
        os._exit(code)


def _die_in(number: int) -> None:
    write, count = checkpoints._write, 0

    def half(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == number:
            path.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, content)

    checkpoints._write = half


def main() -> None:
    data, output, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    generator = np.random.default_rng(seed)
    killed = 0
    # A whole run makes some 20 writes: checkpoints, the log, the record.
    for number in (1, 4, 6, 7, 9):
        pid = child(data, output, die_at_write=number)
        killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    for _ in range(2):
        pid = child(data, output, die_at_write=None)
        time.sleep(float(generator.uniform(0.1, 0.5)))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    code = os.waitstatus_to_exitcode(os.waitpid(child(data, output, die_at_write=None), 0)[1])
    sys.stdout.write(f"{killed} {code}\n")


if __name__ == "__main__":
    main()
