"""The pipeline: reading, predicting and writing at the same time, in order, in bounded memory."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL_S = 0.05  # how soon a thread that waits notices that another one failed


class _End:
    """Marks the end of a queue."""


_END = _End()


@dataclasses.dataclass(frozen=True, slots=True)
class Sink(Generic[Result]):
    """A last stage with a thread of its own; every sink gets every result, in order.

    Attributes:
        name: name in the timings.
        write: takes one result.
        close: called once in the sink's thread after the last result, also after a failure or Ctrl-C.
    """

    name: str
    write: Callable[[Result], object]
    close: Callable[[], object] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PipelineReport:
    """What a run did.

    Attributes:
        items: number of items that went through.
        wall_s: duration in seconds.
        busy_s: seconds of work by stage ("read", "predict" and the sinks); waiting is not counted.
    """

    items: int
    wall_s: float
    busy_s: dict[str, float]

    @property
    def slowest(self) -> str:
        """The stage that sets the pace."""
        return max(self.busy_s, key=lambda stage: self.busy_s[stage])

    @property
    def items_per_s(self) -> float:
        """Throughput; NaN for a run without duration."""
        return self.items / self.wall_s if self.wall_s > 0 else float("nan")


class _Run(Generic[Item, Result]):
    """State that the threads of one run share."""

    def __init__(self) -> None:
        self.stop = threading.Event()  # a stage failed: drop everything
        self.no_more = threading.Event()  # read nothing further, finish what was predicted
        self.failure: BaseException | None = None
        self.busy_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def fail(self, error: BaseException) -> None:
        with self._lock:
            if self.failure is None:
                self.failure = error
        self.stop.set()

    def put(self, target: queue.Queue[Item | _End], item: Item | _End, *, halted: threading.Event) -> bool:
        while not halted.is_set():
            try:
                target.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def read(self, source: Iterable[Item], target: queue.Queue[Item | _End]) -> None:
        iterator = iter(source)
        busy = 0.0
        try:
            while not (self.stop.is_set() or self.no_more.is_set()):
                start = time.perf_counter()
                item = next(iterator, _END)
                busy += time.perf_counter() - start
                if isinstance(item, _End) or not self.put(target, item, halted=self.no_more):
                    break
        except BaseException as error:
            self.fail(error)
        finally:
            # A generator holds files open until it is closed, and may only be closed where it ran.
            close = getattr(iterator, "close", None)
            if close is not None:
                try:
                    close()
                except Exception as error:
                    self.fail(error)
            self.busy_s["read"] = busy
            self.put(target, _END, halted=self.no_more)

    def drain(self, sink: Sink[Result], source: queue.Queue[Result | _End]) -> None:
        busy = 0.0
        try:
            while not self.stop.is_set():
                try:
                    item = source.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(item, _End):
                    break
                start = time.perf_counter()
                sink.write(item)
                busy += time.perf_counter() - start
        except BaseException as error:
            self.fail(error)
        finally:
            start = time.perf_counter()
            if sink.close is not None:
                try:
                    sink.close()
                except BaseException as error:
                    self.fail(error)
            self.busy_s[sink.name] = busy + time.perf_counter() - start


OnItem: TypeAlias = Callable[[int], object]


def run_pipeline(
    source: Iterable[Item],
    predict: Callable[[Item], Result],
    sinks: Sequence[Sink[Result]],
    *,
    depth: int = 4,
    on_item: OnItem | None = None,
) -> PipelineReport:
    """Read, predict and write in threads of their own, joined by queues of ``depth`` items.

    The caller's thread predicts and notices Ctrl-C between two frames. After Ctrl-C the sinks write what was
    predicted, close, and KeyboardInterrupt is raised. After an error in any stage everything stops, every sink is
    closed, and that first error is raised.

    Args:
        source: items in order; a generator is closed at the end.
        predict: makes a result of an item; its order is kept.
        sinks: what takes the results.
        depth: items that may wait before each stage.
        on_item: called in the caller's thread with the number of items predicted so far.

    Returns:
        Number of items, duration and how long each stage was busy.

    Example:
        >>> written = []
        >>> report = run_pipeline(range(5), lambda number: number * number, [Sink("keep", written.append)])
        >>> written, report.items
        ([0, 1, 4, 9, 16], 5)
    """
    run: _Run[Item, Result] = _Run()
    started = time.perf_counter()
    incoming: queue.Queue[Item | _End] = queue.Queue(maxsize=max(1, depth))
    outgoing: list[queue.Queue[Result | _End]] = [queue.Queue(maxsize=max(1, depth)) for _ in sinks]
    reader = threading.Thread(target=run.read, args=(source, incoming), name="endolux-read", daemon=True)
    writers = [
        threading.Thread(target=run.drain, args=(sink, waiting), name=f"endolux-{sink.name}", daemon=True)
        for sink, waiting in zip(sinks, outgoing, strict=True)
    ]
    items, busy = 0, 0.0
    interrupt: KeyboardInterrupt | None = None
    with _signals_held_back() as signalled:
        try:
            for thread in (reader, *writers):
                thread.start()
            while not (run.stop.is_set() or signalled.is_set()):
                try:
                    item = incoming.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                if isinstance(item, _End):
                    break
                start = time.perf_counter()
                result = predict(item)
                busy += time.perf_counter() - start
                _hand_out(run, outgoing, result)
                items += 1
                if on_item is not None:
                    on_item(items)
        except KeyboardInterrupt as error:
            interrupt = error
        except BaseException as error:
            run.fail(error)
        while True:
            try:
                run.no_more.set()
                for thread, waiting in zip(writers, outgoing, strict=True):
                    _finish(run, waiting, thread)
                for thread in (*writers, reader):
                    if thread.ident is not None:
                        thread.join()
                break
            except KeyboardInterrupt as error:
                # However often it comes: files are closed first, which takes as long as the few results that wait.
                interrupt = error
    run.busy_s["predict"] = busy
    if interrupt is not None:
        raise interrupt
    if run.failure is not None:
        raise run.failure
    return PipelineReport(items=items, wall_s=time.perf_counter() - started, busy_s=dict(sorted(run.busy_s.items())))


@contextlib.contextmanager
def _signals_held_back() -> Iterator[threading.Event]:
    """Remember Ctrl-C and termination instead of raising at once, and deliver them at the end of the block.

    An exception that may come up between any two instructions can split a hand-over between two sinks or leave a
    queue's lock taken; a flag that is asked between two frames cannot. Signals reach the main thread only.
    """
    came: list[tuple[int, FrameType | None]] = []
    event = threading.Event()

    def remember(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        event.set()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for kind in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(kind)
            # What is ignored stays ignored, and a default termination stays immediate.
            if callable(handler):
                before[int(kind)] = handler
                signal.signal(kind, remember)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number, frame in came[:1]:
        before[number](number, frame)


def _hand_out(run: _Run[Item, Result], outgoing: Sequence[queue.Queue[Result | _End]], result: Result) -> None:
    """Give a result to every sink; a Ctrl-C in between waits, so that no sink lacks what another has."""
    interrupt: KeyboardInterrupt | None = None
    for waiting in outgoing:
        while not run.stop.is_set():
            try:
                waiting.put(result, timeout=_POLL_S)
                break
            except queue.Full:
                continue
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _finish(run: _Run[Item, Result], waiting: queue.Queue[Result | _End], thread: threading.Thread) -> None:
    while thread.is_alive() and not run.stop.is_set():
        try:
            waiting.put(_END, timeout=_POLL_S)
        except queue.Full:
            continue
        return
