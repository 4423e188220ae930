"""The privacy officer's page in a real browser, beside what the commands print."""

import json
import shlex

import pytest
from playwright.sync_api import expect

from client.privacy.policy import read_policy
from tests.client.privacy.officer import NAME
from tests.client.ui.officer_page import PASSWORD, officers_page

ELSEWHERE = "http://elsewhere.example/a.png"
TABS = ("Plan", "Ledger", "Approve", "Audit")
WRONG = (
    ("Delta", "a little", "delta is 'a little'; type a number, as 1e-6"),
    ("Delta", "0.1", "delta 0.1 is too large for 1,000 patients; choose at most 1/(10 N) = 0.0001"),
    ("Patients", "10", "a batch of 64 is more than the 10 patients; choose a smaller one"),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("officer")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MUMC_REGISTRY", str(folder / "reg"))
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patched.setenv("TMPDIR", str(folder / "scratch"))
        patched.setenv("OMP_NUM_THREADS", "1")
        with officers_page(folder) as found:
            yield found


@pytest.fixture(autouse=True)
def registry(page, monkeypatch):
    """The page's, for the commands beside it too."""
    monkeypatch.setenv("MUMC_REGISTRY", str(page.folder / "reg"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(page.folder / "cache"))


@pytest.fixture
def opened(visit, page):
    """A visit to the page whose first plan is whole."""
    visit.page.goto(page.served.url)
    visit.page.get_by_text("epsilon, by PLD").wait_for()
    return visit


def tab(visit, name):
    visit.page.get_by_role("tab", name=name).click()


def field(visit, label):
    """The field with this label on the tab that is open; several tabs have one."""
    return visit.page.get_by_label(label).locator("visible=true").first


def draft(visit, *, cap, reason="a longer study"):
    tab(visit, "Approve")
    visit.page.get_by_role("button", name="Take the numbers of the plan").click()
    expect(field(visit, "Patients")).to_have_value("1000")
    field(visit, "Cap").fill(str(cap))
    visit.page.get_by_label("Name of who signs").fill("Ada Lovelace")
    visit.page.get_by_label("Reason").fill(reason)
    visit.page.get_by_role("button", name="Show what is signed").click()
    return dict(visit.table("What is signed"))


def sign(visit, path, password):
    with visit.page.expect_file_chooser() as chooser:
        visit.page.get_by_role("button", name="Choose the key file").click()
    chooser.value.set_files(path)
    visit.page.get_by_text("is held in memory").wait_for()
    visit.page.get_by_label("Password of the key").fill(password)
    visit.page.get_by_role("button", name="Sign this").click()


def test_the_plan_shows_the_numbers_that_its_own_line_prints_at_a_terminal(opened, page):
    typed = opened.page.get_by_text("The same at a terminal:").inner_text().split(": ", 1)[1]
    found = page.command(*shlex.split(typed)[1:], "--json")
    body = opened.page.locator("body").inner_text()
    assert f"epsilon {found['epsilon_after']:.3f} of {found['cap']:g}" in body
    said = dict(opened.table("In plain words"))
    assert said["epsilon, this plan"].startswith(f"{found['epsilon']:.3f} by PLD")
    assert f"{found['epsilon_rdp']:.3f} by RDP" in said["epsilon, this plan"]
    assert f"{found['epsilon_spent']:.3f} spent before" in said["epsilon, life-time"]
    assert f"{found['site']['epsilon_remaining']:.3f} left" in said["at this site"]
    assert f"{found['doubled_epsilon']:.3f} by PLD" in said["twice the rounds"]
    assert "41.0 % of 200 answers right (95 %: 35.0 % to 47.0 %)" in said["accuracy"]
    assert found["own_runs"][0]["accuracy"] == 0.41
    assert opened.page.get_by_role("img", name="over the rounds").count() == 1
    assert opened.page.get_by_role("img", name="over delta").count() == 1


def test_the_plan_does_not_come_through_the_stream_that_is_closed_between_answers(opened):
    assert any("/run/predict" in url for url in opened.requests)
    assert not any("/queue/" in url for url in opened.requests)


def test_the_page_names_its_site(opened):
    assert opened.page.get_by_role("heading", level=1).inner_text() == f"Privacy budget of {NAME}"


def test_a_slider_that_is_moved_by_a_key_gives_a_sketch_and_then_the_plan(opened, page):
    shown = opened.page.locator(".number").first
    before = shown.inner_text()
    opened.page.get_by_role("slider", name="Noise multiplier").focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.get_by_text("by RDP; PLD follows").wait_for()
    assert shown.inner_text() != before
    opened.page.get_by_text("epsilon, by PLD").wait_for()
    assert opened.page.get_by_text("The same at a terminal:").inner_text().count("--noise 1.25") == 1


def test_wrong_input_is_a_sentence_and_the_last_plan_stays(opened):
    before = opened.page.locator(".number").first.inner_text()
    for label, value, message in WRONG:
        right = field(opened, label).input_value()
        field(opened, label).fill(value)
        opened.page.keyboard.press("Tab")
        expect(opened.alert()).to_have_text(message)
        assert opened.page.locator(".number").first.inner_text() == before
        field(opened, label).fill(right)
        opened.page.keyboard.press("Tab")
        expect(opened.alert()).to_have_count(0)
    assert "Traceback" not in opened.page.content()


def test_the_ledger_shows_and_exports_what_the_command_prints(opened, page):
    tab(opened, "Ledger")
    found = page.ledger()
    rows = {row[0]: row[1] for row in opened.table("Budget in epsilon")}
    for name in ("cap", "spent", "spent_and_reserved", "remaining"):
        assert rows[name.replace("_", " ")] == f"{found['epsilon'][name]:.3f}"
    assert "planned, with all before" in rows
    charges = opened.table("charges, the newest first")
    assert [row[1] for row in charges[1:]] == ["3.1", "2.1", "1.1"]
    assert [row[6:8] for row in charges[1:]] == [["-", "reserved"], ["80", "spent"], ["80", "spent"]]
    assert [row[8] for row in charges[:0:-1]] == [f"{one['epsilon_after']:.3f}" for one in found["charges"]]
    text = opened.page.locator("body").inner_text()
    assert f"Verified: {found['rows']} rows" in text
    assert found["head"] in text
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Export as JSON").click()
    assert json.loads(download.value.path().read_text()) == found


def test_a_ledger_that_was_edited_shows_why_and_nothing_else(opened, page):
    tab(opened, "Ledger")
    opened.table("Budget in epsilon")
    path = page.site / "state" / "privacy" / "ledger.jsonl"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole.replace(b'"steps":100', b'"steps":10'))
        opened.page.get_by_role("button", name="Read again").click()
        opened.page.get_by_text("Not verified: nothing may be charged").wait_for()
        assert opened.alert().count() == 1
        assert opened.page.get_by_text("charges, the newest first").count() == 0
    finally:
        path.write_bytes(whole)


def test_a_policy_is_shown_signed_and_in_force_and_nothing_of_the_key_stays(opened, page):
    paper = draft(opened, cap=7)
    assert (paper["epsilon"], paper["units"], paper["reason"]) == ("7", "1000", "a longer study")
    assert read_policy(page.site).epsilon == 6
    sign(opened, page.folder / "officer.pem", PASSWORD)
    opened.page.get_by_text("Approved: row").wait_for()
    assert page.ledger()["policy"]["epsilon"] == 7
    assert read_policy(page.site).role == "privacy officer"
    expect(opened.page.get_by_label("Password of the key")).to_have_value("")
    assert opened.page.get_by_role("button", name="Sign this").is_disabled()
    assert not any(
        b"PRIVATE KEY" in path.read_bytes() or PASSWORD.encode() in path.read_bytes() for path in page.kept()
    )
    assert PASSWORD not in page.served.said()


def test_a_wrong_password_or_another_key_raises_no_cap(opened, page):
    before = read_policy(page.site)
    draft(opened, cap=60)
    for key, password, message in (
        ("officer.pem", "wrong horse battery", "the password is not its password"),
        ("other.pem", PASSWORD, "let that officer hand over first"),
    ):
        sign(opened, page.folder / key, password)
        expect(opened.alert()).to_contain_text(message)
        assert read_policy(page.site) == before
        expect(opened.page.get_by_label("Password of the key")).to_have_value("")


def test_what_is_changed_after_it_was_shown_must_be_shown_again(opened, page):
    before = read_policy(page.site)
    draft(opened, cap=8)
    opened.page.get_by_label("Reason").fill("another reason")
    sign(opened, page.folder / "officer.pem", PASSWORD)
    expect(opened.alert()).to_contain_text("a field was changed after this was shown")
    assert read_policy(page.site) == before


def test_a_request_made_by_hand_can_sign_nothing_that_was_not_drafted_there(page):
    before, key = read_policy(page.site), str(page.folder / "officer.pem")
    forged = {"policy": {**before.to_dict(), "epsilon": 60.0}, "site": "north", "count": 3}
    values = [60, 1000, 0, "1e-6", "patient", "", "Eve", "nobody", "more"]
    said = page.ask("put_in_force", [forged, None, key, PASSWORD, *values], "forged")
    assert "nothing is shown to be signed" in said
    assert PASSWORD not in said
    assert read_policy(page.site) == before


def test_a_request_made_by_hand_with_other_values_and_another_key_raises_no_cap(page):
    before = read_policy(page.site)
    values = [60, 1000, 0, "1e-6", "patient", "", "Eve", "nobody", "more"]
    assert "What is signed" in page.ask("write", values, "by-hand")
    for key, password in (("other.pem", PASSWORD), ("officer.pem", "guess"), ("site/site.yaml", PASSWORD)):
        said = page.ask(
            "put_in_force", [None, ["officer.pem", "content"], str(page.folder / key), password, *values], "by-hand"
        )
        assert "alert" in said
        assert password not in said
    assert read_policy(page.site) == before


def test_a_file_that_was_not_uploaded_is_neither_read_nor_removed_nor_handed_out(page):
    path = page.folder / "officer.pem"
    said = page.ask("take", [{"path": str(path), "meta": {"_type": "gradio.FileData"}}], "steal")
    assert "is held in memory" not in said
    assert path.is_file()
    assert not any(b"PRIVATE KEY" in kept.read_bytes() for kept in page.kept())
    assert page.status(f"/gradio_api/file={path}") in (403, 404)
    assert page.status(f"/gradio_api/file={page.site / 'site.yaml'}") in (403, 404)


def test_a_request_made_by_hand_fetches_nothing_from_elsewhere(page):
    said = page.ask("take", [{"path": ELSEWHERE, "meta": {"_type": "gradio.FileData"}}], "fetch")
    assert '"error"' in said
    assert page.served.left() == []


def test_the_audit_shows_its_bounds_beside_the_claim_as_its_json_says(opened, page):
    tab(opened, "Audit")
    opened.page.get_by_label("release of an accuracy").check()
    opened.page.get_by_label("Made-up patients").fill("many")
    opened.page.get_by_role("button", name="Run the audit").click()
    opened.alert().wait_for()
    assert opened.alert().inner_text() == "made-up patients is 'many'; type a number, as 10000"
    opened.page.get_by_label("Made-up patients").fill("400")
    opened.page.get_by_role("button", name="Run the audit").click()
    opened.page.get_by_text("claimed by the accountant").wait_for()
    rows = [row[1] for row in opened.table("no bound may be above the claim")]
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="Export as JSON").locator("visible=true").click()
    found = json.loads(download.value.path().read_text())
    assert (found["canaries"], found["trainer"]) == (400, "metrics")
    bounds = (found["claimed_epsilon"], found["lower_bound"], found["one_run_lower_bound"])
    assert rows == [f"{bound:.2f}" for bound in bounds]
    assert opened.page.get_by_text("Passed" if found["pass"] else "Failed", exact=True).count() == 1
    assert bounds[0] == pytest.approx(4.377, abs=1e-3)  # As tests/client/privacy/test_cli_audit.py has it.


def test_the_keyboard_alone_reaches_every_tab_and_signs_nothing_unseen(opened):
    opened.page.get_by_role("tab", name="Plan").focus()
    for name in TABS[1:]:
        opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Enter")
        expect(opened.page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
    outline = opened.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for _ in range(8):
        opened.page.keyboard.press("Tab")
        if opened.page.evaluate("document.activeElement.innerText") == "Run the audit":
            break
    else:
        pytest.fail("the button is not reached")
    opened.page.keyboard.press("Shift+Tab")
    opened.page.keyboard.type("none")
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    expect(opened.alert()).to_contain_text("made-up patients is 'none'")


def test_at_200_percent_no_tab_scrolls_sideways_and_every_field_has_a_name(opened):
    opened.page.set_viewport_size({"width": 640, "height": 450})
    for name in TABS:
        tab(opened, name)
        opened.page.wait_for_timeout(200)
        assert not opened.scrolls_sideways(), name
        nameless = opened.page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, button, select')]
                .filter(one => one.offsetParent && one.type !== 'file')
                .filter(one => !(one.labels?.length || one.getAttribute('aria-label') || one.innerText.trim()
                                 || one.title))
                .map(one => one.outerHTML.slice(0, 200))"""
        )
        assert nameless == [], name


def test_nothing_of_the_page_comes_from_or_goes_to_anywhere_else(opened, page):
    for name in TABS:
        tab(opened, name)
        opened.page.wait_for_timeout(100)
    assert opened.foreign(page.served.url) == []
    assert page.served.left() == []
