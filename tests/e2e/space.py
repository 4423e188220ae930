"""A network of its own for programs under test: a loopback, and a way out that leads nowhere and is watched."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.e2e.deployment import BIN, Started, wait_for

OUT, OUTSIDE = "out", "192.0.2.1"
SETUP = f"""
set -e
ip link set lo up
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6  # else the kernel itself announces the interface
ip link add {OUT} type veth peer name beyond
ip address add 192.0.2.2/24 dev {OUT}
ip link set beyond up
ip link set {OUT} up
ip neighbour add {OUTSIDE} lladdr 02:00:00:00:00:01 dev {OUT} nud permanent
ip route add default via {OUTSIDE}
"""


class Space:
    """A network namespace, and a host name in it; skips the test where none can be made.

    Args:
        place: Folder for what is captured.
        name: Host name of the site inside.
    """

    def __init__(self, place, name):
        self.place, self._watchers = place, []
        needed = ("unshare", "nsenter", "ip", "hostname")
        if missing := [tool for tool in needed if shutil.which(tool) is None]:
            pytest.skip(f"this machine has no {', '.join(missing)}")
        root = os.getuid() == 0
        user = [] if root else ["--map-root-user"]
        self._holder = subprocess.Popen(
            ["unshare", *user, "--net", "--uts", "sleep", "infinity"], stderr=subprocess.DEVNULL
        )
        enter = [] if root else ["--user", "--preserve-credentials"]
        self.enter = (shutil.which("nsenter"), "--target", str(self._holder.pid), *enter, "--net")
        """Stands before a command that is to run inside."""
        self.enter_site = (*self.enter, "--uts")
        """The same under the site's host name."""
        wait_for("namespace", self._made, seconds=10)
        done = subprocess.run(
            [*self.enter_site, "sh", "-c", f"hostname {name}\n{SETUP}"], capture_output=True, text=True
        )
        if done.returncode:
            self.close()
            pytest.skip(f"this machine gives nobody an interface of his own: {done.stderr.strip()}")

    def _made(self):
        if self._holder.poll() is not None:
            pytest.skip("this machine lets nobody make a network namespace")
        return os.readlink(f"/proc/{self._holder.pid}/ns/net") != os.readlink("/proc/self/ns/net")

    def start(self, log, script, *arguments):
        """A script beside this file at work inside, once it has said that it is ready."""
        python = (*self.enter, BIN / "python", "-u", Path(__file__).with_name(script))
        started = Started(self.place / log, *python, *arguments)
        wait_for(lambda: f"{script}: {started.text}", lambda: started.text, seconds=60)
        return started

    def watch(self, interface):
        """Keep every frame that leaves by this interface from now on."""
        self._watchers.append(self.start(f"{interface}.log", "capture.py", interface, self.place / interface))

    def frames(self, interface):
        """What left by this interface until now."""
        content, at = (self.place / interface).read_bytes(), 0
        while at + 4 <= len(content):
            (length,) = struct.unpack_from(">I", content, at)
            yield content[at + 4 : at + 4 + length]
            at += 4 + length

    def stop_watching(self):
        """End the captures; exit codes other than 0 say that one missed a frame."""
        return [watcher.stop() for watcher in self._watchers]

    def close(self):
        """Give everything back."""
        for watcher in self._watchers:
            watcher.stop()
        self._holder.kill()
        self._holder.wait()
