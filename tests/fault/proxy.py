"""A TCP proxy that does to a connection what networks do: swallow, slow down, cut off."""

import select
import socket
import threading
import time

UP, DOWN = "up", "down"  # from the client to the server, and back


class Link:
    """One connection through the proxy. What is swallowed stays swallowed: the bytes behind it would make no sense."""

    def __init__(self, client, server):
        self.ends = {UP: (client, server), DOWN: (server, client)}
        self.swallowed = set()
        self.over = False

    def close(self, reset=False):
        self.over = True
        for end, _ in self.ends.values():
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            try:
                end.shutdown(socket.SHUT_RDWR) if not reset else None
            except OSError:
                pass
            end.close()


class Proxy(threading.Thread):
    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.lock, self.links = target, threading.Lock(), []
        self.rate = None  # bytes a second and direction
        self.swallow_new = set()  # directions that new connections lose at once
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open_gate, self.stopping = threading.Event(), False
        self.open_gate.set()
        self.start()

    # --- what a scenario asks for ---

    def shut(self):
        """From now on connections are closed as soon as they come; those that are there are cut off."""
        self.open_gate.clear()
        self.cut()

    def open(self, target=None):
        self.target = target or self.target
        self.open_gate.set()

    def swallow(self, *directions, new=False):
        """Nothing more arrives in these directions, and nobody is told."""
        with self.lock:
            for link in self.links:
                link.swallowed.update(directions)
            self.swallow_new = set(directions) if new else set()

    def cut(self, reset=False):
        with self.lock:
            links, self.links = self.links, []
        for link in links:
            link.close(reset)

    def count(self):
        with self.lock:
            return len(self.links)

    def close(self):
        self.stopping = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.cut()

    # --- the work ---

    def run(self):
        while not self.stopping:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.open_gate.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            link = Link(client, server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setblocking(True)
            with self.lock:
                link.swallowed = set(self.swallow_new)
                self.links.append(link)
            for direction in (UP, DOWN):
                threading.Thread(target=self._pump, args=(link, direction), daemon=True).start()

    def _pump(self, link, direction):
        source, sink = link.ends[direction]
        try:
            while not link.over:
                rate = self.rate
                if direction in link.swallowed and direction == UP:
                    # Not even read: the sender's buffers fill, as where packets get lost.
                    time.sleep(0.02)
                    continue
                readable, _, _ = select.select([source], [], [], 0.5)
                if not readable:
                    continue
                data = source.recv(max(1, rate // 20) if rate else 65536)
                if not data:
                    break
                if direction in link.swallowed:
                    continue
                sink.sendall(data)
                if rate:
                    time.sleep(len(data) / rate)
        except (OSError, ValueError):
            pass
        if link.swallowed:  # whoever closed is not heard of at the other end
            return
        with self.lock:
            if link in self.links:
                self.links.remove(link)
        link.close()
