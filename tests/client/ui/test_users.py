import time

import pytest

from client.errors import PageError
from client.ui import users as module
from client.ui.users import Users, Visitors, add_user
from tests.client.ui.awaiting import finished

PASSWORD = "correct horse battery"


def right(users, name, password):
    return finished(users.check(name, password))


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.0)


@pytest.fixture
def file(tmp_path):
    add_user(tmp_path / "users", "ada", PASSWORD)
    return tmp_path / "users"


def test_the_right_password_alone_opens(file):
    users = Users(file)
    assert right(users, "ada", PASSWORD)
    assert not right(users, "ada", PASSWORD + " ")
    assert not right(users, "ada", "")
    assert not right(users, "eve", PASSWORD)


def test_no_password_stands_in_the_file_and_others_cannot_read_it(file):
    assert PASSWORD not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(PageError, match="chmod 600"):
        Users(file)


def test_a_user_who_is_added_again_has_the_new_password_and_others_stay(file):
    add_user(file, "bob", "a second password")
    add_user(file, "ada", "another password")
    users = Users(file)
    assert right(users, "ada", "another password")
    assert not right(users, "ada", PASSWORD)
    assert right(users, "bob", "a second password")


def test_one_who_is_taken_out_cannot_log_in_again(file):
    users = Users(file)
    add_user(file, "bob", "a second password")
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("ada")))
    assert not right(users, "ada", PASSWORD)


def test_wrong_passwords_wait(file, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.2)
    started = time.monotonic()
    right(Users(file), "ada", "wrong")
    assert time.monotonic() - started >= 0.2


def test_one_who_is_logged_in_and_is_taken_out_is_out_and_a_broken_file_lets_nobody_on(file):
    add_user(file, "bob", "a second password")
    visitors = Visitors(Users(file))
    visitors["token"] = "ada"
    visitors["other"] = "bob"
    assert [visitors.get(token) for token in ("token", "other", "none", None)] == ["ada", "bob", None, None]
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("ada")))
    assert [visitors.get(token) for token in ("token", "other")] == [None, "bob"]
    file.chmod(0o644)
    assert visitors.get("other") is None


def test_a_changed_password_ends_the_sessions_of_that_user_alone(file):
    add_user(file, "bob", "a second password")
    visitors = Visitors(Users(file))
    visitors["token"], visitors["other"] = "ada", "bob"
    add_user(file, "ada", PASSWORD)
    assert [visitors.get(token) for token in ("token", "other")] == [None, "bob"]
    visitors["anew"] = "ada"
    assert [visitors.get(token) for token in ("anew", "token")] == ["ada", None]


@pytest.mark.parametrize("name", ["", "a b", "../x", "é", "a" * 65])
def test_a_name_that_would_break_the_file_is_refused(tmp_path, name):
    with pytest.raises(PageError, match="is no user name"):
        add_user(tmp_path / "users", name, PASSWORD)


def test_a_short_password_is_refused_with_its_length(tmp_path):
    with pytest.raises(PageError, match="has 5 characters; take 10"):
        add_user(tmp_path / "users", "ada", "short")


def test_files_that_cannot_be_used_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(PageError, match=r"there is no file .*--add-user"):
        Users(tmp_path / "none")
    (tmp_path / "users").touch(0o600)
    with pytest.raises(PageError, match="names nobody"):
        Users(tmp_path / "users")
    (tmp_path / "users").write_text("ada: secret\n")
    with pytest.raises(PageError, match=r"a line of .* is no user"):
        Users(tmp_path / "users")
