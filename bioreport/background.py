"""Items made by a thread of their own, before they are asked for."""

import threading
from collections.abc import Generator, Iterable
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 0.1


def made_ahead(items: Iterable[T], count: int = 1) -> Generator[T, None, None]:
    """The items in their order, made up to `count` ahead; what making one raises is raised here.

    Parameters
    ----------
    items : iterable
        All of its code runs in the thread, which ends when the generator is closed.
    count : int
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
        try:
            for item in items:
                put((item,))
                if closed.is_set():
                    return
        except BaseException as error:
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while isinstance(got := made.get(), tuple):
            yield got[0]
        if got is not None:
            raise got
    finally:
        closed.set()
        thread.join()
