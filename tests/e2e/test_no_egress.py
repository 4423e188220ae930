"""A federation where nothing but the machine itself can be reached: it works, and tries to reach nothing else.

Server and site run in a network namespace whose way out is watched. What the site's programs say to each other in plain
HTTP, and to the server inside TLS, is captured there too, and searched for words that were planted in the site's data.
"""

import struct
from collections import defaultdict
from types import SimpleNamespace

import pytest

from protocol.flower import free_port
from tests.client.test_canaries import CAPTION, FOLDER, HOST, IMAGE, PATIENT, USER, plant, sightings
from tests.e2e.deployment import BIN, Started, call, lines_of, wait_for
from tests.e2e.one_site import ENV, SITE, found, start_server
from tests.e2e.space import OUT, OUTSIDE, Space

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1800)]

RUN = ("experiment=smoke", "model=tiny", "run_id=trial", "pretrain.batch_size=8", "federation.rounds=1")
MORE = ("federation.local_steps=2", "federation.min_sites=1", "federation.round_timeout_s=400")
PROBE = f"""
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"control", ("{OUTSIDE}", 9))
try:
    socket.getaddrinfo("hub.example.invalid", 443)
except OSError:
    pass
"""
NAME_ASKED = b"\x03hub\x07example\x07invalid\x00"
IPV4, TCP, UDP = 0x0800, 6, 17
SYN, ACK = 0x02, 0x10


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A rehearsal and a run, and everything that was on the wire meanwhile."""
    place = tmp_path_factory.mktemp("alone")
    server_port, tap_port = free_port(), free_port()
    federation = found(place, f"127.0.0.1:{tap_port}", port=server_port, sites=FOLDER, plant=plant)
    (place / "tap").mkdir()
    space, started = Space(place, HOST), []
    try:
        for interface in (OUT, "lo"):
            space.watch(interface)
        started.append(space.start("tap.log", "tap.py", tap_port, server_port, federation.hub, place / "tap"))
        started.append(start_server(federation, *space.enter))
        person = (ENV, *(f"{name}={USER}" for name in ("USER", "LOGNAME")), f"HOME=/home/{USER}", f"HOSTNAME={HOST}")
        started.append(
            Started(place / "site.log", *space.enter_site, *person, BIN / "mumc-site", "start", federation.site)
        )
        wait_for(
            lambda: f"rehearsal\n{started[1].text}\n{started[2].text}",
            lambda: [*federation.hub.glob("runs/rehearsal-*/result.json")],
            seconds=500,
        )
        told = call(*space.enter, BIN / "mumc-server", "run", federation.hub, *RUN, *MORE, timeout=900)
        for one in reversed(started):
            one.stop()
        seen = {interface: [*space.frames(interface)] for interface in (OUT, "lo")}
        call(*space.enter, BIN / "python", "-c", PROBE)
        control = [frame for interface, before in seen.items() for frame in [*space.frames(interface)][len(before) :]]
        yield SimpleNamespace(
            federation=federation,
            told=told,
            left=seen[OUT],
            control=control,
            spoken=[path.read_bytes() for path in sorted((place / "tap").iterdir())],
            packets=[packet for frame in seen["lo"] if (packet := Packet.of(frame))],
            ports={"server": server_port, "tap": tap_port, "supernode": supernode_port(started[2].text)},
            missed=space.stop_watching(),
        )
    finally:
        for one in started:
            if one.process.poll() is None:
                one.crash()
        space.close()


def supernode_port(text):
    """Where the SuperNode answers the site's own programs, as the printed command says."""
    return int(text.split(" --port ")[1].split()[0])


class Packet(SimpleNamespace):
    """A TCP segment or UDP datagram."""

    @classmethod
    def of(cls, frame):
        """The packet in an Ethernet frame, or None."""
        (kind,) = struct.unpack_from(">H", frame, 12)
        if kind != IPV4:
            return None
        ip = frame[14:]
        head, protocol = 4 * (ip[0] & 15), ip[9]
        if protocol not in (TCP, UDP):
            return None
        source, target = struct.unpack_from(">HH", ip, head)
        if protocol == UDP:
            return cls(protocol=UDP, source=source, target=target, flags=0, at=0, payload=ip[head + 8 :])
        (at,) = struct.unpack_from(">I", ip, head + 4)
        payload = ip[head + 4 * (ip[head + 12] >> 4) :]
        return cls(protocol=TCP, source=source, target=target, flags=ip[head + 13], at=at, payload=payload)


def streams(packets, port):
    """What was said to a port and by it, one stream of bytes a direction of each connection."""
    pieces = defaultdict(dict)
    for packet in packets:
        if packet.protocol == TCP and port in (packet.source, packet.target) and packet.payload:
            pieces[packet.source, packet.target][packet.at] = packet.payload
    for piece in pieces.values():
        first = next(iter(piece))
        yield b"".join(piece[at] for at in sorted(piece, key=lambda at: (at - first) & 0xFFFFFFFF))


def test_the_site_rehearses_and_takes_part_in_a_run(story):
    replies = [
        (line["stage"], line["answer"])
        for line in lines_of(story.federation.site / "state" / "log.jsonl")
        if line["kind"] == "reply"
    ]
    assert replies == [("train.rehearse", "report"), ("train.pretrain", "report"), ("train.finetune", "report")]
    assert f"| {SITE} | " in story.told


def test_not_one_packet_looks_for_a_way_out(story):
    assert story.left == []
    assert story.missed == [0, 0]


def test_no_name_is_looked_up(story):
    """Some machines have a name service on the loopback, which the way out would not show."""
    assert [packet.target for packet in story.packets if packet.protocol == UDP] == []


@pytest.mark.parametrize("sign", [b"control", NAME_ASKED])
def test_a_packet_or_a_question_for_a_name_would_have_been_seen(story, sign):
    assert any(sign in frame for frame in story.control)


def test_on_the_machine_itself_only_our_own_programs_are_talked_to(story):
    opened = {packet.target for packet in story.packets if packet.flags & (SYN | ACK) == SYN}
    assert opened == set(story.ports.values())


def test_no_planted_word_is_in_what_the_site_tells_the_server(story):
    spoken = b"\0".join(story.spoken)
    assert b"POST /v1/fleet/push-object" in spoken
    assert len(spoken) > 1e6, "the update went this way, as int8"
    assert sightings(spoken) == set()


def test_no_planted_word_is_in_what_the_programs_of_the_site_tell_each_other(story):
    said = b"\0".join(streams(story.packets, story.ports["supernode"]))
    assert b"POST /v1/runtime/push-object" in said
    assert len(said) > 4e6
    assert sightings(said) == set()


def test_no_planted_word_is_in_anything_that_the_server_has(story):
    for path in story.federation.hub.rglob("*"):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        assert (path.name, sightings(content)) == (path.name, set())
    assert sightings(story.told.encode()) == set()


def test_the_words_were_there_to_be_found(story):
    site = story.federation.site
    rows = (site / "captions.jsonl").read_text()
    assert FOLDER in str(site)
    assert all(word in rows for word in (IMAGE, PATIENT, CAPTION))
