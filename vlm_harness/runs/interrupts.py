"""Handles Ctrl-C and SIGTERM: the first stops after the current batch, the second immediately.

Finished samples are never lost.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """Turns signals into a ``KeyboardInterrupt``, deferred to the end of the current batch."""

    def __init__(self) -> None:
        self._until = ""
        self._requested = False

    def install(self) -> None:
        """Install the handlers; call from the main thread. Cluster schedulers send SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self._until and not self._requested:
            self._requested = True
            message = f"\nstopping after {self._until}; press Ctrl-C again to stop immediately\n"
            os.write(2, message.encode())  # sys.stderr may be in the middle of a write
            return
        raise KeyboardInterrupt

    @contextmanager
    def deferred(self, until: str) -> Iterator[None]:
        """Defer interrupts to the end of the block, such as a batch.

        Args:
            until: name of the block, for the message.

        Raises:
            KeyboardInterrupt: at the end, if an interrupt arrived in the block.
        """
        self._until = until
        try:
            yield
        finally:
            self._until = ""
        if self._requested:
            raise KeyboardInterrupt
