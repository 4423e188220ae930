"""Where a model looked for an answer: what `mumc-site ask --where` writes and the workbench shows."""

from pathlib import Path

from client.own_model import opened
from mumc_model.device import choose_device
from mumc_model.explain import Explanation, Method, explain
from mumc_model.overlay import write_picture


def explained(folder: Path, image: Path, question: str, *, answer: str, method: Method, device: str) -> Explanation:
    """Where the model in a folder looked for an answer; the model that has just answered is not opened again.

    Raises:
        CheckpointError: the folder holds no answering model; encoders alone have no answer to explain.
        DataError: the image cannot be read.
    """
    model, where = opened(folder).answerer, choose_device(device)
    return explain(model, image, question, answer=answer, method=method, device=where)


def show_where(
    folder: Path, image: Path, question: str, out: Path, *, answer: str, method: Method, device: str
) -> Explanation:
    """The same, with the picture of it written to `out`.

    Raises:
        CheckpointError: the folder holds no answering model; encoders alone have no answer to explain.
        DataError: the image cannot be read.
    """
    found = explained(folder, image, question, answer=answer, method=method, device=device)
    write_picture(image, question, found, out)
    return found
