"""A run's configuration as everyone may see it, and the digests that name files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.codec import digest, pack
from protocol.schema import WeightSchema
from server.checkpoint import load_arrays
from server.errors import OutputError

Values = dict[str, Any]
SUFFIXES = (".safetensors", ".txt", ".json", ".yaml", ".bin", ".pth", ".pt", ".jsonl")


def public_config(config: Mapping[str, Any]) -> Values:
    """The configuration without what names a place or a site: files go by their SHA-256, sites by their number.

    Public weights that `init` names, such as `vit_base_patch16_224` or `owner/name`, stand as they are.
    """
    federation = {**config["federation"], "only": len(config["federation"]["only"])}
    kept = {name: value for name, value in config.items() if name not in ("output_dir", "run_id", "init", "vocabulary")}
    init = {name: _file(Path(source)) if _is_file(source) else source for name, source in config["init"].items()}
    words = config["vocabulary"] if config["vocabulary"] == "phantom" else _file(Path(config["vocabulary"]))
    return {**_clean(kept | {"federation": federation}), "init": init, "vocabulary": words}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}; check the path") from None


def weights_digest(path: Path) -> str:
    """The digest by which orders and sites' logs name the weights in a file.

    Raises:
        OutputError: the file is missing or damaged.
    """
    weights = load_arrays(path)
    schema = WeightSchema.of(weights)
    return digest(pack(weights, schema), schema)


def _clean(value: Any) -> Any:
    """The same with every text that is a place on a disk replaced by the digest of what lies there."""
    if isinstance(value, Mapping):
        return {name: _clean(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(inner) for inner in value]
    return _file(Path(value)) if isinstance(value, str) and (_is_file(value) or "/" in value) else value


def _is_file(text: str) -> bool:
    """Whether a text names a file rather than public weights."""
    looks = text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text
    return looks or Path(text).suffix in SUFFIXES or ("/" in text and Path(text).exists())


def _file(path: Path) -> str:
    return f"a file, sha256 {sha256_of(path)}" if path.is_file() else "files that are no longer there"
