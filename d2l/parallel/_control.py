"""The control channel between the processes of a job and the agent that started them.

The agent listens on loopback; what it hears travels on to the launcher through the agent's own
connection.  Both ends prove that they know the job's token, without sending it: the answer to a
challenge is its HMAC-SHA256.  After that a process sends messages: JSON objects, one a line, of
limited length.  Nothing is unpickled, nobody without the token is listened to for long.
"""
import hashlib
import hmac
import json
import secrets
import selectors
import socket
import threading
import time

LIMIT = 1 << 16  # bytes of a message, its end of line included
HELLO_LIMIT = 1 << 10  # of one from somebody who has proved nothing yet
PATIENCE = 5.0  # seconds in which a client has to prove itself
MAX_STRANGERS = 32  # connections that have proved nothing yet


class ProtocolError(Exception):
    """The other side sent what is no message, too long a message, or a wrong proof."""


def encode(message):
    """A message as the bytes of one line.  Raises ProtocolError where it is longer than LIMIT."""
    data = json.dumps(message).encode('ascii') + b'\n'
    if len(data) > LIMIT:
        raise ProtocolError(f'a message must be at most {LIMIT} bytes long, got {len(data)}')
    return data


class Lines:
    """Cuts a stream of bytes into messages."""

    def __init__(self, limit=LIMIT):
        self.limit = limit
        self._rest = b''

    def feed(self, data):
        """Return the messages that `data` completes, a list of dicts."""
        lines = (self._rest + data).split(b'\n')
        self._rest = lines.pop()
        if max(map(len, lines + [self._rest])) >= self.limit:
            raise ProtocolError(f'a message is longer than {self.limit} bytes')
        return [_decode(line) for line in lines]


def _decode(line):
    try:
        message = json.loads(line.decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f'not JSON: {line[:80]!r}') from error
    if not isinstance(message, dict):
        raise ProtocolError(f'not a JSON object: {line[:80]!r}')
    return message


def _proof(token, side, name, challenges):
    text = '\n'.join((side, name, *challenges))
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()


class Client:
    """A process's end.

    address is 'host:port', token the job's secret, name the process's, such as 'worker 0'.  Raises
    OSError where nobody answers within timeout seconds, ProtocolError where the other side does
    not know the token.
    """

    def __init__(self, address, token, name, timeout=10.0):
        host, _, port = address.rpartition(':')
        self._lock = threading.Lock()
        self._lines = Lines(HELLO_LIMIT)
        self._socket = socket.create_connection((host, int(port)), timeout)
        try:
            theirs, ours = str(self._receive().get('challenge')), secrets.token_hex(16)
            self.send({'name': name, 'challenge': ours,
                       'proof': _proof(token, 'process', name, (theirs, ours))})
            expected = _proof(token, 'agent', name, (theirs, ours))
            if not hmac.compare_digest(str(self._receive().get('proof')), expected):
                raise ProtocolError('the control channel is not that of this job')
        except BaseException:
            self._socket.close()
            raise

    def _receive(self):
        messages = []
        while not messages:
            data = self._socket.recv(HELLO_LIMIT)
            if not data:
                raise ProtocolError('the control channel was closed: the token is not that of the '
                                    'job, or the name is taken')
            messages = self._lines.feed(data)
        return messages[0]

    def send(self, message):
        """Send a dict of plain values.  May be called from any thread."""
        data = encode(message)
        with self._lock:
            self._socket.sendall(data)

    def close(self):
        self._socket.close()


class Listener:
    """The agent's end, driven by its selector.

    Messages of the processes called `names` go to deliver(name, message).  Whatever is registered
    with the selector has a function as its data, which is called when there is something to read.
    """

    def __init__(self, selector, token, names, deliver, host='127.0.0.1'):
        self._selector, self._token, self._deliver = selector, token, deliver
        self._absent = set(names)  # those who have not connected yet
        self._strangers = []
        self._socket = socket.create_server((host, 0))
        self._socket.setblocking(False)
        self.address = '{}:{}'.format(host, self._socket.getsockname()[1])
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def _accept(self):
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return  # whoever it was has gone again
        if len(self._strangers) == MAX_STRANGERS:
            self._strangers[0].close()
        self._strangers.append(_Connection(self, connection))

    def tick(self):
        """To be called now and then: forgets clients that say nothing."""
        now = time.monotonic()
        for stranger in list(self._strangers):
            if now > stranger.deadline:
                stranger.close()

    def close(self):
        """Hear nobody any more.  Connections that stand are closed with the process."""
        for stranger in list(self._strangers):
            stranger.close()
        self._selector.unregister(self._socket)
        self._socket.close()


class _Connection:
    """One client of a Listener: first a stranger, then the process that it has proved to be."""

    def __init__(self, listener, connection):
        self._listener, self._socket = listener, connection
        self._challenge = secrets.token_hex(16)
        self._lines, self._name = Lines(HELLO_LIMIT), None
        self.deadline = time.monotonic() + PATIENCE
        connection.setblocking(False)
        listener._selector.register(connection, selectors.EVENT_READ, self._read)
        self._send({'challenge': self._challenge})

    def _send(self, message):
        try:
            self._socket.sendall(encode(message))  # short: the socket's buffer takes it at once
        except OSError:
            pass  # gone; reading will tell

    def _read(self):
        try:
            data = self._socket.recv(LIMIT)
            for message in self._lines.feed(data):
                if self._name is None:
                    self._prove(message)
                else:
                    self._listener._deliver(self._name, message)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            data = b''
        if not data:
            self.close()

    def _prove(self, message):
        listener = self._listener
        name, challenges = str(message.get('name')), (self._challenge,
                                                      str(message.get('challenge')))
        expected = _proof(listener._token, 'process', name, challenges)
        if not hmac.compare_digest(str(message.get('proof')).encode('utf-8', 'replace'),
                                   expected.encode()) or name not in listener._absent:
            raise ProtocolError('wrong proof, or a name that is not expected')
        listener._absent.discard(name)
        listener._strangers.remove(self)
        self._name, self._lines = name, Lines()
        self._send({'proof': _proof(listener._token, 'agent', name, challenges)})
        listener._deliver(name, {'type': 'connected'})

    def close(self):
        if self in self._listener._strangers:
            self._listener._strangers.remove(self)
        if self._socket.fileno() >= 0:
            self._listener._selector.unregister(self._socket)
            self._socket.close()
