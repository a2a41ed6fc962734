"""Items made by a thread of their own, before they are asked for."""

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from typing import TypeVar, overload

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 0.1


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
