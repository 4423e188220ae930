"""`mumc-site check` as it is typed, and the report that it makes to send."""

import json
import sys

import pytest
import yaml

from client.cli import main
from client.preflight import checks
from client.preflight.finding import Finding, passed, warned
from client.preflight.report import summary, to_dict
from tests.client.preflight.conftest import KNOWN_NODE, Proxy

CANARY = "Zebediah-Quux-1931"


@pytest.fixture
def check(monkeypatch, capsys):
    """What the command prints, and its exit code; the timed step is made elsewhere."""
    quick = tuple(check for check in checks.CHECKS if check.name != "step")
    monkeypatch.setattr(checks, "CHECKS", quick)

    def run(*arguments, expect=0):
        monkeypatch.setattr(sys, "argv", ["mumc-site", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == expect, out + err
        return err if expect == 2 else out

    return run


@pytest.fixture
def connected(site):
    site.hub(status=400, body=KNOWN_NODE)
    return site


def test_a_site_that_is_fit_ends_with_zero_and_one_that_is_not_with_one(check, connected, tiny_run):
    said = check(connected.root, "--run", tiny_run)
    assert said.splitlines()[-1].startswith("fit to take part: ")
    assert "FAILED" not in said
    connected.limit(max_steps=1)
    said = check(connected.root, "--run", tiny_run, expect=1)
    assert said.splitlines()[-1] == "not fit to take part: 20 ok, 1 failed"
    words = " ".join(said.split())
    assert (
        "FAILED policy the run would be refused: the order's steps is 2, and this site allows at most 1 "
        "(policy.runs.max_steps)" in words
    )
    assert "-> change the limits in site.yaml, or ask the operator for a run within them" in words


def test_warnings_do_not_keep_a_site_from_taking_part(check, connected, tiny_run):
    connected.limit(memory_gib=100_000)
    assert check(connected.root, "--run", tiny_run).splitlines()[-1] == "fit to take part: 20 ok, 1 warning"


def test_the_report_has_one_entry_a_check_of_one_form(check, connected, tiny_run):
    connected.limit(max_steps=1)
    report = json.loads(check(connected.root, "--run", tiny_run, "--json", expect=1))
    assert {name: type(value) for name, value in report.items()} == {
        "kind": str,
        "version": int,
        "fedmumc": str,
        "fit": bool,
        "checks": list,
    }
    assert (report["kind"], report["version"], report["fit"]) == ("mumc-site check", 1, False)
    names = "python packages settings state data duplicates patients card ledger keys log enrolment dns tcp tls clock"
    assert [entry["name"] for entry in report["checks"]] == [
        *names.split(),
        "server",
        "policy",
        "device",
        "memory",
        "disk",
    ]
    for entry in report["checks"]:
        assert {key: type(value) for key, value in entry.items()} == {
            "name": str,
            "status": str,
            "what": str,
            "remedy": str,
            "cause": str,
            "numbers": dict,
        }
        assert entry["status"] in ("pass", "warn", "fail", "skip")
        assert all(isinstance(value, int | float) for value in entry["numbers"].values())
        assert bool(entry["remedy"]) == (entry["status"] in ("warn", "fail"))
        assert bool(entry["cause"]) == (entry["status"] == "skip")


def test_a_run_that_cannot_be_read_ends_before_anything_is_looked_at(check, site, tmp_path):
    said = check(site.root, "--run", tmp_path / "gone.yaml", expect=2)
    assert said == (
        "mumc-site: the run's file cannot be read (No such file or directory); ask the operator for what mumc-server "
        "config prints\n"
    )


def test_the_report_names_no_patient_no_file_and_no_place_outside_the_site_s_folder(check, site, tiny_run, monkeypatch):
    """Every fault at once, with an unmistakable word in all that is private."""
    lines = (site.root / "captions.jsonl").read_text().splitlines()
    row = json.loads(lines[0]) | {"patient_id": CANARY}
    broken = row | {"image": f"images/{CANARY}.png"}
    (site.root / "images" / f"{CANARY}.png").write_bytes(b"no image")
    asked = json.loads((site.root / "vqa.jsonl").read_text().splitlines()[-1]) | {"patient_id": CANARY}
    (site.root / "captions.jsonl").write_text("\n".join([*lines, json.dumps(row), json.dumps(broken), f"{{{CANARY}"]))
    with (site.root / "vqa.jsonl").open("a") as file:
        file.write(json.dumps(asked | {"image": row["image"], "split": "test"}) + "\n")
    settings = yaml.safe_load((site.root / "site.yaml").read_text()) | {"bank": f"/srv/{CANARY}", "bad_share": 0.9}
    (site.root / "site.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("HTTPS_PROXY", f"http://{CANARY}:{CANARY}@127.0.0.1:{Proxy(opens=False).server_port}")
    site.dial("hub.example.invalid:9092")
    moved = site.root.rename(site.root.with_name(CANARY))
    report = check(moved, "--run", tiny_run, "--json", expect=1)
    found = {entry["name"]: entry for entry in json.loads(report)["checks"]}
    assert [name for name, entry in found.items() if entry["status"] == "warn"] == ["data", "duplicates", "patients"]
    assert found["tls"]["what"] == "the proxy opens no way to hub.example.invalid:9092: 403 Forbidden"
    assert CANARY not in report
    assert str(moved.parent) not in report
    shown = check(moved, "--run", tiny_run, expect=1)
    assert CANARY in shown
    assert f"captions.jsonl:{len(lines) + 2} image unreadable" in shown


def test_paths_are_replaced_in_what_is_sent(tmp_path):
    words = f"{tmp_path}/keys/auth.key has mode 644, /home/jdoe/x.yaml too; see https://hub:9092/v1/fleet and v1/fleet"
    (entry,) = to_dict([Finding(status="fail", what=words, remedy=f"chmod {tmp_path}")], tmp_path)["checks"]
    assert entry["what"] == "DIR/keys/auth.key has mode 644, (a path) too; see https://hub:9092/v1/fleet and v1/fleet"
    assert entry["remedy"] == "chmod DIR"


def test_a_check_that_breaks_fails_and_its_words_stay_on_the_terminal(check, connected, tiny_run, monkeypatch):
    def broken(case):
        raise ZeroDivisionError(f"of {CANARY}")

    monkeypatch.setattr(checks, "CHECKS", (checks.Check("first", broken), checks.Check("then", broken, ("first",))))
    report = json.loads(check(connected.root, "--run", tiny_run, "--json", expect=1))
    assert [(one["what"], one["cause"]) for one in report["checks"]] == [
        ("the check itself failed with ZeroDivisionError", ""),
        ("cannot be looked at before first is in order", "first"),
    ]
    assert CANARY in check(connected.root, "--run", tiny_run, expect=1)


def test_no_finding_at_all_is_no_sign_of_fitness():
    assert summary([]) == "not fit to take part: 0 ok"
    assert summary([passed("a"), warned("b", "c"), warned("b", "c")]) == "fit to take part: 1 ok, 2 warnings"
