"""What an import has seen, in `state/intake.sqlite`: so that it can be interrupted, repeated, and reviewed by a person.

It holds pseudonyms, keyed digests and the reports without their identities, and its owner alone can read it.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from client.intake.config import IntakeConfig
from client.intake.outcome import USABLE, Outcome, Picture, Text, Verdict
from configs.loader import dump, load
from mumc_model.errors import DataError

FILE = "state/intake.sqlite"
VERSION = 1
_PICTURE, _TEXT = (tuple(f.name for f in fields(kind)) for kind in (Picture, Text))
_SCHEMA = f"""
create table sources (source text primary key, stamp text not null, left text not null, run integer not null);
create table pictures ({", ".join(_PICTURE)}, source text not null, primary key (uid, frame));
create table texts ({", ".join(_TEXT)}, source text not null, primary key (uid));
create table settings (settings text not null);
create table words (patient text not null, word blob not null, primary key (patient, word)) without rowid;
create table decisions (
    kind text not null, uid text not null, frame integer not null, verdict text not null, reason text not null,
    person text not null, at text not null
);
create index pictures_by_series on pictures (series, place);
create index pictures_by_verdict on pictures (verdict);
create index pictures_by_source on pictures (source);
create index pictures_by_accession on pictures (accession);
create index pictures_by_study on pictures (study);
create index texts_by_source on texts (source);
create index texts_by_study on texts (study);
create index texts_by_accession on texts (accession);
pragma user_version = {VERSION};
"""
_IN_USABLE = f"verdict in ({', '.join(repr(verdict) for verdict in USABLE)})"


class Store:
    """The store of one site, open."""

    def __init__(self, root: Path) -> None:
        """Open the site's store, or make it.

        Raises:
            DataError: it is none of ours or damaged.
        """
        path = root / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch(0o600)
        self._database = sqlite3.connect(path)
        try:
            self._database.execute("pragma journal_mode = wal")
            version = self._database.execute("pragma user_version").fetchone()[0]
            if version == 0:
                self._database.executescript(_SCHEMA)
            elif version != VERSION:
                raise DataError(f"{path} is of version {version}, and this program knows {VERSION}; update fedmumc")
        except sqlite3.DatabaseError:
            self.close()
            raise DataError(f"{path} is damaged; remove it and import again: no image is lost by that") from None

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what is whole."""
        self.close()

    def close(self) -> None:
        """Keep what was added, and let go of the file."""
        self._database.commit()
        self._database.close()

    def begin(self, config: IntakeConfig) -> int:
        """The number of a new run over an export; its settings hold for what people decide after it."""
        self._database.execute("delete from settings")
        self._database.execute("insert into settings values (?)", (json.dumps(dump(config)),))
        found: int = self._database.execute("select coalesce(max(run), 0) + 1 from sources").fetchone()[0]
        return found

    def config(self) -> IntakeConfig:
        """The settings of the last run."""
        found = self._database.execute("select settings from settings").fetchone()
        return load(IntakeConfig, json.loads(found[0]), "intake") if found else IntakeConfig()

    def is_known(self, source: str, stamp: str, run: int, *, again: str = "") -> bool:
        """Whether this file was taken before and has not changed; it counts as seen in this run then.

        One that was left out for the reason `again` is tried anew.
        """
        query = "update sources set run = ? where source = ? and stamp = ? and (left = '' or left != ?)"
        return self._database.execute(query, (run, source, stamp, again)).rowcount == 1

    def add(self, outcome: Outcome, run: int) -> tuple[Picture, ...]:
        """Keep what a file gave; pictures that another file gave already come back.

        An image that is in the export twice is the same patient's same image, and counts once.
        """
        twice = tuple(picture for picture in outcome.pictures if not self._insert("pictures", picture, outcome.source))
        for text in outcome.texts:
            self._insert("texts", text, outcome.source)
        self._database.executemany(
            "insert or ignore into words values (?, ?)",
            [(patient, word) for patient, words in outcome.words.items() for word in words],
        )
        self._database.execute(
            "insert or replace into sources values (?, ?, ?, ?)", (outcome.source, outcome.stamp, outcome.left, run)
        )
        return twice

    def forget(self, source: str) -> list[str]:
        """Forget all that a file gave; the images that came of it come back, to be deleted."""
        files = [row[0] for row in self._database.execute("select file from pictures where source = ?", (source,))]
        for table in ("pictures", "texts", "sources"):
            self._database.execute(f"delete from {table} where source = ?", (source,))
        return files

    def commit(self) -> None:
        """Have the disk hold what was added."""
        self._database.commit()

    def drop_unseen(self, run: int) -> list[str]:
        """Forget the files that are no longer in the export; the images that came of them come back, to be deleted."""
        gone = [row[0] for row in self._database.execute("select source from sources where run != ?", (run,))]
        return [file for source in gone for file in self.forget(source)]

    def words_of(self, patient: str) -> frozenset[bytes]:
        """Keyed digests of the words of a patient's identity."""
        found = self._database.execute("select word from words where patient = ?", (patient,))
        return frozenset(row[0] for row in found)

    def place_of(self, sources: Iterable[str], accession: str, study: str) -> tuple[str, str, str] | None:
        """Patient, study and accession of a picture of one of these files, else of this accession or study."""
        for column, values in (("source", tuple(sources)), ("accession", (accession,)), ("study", (study,))):
            marks = ", ".join("?" * len(values))
            query = f"select patient, study, accession from pictures where {column} in ({marks}) limit 1"
            found = self._database.execute(query, values).fetchone()
            if found:
                return str(found[0]), str(found[1]), str(found[2])
        return None

    def pictures(self, verdicts: Iterable[Verdict] = USABLE) -> Iterator[Picture]:
        """The pictures with these verdicts, series by series, in the order in which they were made."""
        marks = tuple(verdicts)
        query = f"select {', '.join(_PICTURE)} from pictures where verdict in ({', '.join('?' * len(marks))})"
        for row in self._database.execute(f"{query} order by series, place, uid, frame", marks):
            yield Picture(**dict(zip(_PICTURE, row, strict=True)))

    def texts(self, verdicts: Iterable[Verdict] = USABLE) -> Iterator[Text]:
        """The reports with these verdicts."""
        marks = tuple(verdicts)
        query = f"select {', '.join(_TEXT)} from texts where verdict in ({', '.join('?' * len(marks))}) order by uid"
        for row in self._database.execute(query, marks):
            yield Text(**dict(zip(_TEXT, row, strict=True)))

    def text_for(self, picture: Picture) -> str:
        """The usable report of the picture's study, or of its accession where the study has none; else empty."""
        for column, value in (("study", picture.study), ("accession", picture.accession)):
            query = f"select text from texts where {column} = ? and patient in (?, '') and {_IN_USABLE} order by uid"
            found = value and self._database.execute(query, (value, picture.patient)).fetchone()
            if found:
                return str(found[0])
        return ""

    def decide(self, record: Picture | Text, verdict: Verdict, file: str, reason: str, person: str) -> None:
        """Note a person's decision on what waits; `file` is where a picture lies from now on."""
        frame = record.frame if isinstance(record, Picture) else 0
        if isinstance(record, Picture):
            query = "update pictures set verdict = ?, file = ? where uid = ? and frame = ?"
            self._database.execute(query, (verdict, file, record.uid, frame))
        else:
            self._database.execute("update texts set verdict = ? where uid = ?", (verdict, record.uid))
        kind, at = type(record).__name__.lower(), datetime.now(UTC).isoformat(timespec="seconds")
        decision = (kind, record.uid, frame, verdict, reason, person, at)
        self._database.execute("insert into decisions values (?, ?, ?, ?, ?, ?, ?)", decision)
        self._database.commit()

    def decisions(self) -> list[tuple[str, str, int, str, str, str]]:
        """Kind, UID, frame, verdict, reason and person of every decision, in the order in which they were taken."""
        query = "select kind, uid, frame, verdict, reason, person from decisions order by rowid"
        return self._database.execute(query).fetchall()

    def reasons(self) -> dict[str, int]:
        """How many files were left out, by reason."""
        rows = self._database.execute("select left, count(*) from sources where left != '' group by left order by left")
        return dict(rows.fetchall())

    def counts(self) -> dict[str, int]:
        """How many pictures there are, by verdict."""
        return dict(self._database.execute("select verdict, count(*) from pictures group by verdict").fetchall())

    def _insert(self, table: str, record: Picture | Text, source: str) -> bool:
        values = {**asdict(record), "source": source}
        query = f"insert or ignore into {table} ({', '.join(values)}) values ({', '.join('?' * len(values))})"
        found = self._database.execute(query, tuple(values.values()))
        return found.rowcount == 1
