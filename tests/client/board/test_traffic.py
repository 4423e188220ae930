"""What taking part took, from lines of a log with known numbers."""

import pytest

from client.board.facts import NotMeasured
from client.board.prices import Prices
from client.board.traffic import effort_from, effort_of


def order(nonce, at, came=1000, round=1, stage="train.pretrain"):
    place = {"run": "r", "round": round, "stage": stage, "nonce": nonce}
    return {"kind": "order", **place, "bytes": came, "time": f"2026-11-26T{at}+00:00"}


def reply(nonce, at, sent=400, round=1, stage="train.pretrain", answer="report", **more):
    place = {"run": "r", "round": round, "stage": stage, "nonce": nonce, "answer": answer}
    return {"kind": "reply", **place, "bytes": sent, "message_bytes": 50, "time": f"2026-11-26T{at}+00:00", **more}


LOG = [
    order("a", "10:00:00"),
    reply("a", "10:30:00"),
    {"kind": "schema", "time": "2026-11-26T10:30:00+00:00"},
    order("b", "11:00:00", round=2),
    reply("b", "11:15:00", round=2, answer="refusal", sent=0),
    order("c", "12:00:00", round=3, stage="train.finetune"),
    reply("c", "13:00:00", sent=0, round=3, stage="train.finetune"),
    order("d", "14:00:00", round=4),
]


def test_rounds_bytes_and_hours_are_those_of_the_lines():
    found = effort_from(LOG, Prices(watts=200.0))
    assert (found.rounds, found.bytes_up, found.bytes_down, found.hours) == (1, 400 + 3 * 50, 4000, 1.75)
    assert (found.kwh, found.counted) == (pytest.approx(0.35), "hours x 200 W, the site's own figure")


def test_without_counters_and_watts_energy_is_not_measured():
    assert isinstance(effort_from(LOG, Prices()).kwh, NotMeasured)


def test_counters_go_before_the_sites_own_figure_where_every_reply_has_them():
    energy = {"joules": 1.8e6, "counters": ["gpu:0", "intel-rapl:0"]}
    metered = [{**line, "energy": energy} if line["kind"] == "reply" else line for line in LOG]
    found = effort_from(metered, Prices(watts=200.0))
    assert (found.kwh, found.counted) == (pytest.approx(1.5), "counters of processors and GPUs alone")
    metered[1].pop("energy")
    assert effort_from(metered, Prices(watts=200.0)).counted.startswith("hours x 200 W")


def test_a_site_without_a_log_knows_nothing_of_it(tmp_path):
    found = effort_of(tmp_path, Prices(watts=200.0))
    values = (found.rounds, found.bytes_up, found.bytes_down, found.hours, found.kwh)
    assert all(isinstance(value, NotMeasured) and "no log" in value.why for value in values)
