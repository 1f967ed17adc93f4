"""MQTT packets (OASIS MQTT 5), and a broker that a test scripts for what Mosquitto will not do."""

import socket
import threading

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14


def varint(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def take_varint(data, at=0):
    """(value, place behind it), or None while it is incomplete."""
    value = shift = 0
    while at < len(data) and shift < 28:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return None


def packet(first, body=b""):
    return bytes([first]) + varint(len(body)) + body


def text(data):
    data = data.encode() if isinstance(data, str) else data
    return len(data).to_bytes(2, "big") + data


def connect_packet(client_id, keepalive=60, clean=False, session_s=3600, username=None, password=None):
    flags = (2 if clean else 0) | (128 if username else 0) | (64 if password else 0)
    properties = b"\x11" + session_s.to_bytes(4, "big")
    body = text("MQTT") + bytes([5, flags]) + keepalive.to_bytes(2, "big") + varint(len(properties)) + properties + text(client_id)
    return packet(0x10, body + (text(username) if username else b"") + (text(password) if password else b""))


def subscribe_packet(mid, filters, qos=1):
    return packet(0x82, mid.to_bytes(2, "big") + b"\0" + b"".join(text(f) + bytes([qos]) for f in filters))


def publish_packet(topic, payload, mid=1, qos=1):
    return packet(0x30 | qos << 1, text(topic) + (mid.to_bytes(2, "big") if qos else b"") + b"\0" + payload)


def puback_packet(mid, code=0, kind=PUBACK):
    return packet(kind << 4, mid + (bytes([code, 0]) if code else b""))


class Publish:
    """A PUBLISH of MQTT 5; mid as its two bytes."""

    def __init__(self, first, body):
        size = int.from_bytes(body[:2], "big")
        self.qos, self.dup, self.retain = first >> 1 & 3, bool(first & 8), bool(first & 1)
        self.topic, at = body[2:2 + size].decode(), 2 + size
        self.mid = body[at:at + 2] if self.qos else b""
        length, at = take_varint(body, at + len(self.mid))
        self._properties, self.payload = body[at:at + length], body[at + length:]

    def property(self, name):
        """The first user property of that name, or None. Looks only for what the bridge sends."""
        wanted = b"\x26" + text(name)
        at = self._properties.find(wanted)
        if at < 0:
            return None
        at += len(wanted)
        size = int.from_bytes(self._properties[at:at + 2], "big")
        return self._properties[at + 2:at + 2 + size].decode()


class Packets:
    """Bytes in as they come, whole packets out."""

    def __init__(self):
        self.data = bytearray()

    def feed(self, part):
        """Yields (first byte, body)."""
        self.data += part
        at = 0
        while True:
            head = take_varint(self.data, at + 1)
            if head is None or len(self.data) < head[1] + head[0]:
                break
            length, begin = head
            yield self.data[at], bytes(self.data[begin:begin + length])
            at = begin + length
        del self.data[:at]


class ScriptedBroker(threading.Thread):
    """Accepts connections, each in a thread. What it does with them is in serve(), by default answer(): for each PUBLISH outside
    the status topic, by their count from 1, a reason code, or None to hang up."""

    def __init__(self, answer=None, port=0):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.port, self.answer, self.published = self.listener.getsockname()[1], answer, []
        self.connections, self.lock, self._open = 0, threading.RLock(), set()
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self._open.add(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection, number):
        try:
            self.serve(connection, number)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self._open.discard(connection)
            connection.close()

    def packets(self, connection):
        packets = Packets()
        while part := connection.recv(65536):
            yield from packets.feed(part)

    def serve(self, connection, number):
        """One connection, the number-th. When it returns the connection is closed."""
        for first, body in self.packets(connection):
            if not self.handle(connection, first, body):
                return

    def handle(self, connection, first, body):
        """One packet. False: hang up."""
        kind = first >> 4
        if kind == CONNECT:
            connection.sendall(b"\x20\x03\x00\x00\x00")
        elif kind == PINGREQ:
            connection.sendall(b"\xd0\x00")
        elif kind == PUBLISH:
            publish = Publish(first, body)
            if publish.topic.startswith("meowbridge/"):
                connection.sendall(puback_packet(publish.mid))
            else:
                return self.event(connection, publish)
        return kind != DISCONNECT

    def event(self, connection, publish):
        """A PUBLISH of an event. False: hang up."""
        with self.lock:
            self.published.append(publish.topic)
            count = len(self.published)
        code = self.answer(count)
        if code is not None:
            connection.sendall(puback_packet(publish.mid, code))
        return code is not None

    def hang_up(self):
        with self.lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.hang_up()
