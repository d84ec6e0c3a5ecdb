"""A wire between a client and a server of the tests, that can be slow, go dead or be cut: bytes are held back, no packet is lost."""

import contextlib
import socket
import threading
import time
from pathlib import Path


class Wire:
    """Listens on a port of loopback and passes on to a Unix socket or another port."""

    def __init__(self, target: Path | tuple[str, int]) -> None:
        self.target, self.delay, self.is_dead, self.is_cut = target, 0.0, False, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket, threading.Event]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """What is connected stays so and hears nothing any more; who connects anew is served."""
        for *_, dead in self._pairs:
            dead.set()

    def cut(self) -> None:
        """All connections end, new ones do so at once; until `mend`."""
        self.is_cut = True
        for near, far, _ in self._pairs:
            for end in (near, far):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut, self.delay = False, 0.0

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.socket(socket.AF_UNIX) if isinstance(self.target, Path) else socket.socket()
                far.connect(str(self.target) if isinstance(self.target, Path) else self.target)
            except OSError:
                near.close()
                continue
            dead = threading.Event()
            self._pairs.append((near, far, dead))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink, dead), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self.delay:
                    time.sleep(self.delay)
                if not dead.is_set():
                    sink.sendall(data)
        if not dead.is_set():
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
