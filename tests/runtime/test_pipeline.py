"""Pipeline: order, overlap, bounded memory, failures and Ctrl-C."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from endolux.runtime.pipeline import Sink, run_pipeline


def square(number: int) -> int:
    return number * number


def no_threads_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("endolux-")]


def test_order_and_every_sink_gets_everything() -> None:
    first: list[int] = []
    second: list[int] = []
    closed: list[str] = []
    counted: list[int] = []

    def slow(value: int) -> None:
        time.sleep(0.0005)
        second.append(value)

    sinks = [Sink("a", first.append, lambda: closed.append("a")), Sink("b", slow, lambda: closed.append("b"))]
    report = run_pipeline(range(200), square, sinks, depth=2, on_item=counted.append)
    assert first == second == [number * number for number in range(200)]
    assert sorted(closed) == ["a", "b"]
    assert counted == list(range(1, 201))
    assert report.items == 200
    assert set(report.busy_s) == {"read", "predict", "a", "b"}
    assert no_threads_left()


def test_empty_source_and_no_sinks() -> None:
    closed: list[int] = []
    assert run_pipeline([], square, [Sink("a", print, lambda: closed.append(1))]).items == 0
    assert closed == [1]
    assert run_pipeline(range(7), square, []).items == 7


def test_stages_overlap_and_the_slowest_is_named() -> None:
    def source() -> Iterator[int]:
        for number in range(20):
            time.sleep(0.004)
            yield number

    def predict(number: int) -> int:
        time.sleep(0.010)
        return number

    report = run_pipeline(source(), predict, [Sink("write", lambda _: time.sleep(0.004))])
    assert report.slowest == "predict"
    assert report.wall_s < 0.85 * sum(report.busy_s.values())
    assert report.items_per_s == pytest.approx(20 / report.wall_s)


def test_reading_never_runs_far_ahead() -> None:
    drawn = 0
    ahead: list[int] = []

    def source() -> Iterator[int]:
        nonlocal drawn
        for number in range(60):
            drawn += 1
            yield number

    def write(number: int) -> None:
        time.sleep(0.002)
        ahead.append(drawn - number)

    run_pipeline(source(), lambda number: number, [Sink("write", write)], depth=3)
    assert max(ahead) <= 2 * 3 + 4


@pytest.mark.parametrize("stage", ["read", "predict", "write", "close", "on_item"])
def test_first_error_stops_everything_and_closes(stage: str) -> None:
    closed: list[str] = []
    generator_closed: list[bool] = []

    def fail(at: str, number: int) -> None:
        if at == stage and number == 5:
            raise ValueError(f"from {at}")

    def source() -> Iterator[int]:
        try:
            for number in range(10_000):
                fail("read", number)
                yield number
        finally:
            generator_closed.append(True)

    def predict(number: int) -> int:
        fail("predict", number)
        return number

    def close() -> None:
        closed.append("bad")
        fail("close", 5)

    sinks = [
        Sink("good", lambda _: None, lambda: closed.append("good")),
        Sink("bad", lambda number: fail("write", number), close),
    ]
    items = source() if stage != "close" else iter(range(3))
    with pytest.raises(ValueError, match=f"from {stage}"):
        run_pipeline(items, predict, sinks, on_item=lambda number: fail("on_item", number))
    assert sorted(closed) == ["bad", "good"]
    assert generator_closed == ([] if stage == "close" else [True])
    assert no_threads_left()


def test_keyboard_interrupt_finishes_what_was_predicted() -> None:
    written: list[int] = []
    closed: list[bool] = []

    def predict(number: int) -> int:
        if number == 30:
            raise KeyboardInterrupt
        return number

    def write(number: int) -> None:
        time.sleep(0.002)
        written.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(range(10_000), predict, [Sink("write", write, lambda: closed.append(True))])
    assert written == list(range(30))
    assert closed == [True]
    assert no_threads_left()


def test_keyboard_interrupt_between_two_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sink may have a result that another one lacks."""
    put, hit = queue.Queue.put, []

    def interrupted_put(self: queue.Queue, item: object, block: bool = True, timeout: float | None = None) -> None:
        if item == 25 and threading.current_thread() is threading.main_thread():
            hit.append(item)
            if len(hit) == 2:
                raise KeyboardInterrupt
        put(self, item, block, timeout)

    monkeypatch.setattr(queue.Queue, "put", interrupted_put)
    first: list[int] = []
    second: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(range(10_000), square, [Sink("a", first.append), Sink("b", second.append)])
    assert first == second == [0, 1, 4, 9, 16, 25]


def test_keyboard_interrupt_while_finishing_still_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    closed: list[bool] = []
    join, hits = threading.Thread.join, []

    def interrupted_join(thread: threading.Thread, timeout: float | None = None) -> None:
        if len(hits) < 3:
            hits.append(thread)
            raise KeyboardInterrupt
        join(thread, timeout)

    def write(number: int) -> None:
        time.sleep(0.003)
        written.append(number)

    monkeypatch.setattr(threading.Thread, "join", interrupted_join)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(range(6), square, [Sink("write", write, lambda: closed.append(True))], depth=1)
    assert written == [0, 1, 4, 9, 16, 25]
    assert closed == [True]


_ENDLESS = """
import itertools, sys, time
from endolux.runtime.pipeline import Sink, run_pipeline
written = {"a": 0, "b": 0}
def count(name):
    def write(_):
        time.sleep(0.001)
        written[name] += 1
    return write
def predict(number):
    time.sleep(0.001)
    if number == 20:
        print("ready", flush=True)
    return number
closed = []
try:
    run_pipeline(itertools.count(), predict, [Sink(n, count(n), lambda n=n: closed.append(n)) for n in ("a", "b")])
except KeyboardInterrupt:
    print(written["a"] == written["b"] > 0, sorted(closed), flush=True)
    sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals differ")
def test_real_ctrl_c() -> None:
    process = subprocess.Popen([sys.executable, "-c", _ENDLESS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out.strip() == "True ['a', 'b']"
