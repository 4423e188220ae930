"""The table of figures: what it reads of recorded benchmarks, and what it says of those that fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import table
from quoted.figures import RUNS, Figure

RECORDED = Path(__file__).parent / "recorded"
FIGURES = {
    "step": [("14.1 % (1.59 GFLOP in 0.064 s, batch 16)", None)],
    "answering": [
        ("5.64 x (0.182 s a question)", True),
        ("12.33 x (0.203 s a question)", True),
        ("2.85 x (0.00942 s a question)", False),
        ("4.52 x (0.0105 s a question)", False),
        ("50.2 % (4.99 s)", None),
        ("0.216 s", None),
        ("0.488 s (loading 0.75 s)", True),
    ],
    "startup": [
        *(("0.322 s", True), ("0.352 s", True), ("0.537 s", True), ("0.386 s", True)),
        ("0.098 s (1 million values)", True),
    ],
    "round": [("7.7 % (3.98 s for 3.69 s of training)", False)],
    "curves": [
        ("0.278 (1,024 to 16,384 features in the queue; of a useful GFLOP -0.01)", True),
        ("0.7 (2 to 64 sites)", True),
        ("0.116 (10 to 1,000 rounds)", True),
    ],
    "merge": [
        ("2.12 x (1 million values)", False),
        ("42.8 %", False),
        ("4.43 (multi_krum, 3 sites, 4 MB a model)", None),
    ],
    "secagg": [("0.91 x", True), ("1.23 x", True)],
    "dp_step": [("2.54 x", False), ("1.49 x", True)],
    "codec": [("50.0 % (2.6 times as long as a copy)", None), ("25.4 % (1.5 times as long as a copy)", None)],
    "transport": [("2.22 x (6.26 s packed, 2 million values)", None)],
    "plan": [("2.14 s", False), ("0.19 s", None), ("2.24 s", False), ("0.183 s", None)],
}
"""Of the recordings: what each line shows, and whether its aim is met."""


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder of scripts in place of the benchmarks, which may be written as `scripts(name, source)`."""
    monkeypatch.setattr(table, "SCRIPTS", tmp_path)
    monkeypatch.setattr(table, "OUT", tmp_path / "bench")
    table.OUT.mkdir()
    return lambda name, source: (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")


def prints(name):
    return f"print(open({str(RECORDED / f'{name}.json')!r}).read())"


def test_every_benchmark_of_the_table_has_a_recording():
    assert set(FIGURES) == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_the_figures_and_aims_of_a_recorded_benchmark_are_read(name):
    rows = table.rows_of(name, recorded(name), 1.0)
    assert [(row["shown"], row["met"]) for row in rows] == FIGURES[name]
    assert not any(row["failed"] for row in rows)


@pytest.mark.parametrize("name", RUNS)
def test_a_script_knows_the_arguments_that_the_table_gives_it(name):
    source = (Path(table.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    assert [word for word in RUNS[name].arguments if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.mark.parametrize(
    ("figure", "met", "aim"),
    [
        (Figure(what="", value=0.8, unit="%", least=0.8), True, "at least 80.0 %"),
        (Figure(what="", value=0.799, unit="%", least=0.8), False, "at least 80.0 %"),
        (Figure(what="", value=3.0, unit="s", most=3.0), True, "at most 3 s"),
        (Figure(what="", value=3.1, unit="s", most=3.0), False, "at most 3 s"),
        (Figure(what="", value=float("nan"), most=3.0), False, "at most 3"),
        (Figure(what="", value=1.0), None, ""),
    ],
)
def test_an_aim_is_met_at_its_end_and_no_aim_is_neither_met_nor_missed(figure, met, aim):
    assert (figure.met, figure.aim) == (met, aim)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import sys; print('{}'); print('the disk is full', file=sys.stderr); sys.exit(3)", "3; the disk is full"),
        ("raise SystemExit(1)", "exit status 1; it said nothing"),
        ("print('mean 3.1 s')", "it printed no JSON but b'mean 3.1 s"),
        ("print('{}')", "its JSON is not as expected: KeyError 'shapes'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit status -9"),
        ("import time; time.sleep(60)", "it took longer than 1 s"),
    ],
)
def test_a_benchmark_that_fails_is_a_row_that_says_why(scripts, source, why):
    scripts("step", source)
    (row,) = table.run_all(["step"], 1 if "sleep" in source else 30)["rows"]
    assert row["failed"]
    assert why in row["shown"]
    assert "failed" in table.text({"machine": "", "load_before": 0, "load_after": 0, "seconds": 0, "rows": [row]})


def test_the_rest_is_measured_where_one_fails_and_the_exit_status_is_1(scripts, monkeypatch, capsys):
    scripts("step", "raise SystemExit(1)")
    scripts("secagg", prints("secagg"))
    monkeypatch.setattr(sys, "argv", ["table.py", "--only", "step,secagg"])
    with pytest.raises(SystemExit) as ended:
        table.main()
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "exit status 1" in said.out
    assert "0.91 x" in said.out
    assert ["1/2 step" in said.err, "2/2 secagg" in said.err] == [True, True]
    assert json.loads((table.OUT / "secagg.json").read_text()) == recorded("secagg")
    assert not (table.OUT / "step.json").exists()


def test_an_aim_that_is_missed_is_no_failure_and_the_last_table_can_be_shown_again(scripts, monkeypatch, capsys):
    scripts("round", prints("round"))
    shown = []
    for words in (["--only", "round"], ["--kept"]):
        monkeypatch.setattr(sys, "argv", ["table.py", *words])
        with pytest.raises(SystemExit) as ended:
            table.main()
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert " no " in shown[0]


def test_what_a_script_has_started_ends_with_it(scripts, tmp_path):
    child = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    waits = f"while not os.path.exists({str(tmp_path / 'child')!r}): time.sleep(0.01)"
    scripts("step", f"import os, subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\n{waits}")
    assert "no JSON" in table.run("step", [], 30)
    wait_for(lambda: gone(tmp_path / "child"))


def test_a_table_that_is_ended_from_outside_ends_what_it_runs(tmp_path):
    script = f"import os, time; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    (tmp_path / "secagg.py").write_text(script, encoding="utf-8")
    folder, words = Path(table.__file__).parent, "'table.py', '--only', 'secagg'"
    start = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(folder)!r})
sys.argv = [{words}]
import table
table.SCRIPTS = table.OUT = Path({str(tmp_path)!r})
table.main()
"""
    process = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "child").is_file() and (tmp_path / "child").read_text())
    process.terminate()
    assert process.wait(30) == 1
    wait_for(lambda: gone(tmp_path / "child"))


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(child):
    """Whether the process whose number is in that file has ended, its last trace or not."""
    process = Path(f"/proc/{child.read_text()}/stat")
    return not process.exists() or process.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_page_gets_the_table_between_its_comments_and_keeps_the_rest(scripts, tmp_path, monkeypatch, capsys):
    scripts("secagg", prints("secagg"))
    page = tmp_path / "performance.md"
    page.write_text(f"# Speed\n\n{table.BEGIN}\nold\n{table.END}\n\nThe method.\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["table.py", "--only", "secagg", "--markdown", str(page)])
    with pytest.raises(SystemExit):
        table.main()
    lines = page.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("# Speed", "The method.", False)
    assert lines.index(table.BEGIN) < lines.index("|---|---|---|---|---|") < lines.index(table.END)
    assert f"{os.cpu_count()} cores" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["", f"{table.BEGIN}\n", f"{table.END}\n{table.BEGIN}\n"])
def test_a_page_without_a_place_for_the_table_is_refused_before_anything_is_run(scripts, tmp_path, monkeypatch, page):
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["table.py", "--markdown", str(tmp_path / "page.md")])
    monkeypatch.setattr(table, "run_all", lambda *_: pytest.fail("a benchmark ran"))
    with pytest.raises(SystemExit, match="no place for the table"):
        table.main()


def test_a_benchmark_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["table.py", "--only", "speed"])
    with pytest.raises(SystemExit):
        table.main()
    assert "'speed' is none of step, answering" in capsys.readouterr().err
