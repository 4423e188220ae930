"""Where a site's model looked for an answer, as a picture: what `mumc-site ask --where` writes."""

from pathlib import Path

from mumc_model.answerer import Answerer
from mumc_model.device import choose_device
from mumc_model.explain import Explanation, Method, explain
from mumc_model.overlay import write_picture


def show_where(
    model_folder: Path, image: Path, question: str, out: Path, *, answer: str, method: Method, device: str
) -> Explanation:
    """Explain one answer and write the picture to `out`; the explanation comes back.

    Raises:
        CheckpointError: the folder holds no answering model; encoders alone have no answer to explain.
        DataError: the image cannot be read.
    """
    found = explain(
        Answerer.open(model_folder), image, question, answer=answer, method=method, device=choose_device(device)
    )
    write_picture(image, question, found, out)
    return found
