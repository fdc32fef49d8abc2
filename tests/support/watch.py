"""A process that sends one request again and again, and notes how long each takes.

It imports next to nothing, so that starting and running it take little from what it watches. The
first line of its input is JSON: `[host, method, path, body]`. Every further line is answered with a
line of JSON, `[seconds, statuses]`, of what came since the one before. It ends with its input.
"""

from __future__ import annotations

import json
import select
import sys
import time
from http.client import HTTPConnection, HTTPException

PAUSE_S = 0.02
"""Between two requests."""


def main() -> None:
    orders = open(0, "rb", buffering=0)  # noqa: SIM115 - what is buffered is not waited for
    host, method, path, body = json.loads(orders.readline())
    connection = HTTPConnection(host, timeout=120)
    seconds: list[float] = []
    statuses: list[int] = []
    while True:
        if select.select([orders], [], [], PAUSE_S)[0]:
            if not orders.readline():
                return
            sys.stdout.write(json.dumps([seconds, statuses]) + "\n")
            sys.stdout.flush()
            seconds, statuses = [], []
        began = time.perf_counter()
        statuses.append(_send(connection, method, path, body))
        seconds.append(time.perf_counter() - began)


def _send(connection: HTTPConnection, method: str, path: str, body: str | None) -> int:
    """The status; 0 where there is no answer."""
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        response.read()
    except (HTTPException, OSError):
        connection.close()  # the next request opens another one
        return 0
    return response.status


if __name__ == "__main__":
    main()
