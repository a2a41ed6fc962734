"""Items made by a thread of their own, before they are asked for."""

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")


def made_ahead(items: Iterable[T], count: int = 1) -> Iterator[T]:
    """The items in their order, made up to `count` ahead; what making one raises is raised here.

    Parameters
    ----------
    items : iterable
        All of its code runs in the thread.
    count : int
    """
    made: Queue[T] = Queue(count)
    over, left = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def make() -> None:
        try:
            for item in items:
                while not left.is_set():
                    try:
                        made.put(item, timeout=0.1)
                        break
                    except Full:
                        continue
                else:
                    return
        except BaseException as error:
            raised.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            # before the look into the queue: what was put before it was over is still there
            last = over.is_set()
            try:
                yield made.get(block=not last, timeout=0.1)
            except Empty:
                if last:
                    break
        if raised:
            raise raised[0]
    finally:
        left.set()
        thread.join()
