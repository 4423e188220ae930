import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import expect

from client.ui.door import KEYLESS
from client.ui.users import add_user
from tests.client.ui.pages import served

MODULE = "tests.client.ui.tried_page"
PASSWORD = "correct horse battery"
WRONG = {
    "-1": "patients is -1; choose at least 0",
    "1.5": "patients is 1.5; type a whole number",
    "": "patients is empty; type a number",
    "0": "this did not work, through a fault of the program; the terminal says more",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with served(tmp_path_factory.mktemp("page"), MODULE) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A page with two users, and their file."""
    folder = tmp_path_factory.mktemp("guarded")
    for name in ("ada", "bob"):
        add_user(folder / "users", name, PASSWORD)
    with served(folder, MODULE, "--users", folder / "users") as found:
        yield found, folder / "users"


def press(visit, value):
    visit.page.get_by_label("patients").fill(value)
    visit.page.get_by_role("button", name="Divide").click()


def log_in(visit, password):
    visit.page.get_by_label("username").fill("ada")
    visit.page.get_by_label("password").fill(password)
    visit.page.get_by_role("button", name="Login").click()


def test_a_page_shows_what_is_computed_and_escapes_it(visit, page):
    visit.page.goto(page.url)
    press(visit, "8")
    assert visit.table("Shares") == [["of", "share"], ["<one>", "0.125"]]


def test_wrong_input_is_a_sentence_and_the_rest_stays_and_a_fault_is_for_the_terminal_alone(visit, page):
    visit.page.goto(page.url)
    press(visit, "8")
    shown = visit.table("Shares")
    for value, said in WRONG.items():
        press(visit, value)
        expect(visit.alert()).to_have_text(said)
        assert visit.table("Shares") == shown
        assert "Traceback" not in visit.page.content()
    assert "ZeroDivisionError" in page.said()
    assert "ZeroDivisionError" not in visit.page.content()


def test_neither_the_browser_nor_the_program_reaches_beyond_the_page(visit, page):
    visit.page.goto(page.url)
    press(visit, "8")
    visit.table("Shares")
    assert visit.foreign(page.url) == []
    assert page.left() == []


def test_the_keyboard_alone_is_enough(visit, page):
    visit.page.goto(page.url)
    # While the page loads, it takes the focus away again.
    visit.page.get_by_role("button", name="Divide").wait_for()
    visit.page.get_by_text("Loading...").wait_for(state="hidden")
    visit.page.get_by_label("patients").focus()
    visit.page.keyboard.press("Control+A")
    visit.page.keyboard.type("5")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.innerText") == "Divide"
    visit.page.keyboard.press("Enter")
    assert visit.table("Shares")[1][1] == "0.2"


def test_another_account_of_the_machine_is_not_let_in_without_the_key(page):
    answer = httpx.get(page.url.split("?")[0])
    assert (answer.status_code, answer.text) == (403, KEYLESS.decode())
    assert "?key=" in page.url
    with page.visitor() as client:
        assert client.get("/config").status_code == 200


def test_a_page_with_users_shows_nothing_before_the_login(visit, guarded):
    page, _ = guarded
    visit.page.goto(page.url)
    log_in(visit, "wrong horse battery")
    visit.page.get_by_text("Incorrect").wait_for()
    assert visit.page.get_by_label("patients").count() == 0
    log_in(visit, PASSWORD)
    visit.page.get_by_label("patients").wait_for()
    # The browser itself complains of the answer to the wrong password.
    assert [text for text in visit.complaints if "400 (Bad Request)" not in text] == []
    visit.complaints.clear()


def test_a_page_answers_while_wrong_passwords_wait_and_one_taken_out_is_out(guarded):
    page, users = guarded
    with ThreadPoolExecutor(3) as pool, page.visitor() as client:
        login = {"username": "ada", "password": PASSWORD}
        assert client.post("/login", data=login).status_code == 200
        wrong = {**login, "password": "wrong horse battery"}
        tries = [pool.submit(httpx.post, f"{page.url}login", data=wrong) for _ in range(3)]
        time.sleep(0.1)
        started = time.monotonic()
        assert "components" in client.get("/config").json()
        assert time.monotonic() - started < 1
        assert not any(one.done() for one in tries)
        assert [one.result().status_code for one in tries] == [400] * 3
        users.write_text("".join(line for line in users.read_text().splitlines(True) if line.startswith("bob")))
        assert "components" not in client.get("/config").json()
        for path in ("queue/join", "run/predict"):
            assert client.post(f"/gradio_api/{path}", json={}).status_code == 401
