# SPDX-License-Identifier: Apache-2.0
"""A proxy between one client and the broker that forwards frame by frame, so that tests can cut the
connection and hold, change or answer frames."""
import contextlib
import socket
import threading


class FrameProxy:
    """With `refuse`, new connections are closed at once, as if the network were down. Subclasses
    override take(), and what a new connection or a cut changes."""

    def __init__(self, port):
        self.port_of_broker, self.refuse = port, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.sockets = []
        threading.Thread(target=self.serve, daemon=True).start()

    def connected(self):
        """The state with which the frames of a new connection are handled."""
        return None

    def take(self, source, sink, name, frame, link):
        """A frame from `name` ("client" or "broker"). OSError ends the connection. The lock is
        held."""
        sink.sendall(frame)

    def at_cut(self):
        """The lock is held."""

    def serve(self):
        while True:
            try:
                client = self.listener.accept()[0]
                with self.lock:
                    if self.refuse:
                        client.close()
                        continue
                broker = socket.create_connection(("127.0.0.1", self.port_of_broker))
            except OSError:
                return
            with self.lock:
                self.sockets += [client, broker]
                link = self.connected()
            for source, sink, name in ((client, broker, "client"), (broker, client, "broker")):
                threading.Thread(
                    target=self.pass_on, args=(source, sink, name, link), daemon=True
                ).start()

    def pass_on(self, source, sink, name, link):
        try:
            while True:
                head = self.read(source, 4)
                frame = head + self.read(source, int.from_bytes(head, "big"))
                with self.lock:
                    self.take(source, sink, name, frame, link)
        except OSError:
            self.shut(source, sink)

    @staticmethod
    def read(source, count):
        data = b""
        while len(data) < count:
            got = source.recv(count - len(data))
            if not got:
                raise OSError("the end")
            data += got
        return data

    @staticmethod
    def shut(*sockets):
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut(self):
        with self.lock:
            self.at_cut()
            self.shut(*self.sockets)
            self.sockets.clear()

    def close(self):
        self.listener.close()
        self.cut()
