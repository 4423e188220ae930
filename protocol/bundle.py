"""The Flower app bundle of this installation, and a digest that tells whether another bundle is the same code.

The server submits a run with the bundle of its own installation. A site never runs it: it runs what it has installed,
and compares digests so that both ends are known to be of one version.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable

from protocol.errors import BundleError

PACKAGES = ("client", "configs", "mumc_model", "protocol", "server")
SUFFIXES = (".py", ".yaml", ".json")
MOST_BYTES = 64 * 2**20
"""Of all files together, unpacked."""
MOST_FILES = 5000
COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Others may ask for gigabytes of memory before they give a byte."""

_PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "fedmumc"
version = "{version}"
description = "Federated pre-training of the MUMC vision-language model"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedmumc"
fab-include = [{include}]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
hydra-overrides = ""
run-json = ""
resume = false
"""


def installed_bundle() -> bytes:
    """The bundle of the code that is installed here, as `flwr run` would make it."""
    from flwr.cli.build import build_fab_from_files

    found = installed_files()
    patterns = sorted({f'"{name.split("/")[0]}/**/*{_suffix(name)}"' for name in found if name != "pyproject.toml"})
    found["pyproject.toml"] = _PYPROJECT.format(
        version=metadata.version("fedmumc"), include=", ".join(patterns)
    ).encode()
    return bytes(build_fab_from_files(found)[0])


def installed_files() -> dict[str, bytes]:
    """Every source and configuration file of the packages that a run needs, by its path from the root."""
    found: dict[str, bytes] = {}
    for package in PACKAGES:
        _gather(files(package), package, found)
    return found


def code_digest(bundle: bytes) -> str:
    """SHA-256, in hex, over the names and contents of a bundle's files, however they are compressed.

    Raises:
        BundleError: it is no bundle, or larger than any of ours.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            members = archive.infolist()
            if len(members) > MOST_FILES or sum(member.file_size for member in members) > MOST_BYTES:
                raise BundleError(f"the bundle unpacks to more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB")
            if any(member.compress_type not in COMPRESSION for member in members):
                raise BundleError("the bundle is compressed as none of ours is")
            sha = hashlib.sha256()
            for member in sorted(members, key=lambda member: member.filename):
                with archive.open(member) as file:
                    content = hashlib.sha256(file.read(MOST_BYTES + 1)).hexdigest()
                if not member.filename.startswith(".info/"):
                    sha.update(f"{member.filename}\n{content}\n".encode())
            return sha.hexdigest()
    except BundleError:
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError, struct.error) as error:
        raise BundleError("the run's bundle is no zip file that can be read") from error


def installed_digest() -> str:
    """The digest of the code that is installed here."""
    return code_digest(installed_bundle())


def _gather(folder: Traversable, place: str, found: dict[str, bytes]) -> None:
    for entry in folder.iterdir():
        name = f"{place}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            _gather(entry, name, found)
        elif entry.is_file() and entry.name.endswith(SUFFIXES):
            found[name] = entry.read_bytes()


def _suffix(name: str) -> str:
    return "." + name.rsplit(".", 1)[1]
