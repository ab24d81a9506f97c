"""A sandbox server in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from r1kit.net.address import listening
from r1kit.sandbox.server import Service


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """The server's URL."""
    server = service.server()
    with listening("127.0.0.1", 0) as (opened, address):
        thread = threading.Thread(target=server.run_until_stopped, args=[opened])
        thread.start()
        try:
            yield address.rstrip("/")
        finally:
            server.handle_exit(15, None)
            thread.join(60)
    assert not thread.is_alive(), "the server did not end"
    service.threads.shutdown()
