"""Facts with known numbers, and what a reader of a PDF sees."""

import re
import shutil
import subprocess

import pytest

from client.board.facts import BoardFacts, Comparison, Costs, Effort, Gap, Group, NotMeasured, Privacy, Share


def group(name, local, federated, gap, answers=100, images=40, **more):
    """A group with these three intervals, each (mean, low, high)."""
    scores = {"local": Share(*local), "federated": Share(*federated), "gap": Gap(*gap)}
    return Group(name=name, answers=answers, images=images, **scores | more)


@pytest.fixture
def facts():
    """A hospital of odd name whose federated model is better, without prices of staff."""
    overall = group("all questions", (0.5, 0.45, 0.55), (0.62, 0.57, 0.67), (0.12, 0.05, 0.19), 211, 83)
    organ = group("organ <&> side", (0.6, 0.5, 0.7), (0.7, 0.6, 0.8), (0.1, -0.02, 0.22), 137, 61)
    plane = group("plane", (0.3, 0.2, 0.4), (0.35, 0.25, 0.45), (0.05, -0.03, 0.13), 74, 44)
    return BoardFacts(
        name="Hôpital Łódź Ω <b>",
        about="With and without.",
        day="2026-11-26",
        simulated="",
        comparison=Comparison(overall=overall, answer_types=(), question_types=(organ, plane), smallest=10),
        guess=Gap(0.2, 0.11, 0.29),
        privacy=Privacy(kind="bounded", unit="patient", epsilon=3.211, cap=8.0, delta=1e-6, uncharged=2),
        effort=Effort(
            rounds=17, bytes_up=812_000_000, bytes_down=1_640_000_000, hours=31.4, kwh=10.99, counted="by a figure"
        ),
        costs=Costs(
            currency="EUR",
            electricity=3.4069,
            staff=NotMeasured("cost of staff", "not entered: staff_hours"),
            total=NotMeasured("cost in all", "a part of it was not measured"),
            minutes_saved=1440.0,
            minutes_by="1,200 readings x 3 min x 40 %",
        ),
        notes=("Chosen by validation.",),
    )


def squeezed(text):
    """Without any white space: lines of a PDF break where they like."""
    return re.sub(r"\s+", "", text)


@pytest.fixture
def pdf_text(tmp_path):
    """What pdftotext reads in a PDF, without white space and page feet."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed (Debian: poppler-utils)")

    def read(content):
        (tmp_path / "read.pdf").write_bytes(content)
        done = subprocess.run(["pdftotext", "-raw", tmp_path / "read.pdf", "-"], capture_output=True, check=True)
        return squeezed(done.stdout.decode())

    return read
