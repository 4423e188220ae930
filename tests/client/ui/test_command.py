"""What is typed to open a page: the same options for every page, in one place."""

import pytest
import typer
from typer.testing import CliRunner

from client.cli_ui import app as site_app
from client.errors import PageError
from client.privacy.cli_ui import app as privacy_app
from client.ui.address import Address
from client.ui.command import OPTIONS, page_command

PAGE = ["host", "port", "users", "add_user", "certificate", "certificate_key"]


@pytest.mark.parametrize(("app", "own"), [(site_app, ["site", "model"]), (privacy_app, ["site", "runs"])])
def test_every_page_takes_its_own_words_and_behind_them_those_of_all_pages(app, own):
    assert list(OPTIONS) == PAGE
    found = [parameter.name for parameter in typer.main.get_command(app).params]
    assert [name for name in found if "completion" not in name] == [*own, *PAGE]
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "beyond loopback with --users and --certificate" in " ".join(shown.split())


def test_what_is_typed_arrives_and_where_strangers_could_read_nothing_is_prepared(monkeypatch, tmp_path):
    app, prepared, opened = typer.Typer(), [], []
    monkeypatch.setattr("client.ui.serve.open_page", lambda *found: opened.append(found))

    @page_command(app)
    def ui(site: str, model: str = "own"):
        prepared.append((site, model))
        return "the page"

    run = CliRunner()
    done = run.invoke(app, ["north", "--port", "7860", "--users", str(tmp_path), "--add-user", "ada"])
    assert done.exit_code == 0, done.output
    assert prepared == [("north", "own")]
    assert opened == [("the page", Address(port=7860, users=tmp_path), "ada")]
    refused = run.invoke(app, ["north", "--host", "0.0.0.0"])
    assert isinstance(refused.exception, PageError)
    assert len(prepared) == len(opened) == 1
