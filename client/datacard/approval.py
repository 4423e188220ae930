"""Whether a person of the site has let the counts of its data, as it is now, leave."""

from pathlib import Path

from client.config import read_site_config
from client.datacard.stamp import FOLDER, PUBLIC, card_state, read_json
from client.keys import SiteKeys
from client.log import site_log_file
from protocol import datacard
from protocol.errors import ProtocolError
from protocol.signing import payload_hash, public_hex


def is_approved(root: Path) -> bool:
    """Whether the card is of the data as it is, and its public part was approved: signed here, and noted in the log.

    Raises:
        DataError, ConfigurationError: the site's files cannot be read.
        LogError, ChainError: nor can its log.
    """
    card = read_json(root)
    if card is None or card_state(root) != "current":
        return False
    try:
        text = (root / FOLDER / PUBLIC).read_text(encoding="utf-8")
        key = public_hex(SiteKeys.open(root).signing())
        facts = datacard.opened(text, read_site_config(root).name, key)
    except (OSError, UnicodeDecodeError, ProtocolError):
        return False
    noted = [entry for entry in site_log_file(root).entries() if entry["kind"] == "card"]
    return bool(noted) and (noted[-1]["leaves"], noted[-1]["data"]) == (payload_hash(facts), card["data"])
