"""Sends back what it gets, on the first port that the task was given (EDGERM_PORTS). Says when it listens."""

import os
import re
import socketserver


class Echo(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Until the other side has no more."""
        while data := self.request.recv(4096):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection, none of which keeps the program from its end."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Serve until somebody ends this."""
    port = int(re.split("[-,]", os.environ["EDGERM_PORTS"])[0])
    with Server(("", port), Echo) as server:
        print(port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
