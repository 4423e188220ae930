"""Python and the packages that fedmumc needs."""

import platform
import re
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from client.preflight.case import Case
from client.preflight.finding import Finding, failed, passed
from protocol.bundle import installed_digest

PACKAGE = "fedmumc"


def python(case: Case) -> Finding:
    """The version of Python, against what the package declares."""
    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    version = platform.python_version()
    if not SpecifierSet(wanted).contains(re.split(r"[^0-9.]", version)[0]):
        return failed(f"this is Python {version}, and fedmumc needs {wanted}", "install it under a newer Python")
    return passed(f"{version} on {platform.system()} {platform.machine()}, {sys.maxsize.bit_length() + 1} bit")


def packages(case: Case) -> Finding:
    """The versions of every package that fedmumc declares to need, and the code that the server has to have too."""
    needed = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    wrong = [
        f"{requirement.name} {found or 'missing'} (needs {requirement.specifier})"
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if not ((found := _version(requirement.name)) and requirement.specifier.contains(found, prereleases=True))
    ]
    if wrong:
        return failed(", ".join(wrong), "install fedmumc again, with its constraints.txt")
    shown = ", ".join(f"{name} {_version(name)}" for name in ("flwr", "torch", "cryptography"))
    return passed(f"fedmumc {_version(PACKAGE)}, code {installed_digest()[:16]}, {shown}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
