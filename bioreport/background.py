"""Items made by threads of their own, before they are asked for."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")
_SECONDS_BETWEEN_LOOKS = 0.1
# made in bursts, they are to last until the next burst
_ITEMS_A_THREAD = 2


@overload
def made_ahead(
    items: Iterable[T], count: int = 1, *, idle: None = None, leave_after: float | None = None
) -> Generator[T, None, None]: ...


@overload
def made_ahead(
    items: Iterable[T], count: int = 1, *, idle: float, leave_after: float | None = None
) -> Generator[T | None, None, None]: ...


def made_ahead(
    items: Iterable[T], count: int = 1, *, idle: float | None = None, leave_after: float | None = None
) -> Generator[T | None, None, None]:
    """The items in their order, made up to `count` ahead; what making one raises is raised here.

    Parameters
    ----------
    items : iterable
        All of its code runs in the thread, which ends when the generator is closed; a generator is closed
        there.
    count : int
    idle : float, optional
        A None comes whenever no item has come for so many seconds.
    leave_after : float, optional
        Seconds that closing waits for an item under way; by default as long as it takes.
    """
    # an item, or the end: nothing, or what was raised
    made: Queue[tuple[T] | BaseException | None] = Queue(count)
    closed = threading.Event()

    def put(something: tuple[T] | BaseException | None) -> None:
        while not closed.is_set():
            try:
                return made.put(something, timeout=_SECONDS_BETWEEN_LOOKS)
            except Full:
                continue

    def make() -> None:
        end = None
        try:
            for item in items:
                put((item,))
                if closed.is_set():
                    break
        except BaseException as error:
            end = error
        finally:
            getattr(items, "close", lambda: None)()
        put(end)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            try:
                got = made.get(timeout=idle)
            except Empty:
                yield None
                continue
            if not isinstance(got, tuple):
                break
            yield got[0]
        if got is not None:
            raise got
    finally:
        closed.set()
        thread.join(timeout=leave_after)


def done_side_by_side(
    work: Callable[[T], R], items: Iterable[T], threads: int, setup: Callable[[], None] | None = None
) -> Generator[R, None, None]:
    """What `work` makes of each item, in the items' order; what it raises is raised here.

    Parameters
    ----------
    work : callable
        Called in any of the threads.
    items : iterable
        Asked for here, at most `_ITEMS_A_THREAD` a thread before a result is given.
    threads : int
        0: all is done here, item by item.
    setup : callable, optional
        Called once in each thread.
    """
    if not threads:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, initializer=setup or (lambda: None))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            while waiting and (len(waiting) >= _ITEMS_A_THREAD * threads or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
