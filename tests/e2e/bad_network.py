"""A hospital's line on a bad day: stands in the server's place, opens nothing, and passes on what comes.

python bad_network.py PORT SERVER_PORT CUT_AFTER

All is passed on at once until SIGUSR1. From then on the line carries 4 Mbit/s each way, and one segment in twenty is
200 ms late, with all that follows it on its connection: that is what a lost segment is to TCP, which sends it again
after such a time and delivers in order. The first connection that has sent CUT_AFTER bytes since the signal cuts the
line: every connection is reset at once, whatever is under way, and for DOWN_S seconds new ones are too.

Each event is a line of JSON on the output; the last one, at SIGTERM, has the counts since the signal.
"""

import asyncio
import contextlib
import json
import random
import signal
import socket
import struct
import sys
import time

LOOPBACK = "127.0.0.1"
BYTES_PER_S = 4e6 / 8
LOST, LATE_S = 0.05, 0.2
SEGMENT = 1460
"""Bytes of a segment on Ethernet."""
WINDOW = 128
"""Segments on their way in one direction of a connection; what lies beyond waits at its sender."""
DOWN_S = 3.0
RESET = struct.pack("ii", 1, 0)
"""A socket that lingers for no time ends with a reset."""


class Line:
    """The one line of a site: what it does to segments, its connections, and what it has counted."""

    def __init__(self, cut_after):
        self.bad = self.cut = False
        self.down_until = 0.0
        self.connections = []
        self.counts = {"up": 0, "down": 0, "segments": 0, "late": 0}
        self._cut_after = cut_after
        self._free_at = {"up": 0.0, "down": 0.0}
        # Which segments are lost is fixed, so that one trial is much like the other.
        self._chance = random.Random(0)

    def turn_bad(self):
        self.bad = True
        say("bad")

    async def carry(self, way, segment):
        """Wait for the segment's turn on the line; when it arrives."""
        self._free_at[way] = max(self._free_at[way], time.monotonic()) + len(segment) / BYTES_PER_S
        await asyncio.sleep(self._free_at[way] - time.monotonic())
        late = self._chance.random() < LOST
        self.counts[way] += len(segment)
        self.counts["segments"] += 1
        self.counts["late"] += late
        return time.monotonic() + (LATE_S if late else 0.0)

    def count(self, connection, segment):
        """Add up what a connection has sent, and cut the line when it is in the middle of something long."""
        connection.sent += len(segment)
        if not self.cut and connection.sent >= self._cut_after:
            self.cut, self.down_until = True, time.monotonic() + DOWN_S
            say("cut", sent=connection.sent, connections=len(self.connections), **self.counts)
            self.reset()

    def reset(self):
        for connection in self.connections:
            connection.reset()


class Connection:
    """One connection of the site, and ours to the server in its name."""

    def __init__(self, *writers):
        self.sent = 0
        self._writers = writers

    def reset(self):
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


async def pour(line, connection, way, source, target):
    """Pass on in order until either end closes, no segment before its time."""
    under_way = asyncio.Queue(WINDOW)
    delivery = asyncio.create_task(deliver(under_way, target))
    with contextlib.suppress(OSError):
        while segment := await source.read(SEGMENT if line.bad else 1 << 16):
            arrives = await line.carry(way, segment) if line.bad else 0.0
            await under_way.put((arrives, segment))
            if line.bad and way == "up":
                line.count(connection, segment)
    await under_way.put(None)
    await delivery
    target.close()


async def deliver(under_way, target):
    """Hand over what arrives; what comes after a connection has ended is dropped."""
    while arrival := await under_way.get():
        arrives, segment = arrival
        await asyncio.sleep(arrives - time.monotonic())
        if not target.is_closing():
            with contextlib.suppress(OSError):
                target.write(segment)
                await target.drain()


def narrow(socket_):
    """A socket whose buffer takes in little, so that a sender is as far as the line is."""
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    return socket_


async def main(port, server_port, cut_after):
    line, over, loop = Line(cut_after), asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, line.turn_bad)
    loop.add_signal_handler(signal.SIGTERM, over.set)

    async def accept(from_site, to_site):
        """One connection."""
        if time.monotonic() < line.down_until:
            Connection(to_site).reset()
            return
        there = narrow(socket.create_connection((LOOPBACK, server_port)))
        from_server, to_server = await asyncio.open_connection(sock=there, limit=1 << 16)
        connection = Connection(to_site, to_server)
        line.connections.append(connection)
        await asyncio.gather(
            pour(line, connection, "up", from_site, to_server), pour(line, connection, "down", from_server, to_site)
        )
        line.connections.remove(connection)

    listener = narrow(socket.create_server((LOOPBACK, port)))
    server = await asyncio.start_server(accept, sock=listener, limit=1 << 16)
    say("listening")
    await over.wait()
    server.close()
    say("end", **line.counts)
    line.reset()


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
