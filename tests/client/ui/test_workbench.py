"""`mumc-site ui` in a real browser, beside what the commands say of the same site."""

import json
import shutil
import struct
import sys
import zlib

import pytest
from playwright.sync_api import expect

from client.cli import main
from client.log import site_log_file
from client.ui.users import add_user
from mumc_model.answerer import keep_measured
from mumc_model.selective import AccuracyTable
from tests.client.joined import Federation
from tests.client.ui.pages import served

NAME, PASSWORD = "ada", "correct horse battery"
QUESTION = "is there a mass"
LISTENING = []
"""Who is told of each file that this process opens; a hook can never be taken out again."""
sys.addaudithook(lambda event, found: [one.add(str(found[0])) for one in LISTENING if event == "open"] and None)
TABS = ("Ask", "Questions asked", "Training", "Federation")


def type_in(*words):
    """`mumc-site` with these words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mumc-site", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def site(two_joined, server, encoders, tmp_path_factory):
    """A site that took part in a run, refused an order, fine-tuned a model of its own and evaluated it."""
    place = shutil.copytree(two_joined, tmp_path_factory.mktemp("bench") / "two")
    federation = Federation.open(place, server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        patch.setattr("server.exchange._POLL_S", (0.002, 0.01))
        federation.play(place / "run", "run_id=spring", "federation.sites=2")
    federation.limit(actions=["train.rehearse"])
    federation.ask(federation.sealed(federation.post(), server.pretrain()))
    root = federation.sites["north"]
    type_in("finetune", root, "finetune.steps=4", "finetune.select_every=2", "--model", encoders)
    type_in("evaluate", root)
    return root


@pytest.fixture(scope="module")
def page(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    add_user(folder / "users", NAME, PASSWORD)
    with served(folder, "client.cli", "ui", site, "--users", folder / "users") as found:
        yield found


@pytest.fixture
def bench(visit, page):
    """A visitor who has logged in, before the open page."""
    known = visit.page.context.request.post(f"{page.url}login", form={"username": NAME, "password": PASSWORD})
    assert known.ok
    visit.page.goto(page.url)
    visit.page.get_by_text("The model is open").wait_for()
    return visit


def image_of(site, number=0):
    return sorted((site / "images").iterdir())[number]


def choose(bench, site, number=0):
    image = image_of(site, number)
    field = bench.page.get_by_label("Study, by patient or file name")
    field.click()
    field.fill(image.name)
    bench.page.keyboard.press("ArrowDown")
    bench.page.keyboard.press("Enter")
    bench.page.get_by_role("img", name=image.name).wait_for()
    return image


def ask(bench, question=QUESTION):
    """Ask, and wait for the answer and for where the model looked; the line of the log."""
    bench.page.get_by_label("Question", exact=True).fill(question)
    bench.page.get_by_role("button", name="Ask", exact=True).click()
    line = bench.page.get_by_text("This question is line")
    line.wait_for()
    bench.page.get_by_text("Weight of the words").wait_for()
    return int("".join(filter(str.isdigit, line.inner_text())))


def give(bench, *files):
    bench.page.get_by_role("button", name="A file instead, and settings").click()
    bench.page.locator("input[type=file]").set_input_files([str(file) for file in files])


def questions(site):
    return [entry for entry in site_log_file(site).entries() if entry["kind"] == "question"]


def open_tab(bench, name):
    bench.page.get_by_role("tab", name=name, exact=True).click()
    if name in ("Training", "Federation"):
        bench.page.get_by_role("button", name="Refresh").click()


def percent(share):
    return f"{100 * share:.1f} %"


def giant_png(path):
    """A PNG file whose header announces 30,000 by 30,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    end = b"IEND"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, end)]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def test_the_page_says_of_a_question_what_the_command_says(bench, page, site, call):
    image = choose(bench, site)
    line = ask(bench)
    values = json.loads(call("ask", image, QUESTION, "--site", site, "--json"))
    blank = {found["answer"]: percent(found["probability"]) for found in values["blank"]["answers"]}
    rows = [
        [found["answer"], percent(found["probability"]), blank.get(found["answer"], "not among the first")]
        for found in values["answers"]
    ]
    assert bench.table("The likeliest answers")[1:] == rows
    said = bench.page.get_by_role("tabpanel").inner_text()
    heads = {"referral": "Refer to a human", "shortlist": "One of: ", "answer": values["answer"]}
    assert heads[values["outcome"]] in said
    without = f"The same question on a blank image: {values['blank']['answers'][0]['answer']}"
    for part in (values["referral"], values["guarantee"], without):
        assert part in said
    assert ("not measured" in said) == (values["accuracy"] is None)
    assert values["line"] == line + 1


def test_each_question_is_one_line_of_the_log_under_the_name_of_who_logged_in(bench, site, call):
    before = len(questions(site))
    choose(bench, site)
    line = ask(bench)
    choose(bench, site, 1)
    ask(bench)
    added = questions(site)[before:]
    assert [(entry["user"], entry["index"] + 1) for entry in added] == [(NAME, line), (NAME, line + 1)]
    assert added[0]["question"] == added[1]["question"]
    assert added[0]["image"] != added[1]["image"]
    open_tab(bench, "Questions asked")
    bench.page.get_by_role("rowheader", name=str(line + 1), exact=True).wait_for()
    shown = [" ".join(row) for row in bench.table("The last questions")[1:]]
    printed = [" ".join(row.split()) for row in call("log", "show", site).splitlines() if " asked " in row]
    assert shown == printed[::-1]


def test_where_the_model_looked_is_shown_by_the_method_that_is_chosen_and_asks_nothing_again(bench, site):
    image = choose(bench, site)
    ask(bench)
    asked = len(questions(site))
    figure = bench.page.locator("figure")
    assert "where the model looked, not the lesion" in figure.inner_text()
    assert "by relevance" in figure.inner_text()
    first = figure.locator("img").get_attribute("src")
    bench.page.get_by_label("attention").click()
    bench.page.get_by_text("by attention").wait_for()
    assert figure.locator("img").get_attribute("src") != first
    bench.page.get_by_label("the study", exact=True).click()
    bench.page.get_by_text("not the lesion: for").wait_for(state="detached")
    assert image.name in figure.inner_text()
    assert len(questions(site)) == asked


def test_a_file_is_asked_about_as_a_study_is(bench, site, tmp_path, call):
    file = shutil.copy(image_of(site), tmp_path / "visitor.png")
    give(bench, file)
    bench.page.get_by_role("img", name="visitor.png").wait_for()
    ask(bench)
    values = json.loads(call("ask", file, QUESTION, "--site", site, "--json"))
    assert bench.table("The likeliest answers")[1][:2] == [
        values["answers"][0]["answer"],
        percent(values["answers"][0]["probability"]),
    ]
    last, before = questions(site)[-1], questions(site)[-2]
    assert last["image"] == before["image"]


def test_what_cannot_be_asked_is_a_sentence_and_no_line_of_the_log(bench, site, tmp_path):
    before, alert = len(questions(site)), bench.alert()
    button = bench.page.get_by_role("button", name="Ask", exact=True)
    button.click()
    alert.get_by_text("no study is chosen; choose one").wait_for()
    choose(bench, site)
    bench.page.get_by_label("Question", exact=True).fill("   ")
    button.click()
    alert.get_by_text("the question is empty; type one").wait_for()
    (tmp_path / "letter.png").write_text("no image")
    give(bench, tmp_path / "letter.png")
    alert.get_by_text("letter.png cannot be used: image unreadable; give a PNG or JPEG file").wait_for()
    bench.page.locator("input[type=file]").set_input_files(str(giant_png(tmp_path / "giant.png")))
    alert.get_by_text("giant.png cannot be used: image too large").wait_for()
    bench.page.get_by_label("Risk of a short list").fill("70")
    bench.page.get_by_label("Question", exact=True).fill(QUESTION)
    button.click()
    alert.get_by_text("the risk is 70; choose at most 50").wait_for()
    assert bench.page.get_by_role("img", name=image_of(site).name).is_visible()
    assert len(questions(site)) == before
    assert "Traceback" not in bench.page.content()


def test_a_study_that_is_chosen_while_an_answer_is_on_its_way_is_not_drawn_over(bench, site):
    choose(bench, site)
    before = len(questions(site))
    bench.page.get_by_label("Question", exact=True).fill(QUESTION)
    bench.page.keyboard.press("Enter")
    image = choose(bench, site, 1)
    bench.page.wait_for_timeout(1000)
    assert len(questions(site)) == before + 1
    assert image.name in bench.page.locator("figure").inner_text()
    assert bench.page.get_by_text("This question is line").count() == 0


def test_training_shows_the_receipts_losses_and_the_last_evaluation(bench, site, call):
    open_tab(bench, "Training")
    entries = [json.loads(line) for line in call("log", "show", site, "--json").splitlines()]
    trained = [entry for entry in entries if entry.get("stage") == "train.pretrain" and entry.get("answer") == "report"]
    assert [entry["round"] for entry in trained] == [1, 2]
    losses = {
        name: [name, f"{value:.4f} (round 1)", f"{trained[1]['metrics'][name]:.4f} (round 2)"]
        for name, value in trained[0]["metrics"].items()
    }
    assert losses
    assert {row[0]: row for row in bench.table("Losses of run spring")[1:]} == losses
    assert bench.page.get_by_role("img", name="losses over the rounds").is_visible()
    card = json.loads((site / "state" / "evaluation" / "evaluation.json").read_text())
    overall = card["scores"]["overall"]
    low, high = (f"{100 * limit:.1f}" for limit in overall["ci95"])
    assert bench.table("Percent right")[1][1] == f"{100 * overall['mean']:.1f} ({low} to {high})"
    assert bench.page.get_by_role("img", name="probability against accuracy").is_visible()
    assert bench.table("What its folder says")[0][1] == str(site / "state" / "vqa")


def test_federation_shows_rounds_what_left_and_why_an_order_was_refused(bench, site, call):
    open_tab(bench, "Federation")
    found = json.loads(call("log", "verify", site, "--json"))
    said = bench.page.get_by_role("tabpanel").inner_text()
    assert "What the server is doing now cannot be seen from a site" in said
    assert f"The log is whole: {found['lines']:,} lines" in said
    orders = bench.table("Orders, the newest first")[1:]
    assert len(orders) == found["orders"]
    left = [int(row[5].split()[0].replace(",", "")) for row in orders if "bytes of weights" in row[5]]
    assert sum(left) == found["bytes_of_weights"] > 0
    (refusal,) = bench.table("Refusals, the newest first")[1:]
    assert refusal[2] == "policy_actions"
    assert "policy.runs.actions" in refusal[3]
    assert bench.table("Privacy")[0][1].startswith("none: no privacy officer has signed a policy here")


def test_all_that_the_tabs_read_is_watched(site):
    from client.ui.workbench.federation import federation_html
    from client.ui.workbench.page import questions_html, stamps
    from client.ui.workbench.training import training_html

    opened = set()
    LISTENING.append(opened)
    try:
        assert all((questions_html(site), training_html(site, None), federation_html(site)))
    finally:
        LISTENING.clear()
    read = {path for path in opened if path.startswith(str(site)) and not path.startswith(str(site / "keys"))}
    assert str(site / "state" / "log.jsonl") in read
    assert read <= {path for path, *_ in stamps(site)}


def test_an_evaluation_of_the_own_model_or_of_another_is_noticed(site, tmp_path):
    from client.ui.workbench.page import stamps

    own, other = shutil.copytree(site / "state" / "vqa", tmp_path / "vqa"), tmp_path / "other"
    shutil.copytree(own, other)
    before = stamps(tmp_path, other)
    keep_measured(other, AccuracyTable())
    assert stamps(tmp_path, other) != before
    (other / "ensemble.json").write_text("damaged")
    assert (str(other / "ensemble.json"),) in [found[:1] for found in stamps(tmp_path, other)]


def test_the_keyboard_alone_is_enough_and_news_do_not_disturb(visit, page, site):
    visit.page.clock.install()
    visit.page.goto(page.url)
    visit.page.get_by_label("username").focus()
    for text in (NAME, "Tab", PASSWORD, "Enter"):
        if text in ("Tab", "Enter"):
            visit.page.keyboard.press(text)
        else:
            visit.page.keyboard.type(text)
    visit.page.get_by_text("The model is open").wait_for()
    visit.page.get_by_role("tab", name="Ask", exact=True).focus()
    for _ in range(12):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.getAttribute('aria-label') || ''").startswith("Study"):
            break
    visit.page.keyboard.type(image_of(site).name)
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("Enter")
    visit.page.get_by_role("img", name=image_of(site).name).wait_for()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.type("is there")
    site_log_file(site).path.touch()
    with visit.page.expect_response("**/run/predict*"):
        visit.page.clock.fast_forward(11_000)
    visit.page.keyboard.type(" a mass")
    assert visit.page.get_by_label("Question", exact=True).input_value() == QUESTION
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("This question is line").wait_for()


def test_at_200_percent_nothing_runs_out_of_the_page_and_all_fields_have_names(bench, site):
    bench.page.set_viewport_size({"width": 640, "height": 450})
    choose(bench, site)
    ask(bench)
    for name in TABS:
        open_tab(bench, name)
        assert not bench.scrolls_sideways(), name
        bench.page.keyboard.press("End")
        expect(bench.page.get_by_text("Research software, no diagnosis")).to_be_in_viewport()
    nameless = bench.page.evaluate(
        """[...document.querySelectorAll('input, textarea, button, select')].filter(field => field.checkVisibility() &&
        !field.labels?.length && !field.ariaLabel && !field.innerText.trim()).map(field => field.outerHTML)"""
    )
    assert nameless == []


def test_neither_the_browser_nor_the_program_reaches_beyond_the_page(bench, page, site):
    choose(bench, site)
    ask(bench)
    for name in TABS:
        open_tab(bench, name)
    assert bench.foreign(page.url) == []
    assert page.left() == []
    assert "Traceback" not in page.said()
