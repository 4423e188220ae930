import shutil
from importlib import metadata
from types import SimpleNamespace

import torch

from client.preflight import machine, software


def test_a_package_that_is_too_old_or_missing_is_named(site, monkeypatch):
    assert site.find("packages").status == "pass"
    real = metadata.version

    def version(name):
        if name == "opacus":
            raise metadata.PackageNotFoundError(name)
        return "1.2.0" if name == "flwr" else real(name)

    monkeypatch.setattr(software.metadata, "version", version)
    found = site.find("packages")
    assert (found.status, found.what) == ("fail", "flwr 1.2.0 (needs <1.42,>=1.41), opacus missing (needs >=1.6)")
    assert found.remedy == "install fedmumc again, with its constraints.txt"


def test_a_python_that_is_too_old_is_named(site, monkeypatch):
    assert site.find("python").status == "pass"
    monkeypatch.setattr(software.platform, "python_version", lambda: "3.9.18+")
    needed = metadata.metadata("fedmumc")["Requires-Python"]
    assert site.find("python").what == f"this is Python 3.9.18+, and fedmumc needs {needed}"


def test_a_device_that_is_not_here_fails_and_a_missing_accelerator_is_a_warning(site, monkeypatch):
    assert site.find("device").status == "pass"
    site.set(device="cuda:7")
    del site.asked
    if not torch.cuda.is_available():
        assert site.find("device").what == "the device 'cuda:7' is not here"
        site.set(device="auto")
        del site.asked
        monkeypatch.setattr(machine, "ACCELERATORS", ())
        assert site.find("device").what.endswith("cores: no accelerator")
        monkeypatch.setattr(machine, "ACCELERATORS", ("/dev/null",))
        found = site.find("device")
        assert (found.status, "and torch" in found.what) == ("warn", True)


def test_an_accelerator_is_told_with_its_free_memory(site, monkeypatch):
    monkeypatch.setattr(machine, "choose_devices", lambda name, processes: (torch.device("cuda"),) * processes)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    found = site.find("device")
    assert (found.status, found.what) == ("warn", "H100 in fp32, 10.0 GiB of 80.0 GiB free")
    assert found.remedy == "see with nvidia-smi what else uses it"


def test_too_little_memory_and_disk_are_told_with_numbers(site, monkeypatch):
    assert site.find("memory").status == "pass"
    monkeypatch.setattr(machine, "_main_memory", lambda: (512 << 20, 8 << 30))
    assert (site.find("memory").status, site.find("memory").what) == ("warn", "512 MiB of 8.0 GiB available")
    site.limit(memory_gib=4)
    del site.asked
    assert site.find("memory").what == "512 MiB of 8.0 GiB available, 4.0 GiB for an order"
    assert site.find("disk").status == "pass"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    found = site.find("disk")
    assert (found.status, found.what) == ("fail", "1 MiB free; the run needs up to 1.0 GiB")
