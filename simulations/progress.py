"""Progress of a simulation: bars on a terminal, a line now and then where the output is a file or a log."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINES = 4
"""Lines that one task writes where there is no terminal."""


class Watch:
    """Counts what is done of each task and shows it; any thread may report."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the bars as they stand."""
        self._bars.stop()

    def note(self, text: str) -> None:
        """Show a line of text above the bars."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def task(self, name: str, total: int) -> Callable[[], None]:
        """What to call each time one of the task's `total` parts is done."""
        bar = self._bars.add_task(name, total=total)
        shown = {total * part // _LINES for part in range(1, _LINES + 1)}

        def advance() -> None:
            self._bars.advance(bar)
            done = int(self._bars.tasks[bar].completed)
            if not self._console.is_terminal and done in shown:
                minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
                self.note(f"{name:<22} {done}/{total}  {minutes}:{seconds:02d}")

        return advance
