"""Flower's SuperLink as it is started here."""

import sqlite3
import subprocess
import sys
from contextlib import closing

from flwr.supercore import sql_mixin

from server.superlink import BUSY_TIMEOUT_MS, wait_for_writers


def timeout_ms(database):
    with closing(sqlite3.connect(database)) as connection:
        sql_mixin._set_sqlite_pragmas(connection, None)
        return connection.execute("PRAGMA busy_timeout").fetchone()[0]


def test_the_database_waits_longer_for_a_writer_than_flower_lets_it(tmp_path, monkeypatch):
    flowers = sql_mixin.SQLITE_PRAGMAS
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", flowers)
    before = timeout_ms(tmp_path / "before.db")
    wait_for_writers()
    assert before < timeout_ms(tmp_path / "after.db") == BUSY_TIMEOUT_MS
    assert {name for name, _ in sql_mixin.SQLITE_PRAGMAS} == {name for name, _ in flowers}


def test_it_is_flower_s_own_program_otherwise(tmp_path):
    command = [sys.executable, "-Pm", "server.superlink", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert "--enable-supernode-auth" in done.stdout
