"""The officer's page on a site whose ledger has charges, and requests to it that no browser would make."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from client.privacy.cli import main
from client.privacy.ledger import Ledger
from client.privacy.policy import sign_policy
from mumc_model.data.site_writer import SiteWriter
from protocol.signing import new_key, write_private_key
from tests.client.privacy.officer import NAME, PATIENTS, charge, policy
from tests.client.privacy.past_runs import write_report
from tests.client.ui.pages import Served, served

PASSWORD = "correct horse battery"
MODULE = "client.privacy.cli"


@dataclass
class OfficersPage:
    """The page, its site and the keys that lie beside it."""

    served: Served
    folder: Path

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def command(self, *words: object) -> dict[str, Any]:
        """What a command of `mumc-privacy` prints as JSON."""
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", ["mumc-privacy", *map(str, words)])
            patch.chdir(self.folder)
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
        return json.loads(printed.getvalue())

    def ledger(self) -> dict[str, Any]:
        return self.command("ledger", self.site, "--json")

    def kept(self) -> list[Path]:
        """Every file in the page's own folder."""
        return [path for path in (self.folder / "scratch").rglob("*") if path.is_file()]

    def status(self, path: str) -> int:
        """Of the page's answer to a plain request."""
        with self.served.visitor() as client:
            return client.get(path).status_code

    def ask(self, handler: str, values: list[Any], session: str) -> str:
        """All that the page answers to a request that was made by hand for the handler of that name."""
        with self.served.visitor() as client:
            dependencies = client.get("/config").json()["dependencies"]
            found = next(one["id"] for one in dependencies if one["api_name"] == handler)
            body = {"data": values, "fn_index": found, "session_hash": session}
            return client.post("/gradio_api/run/predict", json=body).text


@contextmanager
def officers_page(folder: Path) -> Iterator[OfficersPage]:
    """A page of a site with a policy of epsilon 6, three rounds charged, and two past runs."""
    (folder / "scratch").mkdir()
    key = new_key()
    write_private_key(folder / "officer.pem", key, PASSWORD.encode())
    write_private_key(folder / "other.pem", new_key(), PASSWORD.encode())
    with SiteWriter(folder / "site", NAME) as writer:
        for number, patient in enumerate(PATIENTS):
            writer.add_caption(
                writer.add_image(Image.new("L", (8, 8), number), patient), "a square", patient_id=patient
            )
    Ledger.open(folder / "site").approve(sign_policy(policy(), NAME, key))
    for number in (1, 2, 3):
        ledger = Ledger.open(folder / "site")
        reserved = ledger.reserve(charge(round=number, steps=100), units=PATIENTS)
        if number < 3:
            ledger.reconcile(reserved, 80)
    write_report(folder / "runs" / "first", epsilon=3.0)
    with served(folder, MODULE, "ui", "--site", folder / "site", "--runs", folder / "runs") as page:
        yield OfficersPage(page, folder)
