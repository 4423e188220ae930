"""Files of lines, read and written one line at a time: memory stays flat however long the file."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mumc_model.data.files import replacing


def bounded_lines(path: Path, most: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines that are not blank, with their numbers; None stands for one that is longer than `most` bytes.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(most):
            number += 1
            if len(line) == most and not line.endswith(b"\n"):
                while (rest := file.readline(most)) and not rest.endswith(b"\n"):
                    pass
                yield number, None
            elif line.strip():
                yield number, line


def write_lines_if_changed(path: Path, lines: Callable[[], Iterable[bytes]]) -> None:
    """Replace the file in one step where it does not hold these lines already; they are asked for twice."""
    if not _holds(path, lines()):
        with replacing(path) as file:
            file.writelines(lines())


def _holds(path: Path, lines: Iterable[bytes]) -> bool:
    try:
        with path.open("rb") as file:
            return all(file.read(len(line)) == line for line in lines) and not file.read(1)
    except OSError:
        return False
