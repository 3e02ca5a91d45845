"""Arguments: HOST:PORT of echo servers. Prints for each the median round trip of a byte in ms, or why there is none."""

import socket
import statistics
import sys
import time

ROUNDS = 21
PATIENCE_S = 5.0


def round_trips_ms(host: str, port: int) -> list[float]:
    """On one connection; the first trip is not counted, it may wait for the other side to accept."""
    trips = []
    with socket.create_connection((host, port), PATIENCE_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            line.sendall(b"?")
            if not line.recv(1):
                raise ConnectionError("closed")
            trips.append((time.perf_counter() - begin) * 1000)
    return trips[1:]


def main() -> None:
    """One line for each target."""
    for target in sys.argv[1:]:
        name, _, number = target.rpartition(":")
        try:
            print(target, f"{statistics.median(round_trips_ms(name, int(number))):.3f}", flush=True)
        except OSError as error:
            print(target, f"- {error}", flush=True)


if __name__ == "__main__":
    main()
