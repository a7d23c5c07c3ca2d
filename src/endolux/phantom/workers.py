"""Work spread over processes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Iterator, Sequence

from endolux.errors import DeviceError


def spread(function: Callable[..., int], jobs: Sequence[tuple[object, ...]], workers: int) -> Iterator[int]:
    """Call a function with each of some arguments, in as many processes; results come as they are done.

    Raises:
        DeviceError: a process was killed.
    """
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield function(*job)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DeviceError(
                "A worker process was killed",
                why="The operating system ends processes when memory runs out.",
                fix="Run the same command again with a smaller -j; what is finished is kept.",
                error_id="phantom.worker",
            ) from error
        finally:
            for future in futures:
                future.cancel()
