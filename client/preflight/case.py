"""What the checks of one site share: its folder, and what earlier checks have found in it and at the server."""

from functools import cached_property
from pathlib import Path

import httpx

from client.config import SiteConfig, read_site_config
from client.keys import SiteKeys
from client.preflight.run import BERT_TOKENS, Run
from client.preflight.wire import Handshake, Route, route_to, shake
from mumc_model.data.records import SiteData, read_site
from mumc_model.data.tokenizer import Tokenizer, vocabulary
from mumc_model.errors import ConfigError
from protocol.enrolment import Join
from protocol.errors import ProtocolError


class Case:
    """One site and one run. Whatever is read is read once, by the check that answers for it.

    Args:
        root: The site's folder.
        run: What the site is to be fit for.
    """

    def __init__(self, root: Path, run: Run) -> None:
        self.root, self.run = root.resolve(), run

    @cached_property
    def config(self) -> SiteConfig:
        """The site's settings."""
        return read_site_config(self.root)

    @cached_property
    def data(self) -> SiteData:
        """The site's records."""
        return read_site(self.root, bad_share=self.config.bad_share)

    @cached_property
    def keys(self) -> SiteKeys:
        """The site's keys."""
        return SiteKeys.open(self.root)

    @cached_property
    def join(self) -> Join:
        """What the site has pinned."""
        return self.keys.joined()

    @property
    def sites(self) -> int:
        """Sites of the federation, this one included; 0 before it has joined."""
        try:
            return 1 + len(self.join.peers)
        except ProtocolError:
            return 0

    @cached_property
    def route(self) -> Route:
        """How the server is reached."""
        return route_to(self.join.address)

    @cached_property
    def handshake(self) -> Handshake | httpx.HTTPError:
        """Whom the site finds at the server's address, or why there was no handshake."""
        try:
            return shake(self.route)
        except httpx.HTTPError as error:
            return error

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """That of the run, or None where its vocabulary is not here."""
        try:
            return vocabulary(self.run.vocabulary)
        except ConfigError:
            return None

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the run's vocabulary; BERT's number where it is not here."""
        return BERT_TOKENS if self.tokenizer is None else len(self.tokenizer.vocab)
