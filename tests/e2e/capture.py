"""Every frame that leaves by one interface, kept in a file; run inside a network namespace, until SIGTERM.

python capture.py INTERFACE FILE
"""

import signal
import socket
import struct
import sys

ALL_PROTOCOLS, ANSWERS = 3, 263
"""ETH_P_ALL and SOL_PACKET of Linux."""
STATISTICS, BUFFER = 6, 33
"""PACKET_STATISTICS, and SO_RCVBUFFORCE: none may be dropped while this machine has other things to do."""
LENGTH = struct.Struct(">I")


def main(interface, path):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) as line:
        line.setsockopt(socket.SOL_SOCKET, BUFFER, 256 << 20)
        line.bind((interface, 0))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(dropped(line)))
        with open(path, "wb", buffering=0) as file:
            print("watching", flush=True)
            while True:
                frame, address = line.recvfrom(1 << 18)
                # On the loopback each frame is seen twice: as it leaves, and as it comes.
                if address[2] == socket.PACKET_OUTGOING:
                    file.write(LENGTH.pack(len(frame)) + frame)


def dropped(line):
    """Exit code: whether a frame was missed."""
    return int(struct.unpack("II", line.getsockopt(ANSWERS, STATISTICS, 8))[1] > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
