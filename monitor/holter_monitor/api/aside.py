"""Asks the control store from the event loop: in a thread of few, and not for long. A database that is frozen answers nobody and refuses nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from holter_monitor.errors import Unavailable

SECONDS = 2.0
"""How long a question may take: frames and readers wait as long at most, before they hear 503 or what was last known."""
Answer = TypeVar("Answer")


class Aside:
    def __init__(self, name: str, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """Raises `Unavailable` after `SECONDS`; a question that has not begun by then is never asked."""
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._pool, question), SECONDS)
        except asyncio.TimeoutError as error:
            raise Unavailable(f"the control store has not answered for {SECONDS:.0f} s", retry_after=SECONDS) from error

    def begin(self, work: Callable[[], None]) -> None:
        """Without waiting for it."""
        self._pool.submit(work)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
