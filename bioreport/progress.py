"""How far a long run is: a bar in a terminal, a line now and then in a log."""

import sys
import time

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts recordings and the signal in them; use it as a context.

    Parameters
    ----------
    what : str
        Name of the work.
    total : int
        Recordings.
    shown : bool
    """

    def __init__(self, what: str, total: int, shown: bool) -> None:
        self.what, self.total = what, total
        self.done = self.worked = 0
        self.signal_seconds = 0.0
        self._start = self._told = time.monotonic()
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._log = shown and not terminal
        self._bar = tqdm(total=total, desc=what, unit="recording", disable=not (shown and terminal))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._start

    @property
    def times_real_time(self) -> float:
        """Seconds of signal worked on in a second."""
        return self.signal_seconds / self.seconds

    def step(self, signal_seconds: float = 0.0, worked: bool = True) -> None:
        """One recording is done; `worked` unless it was done before this run."""
        self.done += 1
        self.worked += worked
        self.signal_seconds += signal_seconds
        self._bar.set_postfix_str(f"{self.times_real_time:.0f} × real time", refresh=False)
        self._bar.update()
        if self._log and time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            tqdm.write(self.line(), file=sys.stderr)

    def line(self) -> str:
        """Recordings, speed and time left, as one line."""
        left = self.seconds / max(self.worked, 1) * (self.total - self.done)
        return (
            f"{self.what}: {self.done:,} of {self.total:,} recordings, {self.times_real_time:.0f} × real "
            f"time, {tqdm.format_interval(left)} left"
        )
