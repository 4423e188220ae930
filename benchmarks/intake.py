"""What an import of DICOM costs: seconds an image with its text search, and memory as the archive grows.

    python benchmarks/intake.py [--json] [--images 40] [--sizes 2000,20000]
    python benchmarks/intake.py --large 100000 --side 64 [--searched] [--json]

The archive is generated: CT slices of 256 x 256 pixels, 20 a series, a Structured Report a study. Seconds an image are
those of one process and one thread, with the search for burned-in text and without. Memory is measured without it, in
the process that keeps the store, since a hundred thousand images take hours to be searched: `peak_mib` of the import of
so many images, and `bytes_an_image`, by which the peak grows from the first size to the last.

`--large` imports one archive of slices of `--side` pixels, kills the import with all its processes in the middle
(SIGKILL), and gives the same command again: seconds of processors, the share of the files that the second one had to
take, what the site has at the end, and memory (proportional set size of all processes, MiB) at ten points on the way.
Without `--searched` one process imports and no text is looked for; with it, as many processes as there are cores do.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

from client.intake import burned_in, run  # noqa: E402
from client.intake.config import IntakeConfig  # noqa: E402
from client.intake.outcome import Outcome  # noqa: E402
from client.intake.taking import Taking  # noqa: E402
from client.intake.workers import Job  # noqa: E402
from tests.client.intake.made import picture, report, written  # noqa: E402

SIDE, SERIES = 256, 20
SENTENCE = "There is a nodule of 8 mm in the left upper lobe."


class Inline:
    """Takes the files in this process, so that its memory is that of the whole import."""

    def __init__(self, taking: Taking) -> None:
        self._taking = taking

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""

    def map(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """As `Workers.map`."""
        return (self._taking.take(*job) for job in jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=int, default=40, help="that are timed with the search for text")
    parser.add_argument("--sizes", default="2000,20000", help="archives whose import's memory is measured")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--large", type=int, default=0, help="images of one archive, imported with a kill in between")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of a side of a slice of it")
    parser.add_argument("--searched", action="store_true", help="look for burned-in text in it")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.into:
        import_one(Path(asked.sizes), asked.into, asked.searched)
        return
    if asked.large:
        print(json.dumps(large(asked.large, asked.side, asked.searched), indent=1))
        return
    if asked.one < 0:
        make(Path(asked.sizes), -asked.one, asked.side)
        return
    if asked.one:
        print(json.dumps(memory_of(asked.one)))
        return
    timed = seconds_an_image(asked.images)
    sizes = [json.loads(_alone(int(size))) for size in asked.sizes.split(",")]
    first, last = sizes[0], sizes[-1]
    grown = (last["peak_mib"] - first["peak_mib"]) * 2**20 / max(1, last["images"] - first["images"])
    found = {**timed, "archives": sizes, "bytes_an_image": round(grown), "load": os.getloadavg()[0]}
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"with its text search an image takes {timed['seconds']:.2f} s, without {timed['seconds_without_text']:.4f} s"
    )
    for size in sizes:
        again = f"again {size['seconds_an_image_again']:.5f} s; store {size['store_mib']:.1f} MiB"
        print(
            f"{size['images']:7,d} images: {size['peak_mib']:.0f} MiB, {size['seconds_an_image']:.4f} s each, {again}"
        )
    print(f"memory grows by {grown:,.0f} bytes an image")


def seconds_an_image(count: int) -> dict[str, float]:
    """Of one process and thread, in turns with the search for text and without."""
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "archive"
        make(archive, count)
        taking = Taking(Path(place), IntakeConfig(), b"k" * 32, frozenset())
        jobs = [(item, str(number)) for number, item in enumerate(run.walk(archive, IntakeConfig()))]
        read, took = burned_in.read, {True: 0.0, False: 0.0}
        taking.take(*jobs[0])  # the reader is loaded once
        for job in jobs:
            for searched in (True, False):
                burned_in.read = read if searched else lambda pixels: []
                begun = time.process_time()
                taking.take(*job)
                took[searched] += time.process_time() - begun
        burned_in.read = read
    return {"images": count, "seconds": took[True] / count, "seconds_without_text": took[False] / count}


def memory_of(count: int) -> dict[str, float]:
    """Peak and seconds of an import without the search for text, and of its repetition."""
    burned_in.read, run.Workers = (lambda pixels: []), Inline
    with tempfile.TemporaryDirectory() as place:
        archive, site = Path(place) / "archive", Path(place) / "site"
        subprocess.run([sys.executable, __file__, "--one", str(-count), "--sizes", str(archive)], check=True)
        took = []
        for _ in range(2):
            begun = time.monotonic()
            found = run.import_dicom(archive, site, IntakeConfig(images_a_series=0))
            took.append(time.monotonic() - begun)
        store = (site / "state" / "intake.sqlite").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "images": found.images,
        "captions": found.captions,
        "peak_mib": peak,
        "seconds_an_image": took[0] / count,
        "seconds_an_image_again": took[1] / count,
        "store_mib": store / 2**20,
    }


def large(count: int, side: int, searched: bool) -> dict[str, Any]:
    """What a killed and repeated import of so many slices took, and left."""
    with tempfile.TemporaryDirectory() as place:
        archive, site = Path(place) / "archive", Path(place) / "site"
        options = ["--one", str(-count), "--sizes", str(archive), "--side", str(side)]
        subprocess.run([sys.executable, __file__, *options], check=True)
        command = [sys.executable, __file__, "--into", str(site), "--sizes", str(archive)]
        command += ["--searched"] if searched else []
        killed = _followed(command, count, until=0.5)
        whole = _followed(command, count, until=2.0)
        again = _followed(command, count, until=2.0)
        images = sum(1 for _ in (site / "images" / "dicom").iterdir())
    return {
        "images": count,
        "side": side,
        "searched": searched,
        "killed": killed,
        "taken_up": whole,
        "again": again,
        "image_files": images,
        "load": os.getloadavg()[0],
    }


def _followed(command: list[str], count: int, *, until: float) -> dict[str, Any]:
    """An import in processes of its own, which are killed once it is through with this share of the images."""
    begun, points, last = time.monotonic(), dict[str, float](), ""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    for line in process.stdout:
        last = line
        if not line.startswith("done"):
            continue
        share = int(line.split()[1]) / count
        if f"{share:.1f}" not in points:
            points[f"{share:.1f}"] = round(_memory(process.pid))
            print(f"{line.strip()} after {time.monotonic() - begun:.0f} s, {points}", file=sys.stderr)
        if share >= until:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    status = process.wait()
    found = json.loads(last) if status == 0 else {"killed_after": last.split()[1]}
    return {"memory_mib": points, "seconds": round(time.monotonic() - begun), **found}


def _memory(pid: int) -> float:
    """MiB of a process and its descendants; pages that several share are counted once."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20


def import_one(archive: Path, site: Path, searched: bool) -> None:
    """Import, telling every 100 files, and at the end what came of it."""
    if not searched:
        burned_in.read, run.Workers = (lambda pixels: []), Inline

    def on_progress(done: int, _: int) -> None:
        if done % 100 == 0:
            print("done", done, flush=True)

    found = run.import_dicom(archive, site, IntakeConfig(images_a_series=0), on_progress)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = round(sum(use.ru_utime + use.ru_stime for use in used))
    print(json.dumps({"new": found.new, "site": found.images, "captions": found.captions, "processor_s": processor}))


def make(archive: Path, count: int, side: int = SIDE) -> None:
    """So many slices in series, with a report a study."""
    rng, head = np.random.default_rng(0), Dataset()
    for number in range(count):
        place = number % SERIES
        if place == 0:
            smooth = np.add.outer(np.arange(side), np.arange(side)) * 4 + rng.integers(0, 500, (side, side))
            head = picture(smooth.astype(np.uint16), patient=f"P{number // SERIES}", BodyPartExamined="CHEST")
            folder = archive / f"{number // SERIES:06d}"
            folder.mkdir(parents=True)
            said = report([SENTENCE], patient=f"P{number // SERIES}", StudyInstanceUID=head.StudyInstanceUID)
            (folder / "report.dcm").write_bytes(written(said))
        head.SOPInstanceUID, head.InstanceNumber = f"1.2.3.{number + 1}", place + 1
        (folder / f"{place:02d}.dcm").write_bytes(written(head))


def _alone(count: int) -> str:
    """Measured in a process of its own, whose peak is that of this archive alone."""
    done = subprocess.run([sys.executable, __file__, "--one", str(count)], check=True, capture_output=True, text=True)
    return done.stdout


if __name__ == "__main__":
    main()
