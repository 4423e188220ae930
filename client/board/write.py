"""Writing the board's page: HTML and PDF of the same facts, side by side."""

from pathlib import Path

from client.board.facts import BoardFacts, Comparison
from client.board.words import to_document
from mumc_model.data.files import write_atomically

HTML, PDF = "board.html", "board.pdf"


def write_board(facts: BoardFacts, folder: Path) -> tuple[Path, Path]:
    """Write `board.html` and `board.pdf` into the folder; their paths."""
    # Matplotlib and fpdf take a second to import.
    from client.board.figure import for_page, for_paper
    from client.board.page import to_html
    from client.board.pdf import to_pdf

    document, found = to_document(facts), facts.comparison
    page, paper = (for_page(found), for_paper(found)) if isinstance(found, Comparison) else ("", b"")
    write_atomically(folder / HTML, to_html(document, page).encode())
    write_atomically(folder / PDF, to_pdf(document, paper))
    return folder / HTML, folder / PDF
