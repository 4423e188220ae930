"""What a site sends to its server, in clear: stands in the server's place with its certificate, and passes all on.

python tap.py PORT SERVER_PORT HUB FOLDER
"""

import asyncio
import contextlib
import itertools
import ssl
import sys
from pathlib import Path

LOOPBACK = "127.0.0.1"


async def main(port, server_port, hub, folder):
    keys = Path(hub) / "keys"
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(keys / "server.crt", keys / "server.key")
    there = ssl.create_default_context(cafile=keys / "ca.crt")
    numbers = itertools.count()

    async def tap(from_site, to_site):
        """One connection: what the site says is a file."""
        from_server, to_server = await asyncio.open_connection(LOOPBACK, server_port, ssl=there)
        with (Path(folder) / f"connection-{next(numbers)}").open("wb", buffering=0) as file:
            await asyncio.gather(pour(from_site, to_server, file), pour(from_server, to_site))

    async with await asyncio.start_server(tap, LOOPBACK, port, ssl=here) as listener:
        print("listening", flush=True)
        await listener.serve_forever()


async def pour(source, target, file=None):
    """Pass on until either end closes."""
    with contextlib.suppress(OSError), contextlib.closing(target):
        while content := await source.read(1 << 16):
            if file:
                file.write(content)
            target.write(content)
            await target.drain()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
