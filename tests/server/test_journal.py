import json
import subprocess
import sys

import pytest

from server.errors import OutputError
from server.journal import Journal, RoundRecord, name_lost, read_journal

RECORD = RoundRecord(
    run_id="r",
    round=7,
    attempt=1,
    sites_expected=10,
    sites_merged=8,
    refused={},
    examples=1200,
    losses={"mcl": 1.5, "total": 2.3412},
    update_norm=0.25,
    bytes_up=100,
    bytes_down=200,
    seconds=41.23,
    lr=1.0,
)


def test_the_progress_line_is_as_the_house_style_shows_it():
    assert str(RECORD) == "round   7 | sites 8/10 | loss 2.341 | 41.2 s"


def test_the_progress_line_names_the_sites_that_were_lost():
    lossy = RoundRecord(**{**vars(RECORD), "refused": {"south": "no_answer", "north": "not_finite"}, "losses": {}})
    assert str(lossy) == "round   7 | sites 8/10 | 41.2 s | lost north (not_finite), south (no_answer)"


def test_the_progress_line_gives_the_reason_where_there_is_one():
    changes = {"refused": {"south": "no_answer", "north": "policy_steps"}, "reasons": {"north": "at most 1"}}
    lossy = RoundRecord(**{**vars(RECORD), **changes, "losses": {}})
    assert str(lossy).endswith("lost north (policy_steps: at most 1), south (no_answer)")


def test_a_reason_that_several_sites_share_stands_once():
    refused = {"south": "no_answer", "north": "policy_steps", "east": "policy_steps", "west": "policy_steps"}
    reasons = {"north": "at most 1", "east": "at most 1", "west": "at most 2"}
    told = "east, north (policy_steps: at most 1), south (no_answer), west (policy_steps: at most 2)"
    assert name_lost(refused, reasons) == told


def test_what_is_appended_reads_back(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    later = RoundRecord(**{**vars(RECORD), "round": 8})
    journal.append(RECORD)
    journal.append(later)
    assert read_journal(journal.path) == [RECORD, later]
    first = json.loads(journal.path.read_text().splitlines()[0])
    assert (first["schema_version"], first["losses"]["mcl"]) == (4, 1.5)


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(RECORD)
    whole = journal.path.read_text()
    journal.path.write_text(whole + whole[: len(whole) // 2])
    assert read_journal(journal.path) == [RECORD]


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"schema_version": 2}', '{"schema_version": 3, "round": 1}'])
def test_a_line_of_another_form_is_named(tmp_path, line):
    (tmp_path / "journal.jsonl").write_text(line + "\n")
    with pytest.raises(OutputError, match=r"journal\.jsonl:1 is not a journal line"):
        read_journal(tmp_path / "journal.jsonl")


def test_a_missing_journal_and_a_refusing_disk_are_named(tmp_path):
    with pytest.raises(OutputError, match="there is no journal"):
        read_journal(tmp_path / "journal.jsonl")
    with pytest.raises(
        OutputError, match=r"cannot be written: No such file or directory \(.* GB free\); the last checkpoint stands"
    ):
        Journal(tmp_path / "absent" / "journal.jsonl").append(RECORD)


def test_configuration_and_journal_need_no_torch():
    code = "import sys, server.config, server.journal, server.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
