"""The control channel: who knows the token is heard, others are not, and nobody does harm."""
import pickle
import socket
import threading

import pytest

from d2l.parallel import _control
from d2l.parallel._control import Client, Lines, ProtocolError
from tests.parallel.jobs import ROOT, Served


def is_closed(connection):
    try:
        return connection.recv(1000) == b''
    except ConnectionResetError:
        return True


def test_a_process_with_the_token_is_heard():
    with Served(['worker 0', 'worker 1']) as served:
        clients = [Client(served.address, 'secret', f'worker {i}') for i in range(2)]
        clients[1].send({'type': 'beat', 'text': '\xe9' * 5000})
        clients[0].send({'type': 'leaving'})
        heard = served.wait(4)
        for client in clients:
            client.close()
    assert ('worker 1', {'type': 'beat', 'text': '\xe9' * 5000}) in heard
    assert ('worker 0', {'type': 'leaving'}) in heard
    assert heard.count(('worker 0', {'type': 'connected'})) == 1


@pytest.mark.parametrize('token, name', [('wrong', 'worker 0'), ('', 'worker 0'),
                                         ('secret', 'worker 7'), ('secret', '')])
def test_a_wrong_token_or_name_is_refused(token, name):
    with Served() as served:
        with pytest.raises(ProtocolError, match='token'):
            Client(served.address, token, name)
        assert served.heard == []


def test_a_name_is_given_once():
    with Served() as served:
        first = Client(served.address, 'secret', 'worker 0')
        with pytest.raises(ProtocolError):
            Client(served.address, 'secret', 'worker 0')
        first.send({'type': 'beat'})
        assert served.wait(2)[1] == ('worker 0', {'type': 'beat'})
        first.close()


def test_a_proof_cannot_be_used_again():
    with Served() as served:
        connection, challenge = served.stranger()
        proof = _control._proof('secret', 'process', 'worker 0', (challenge, 'mine'))
        other, _ = served.stranger()
        other.sendall(_control.encode({'name': 'worker 0', 'challenge': 'mine', 'proof': proof}))
        assert is_closed(other)
        other.close()
        connection.close()
        assert served.heard == []


class Harmful:
    """Would write a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('data', [
    b'x' * _control.HELLO_LIMIT, b'{"name": "' + b'x' * _control.HELLO_LIMIT + b'"}\n', b'\0\n',
    b'[]\n', b'7\n', b'\xff\xfe\n', b'{"name": null, "proof": null}\n', b'{"proof": "\xc3\xa9"}\n',
    b'[' * 900 + b'\n'])
def test_what_is_no_proof_closes_the_connection(data):
    with Served() as served:
        connection, _ = served.stranger()
        connection.sendall(data)
        assert is_closed(connection)
        connection.close()
        assert served.heard == []


def test_nothing_is_unpickled(tmp_path):
    with Served() as served:
        connection, _ = served.stranger()
        connection.sendall(pickle.dumps(Harmful(tmp_path / 'harm')) + b'\n')
        assert is_closed(connection)
        connection.close()
    assert not (tmp_path / 'harm').exists()


def test_who_says_nothing_is_forgotten(monkeypatch):
    monkeypatch.setattr(_control, 'PATIENCE', 0.05)
    with Served() as served:
        client = Client(served.address, 'secret', 'worker 0')
        connection, _ = served.stranger()
        assert is_closed(connection)
        connection.close()
        client.send({'type': 'beat'})  # who has proved itself may be silent
        assert len(served.wait(2)) == 2
        client.close()


def test_many_strangers_do_not_keep_a_process_out(monkeypatch):
    monkeypatch.setattr(_control, 'MAX_STRANGERS', 3)
    with Served() as served:
        strangers = [served.stranger()[0] for _ in range(5)]
        Client(served.address, 'secret', 'worker 0').close()
        assert served.wait(1) == [('worker 0', {'type': 'connected'})]
        assert is_closed(strangers[0]) and is_closed(strangers[1])
        for stranger in strangers:
            stranger.close()


def test_a_process_may_not_send_without_end():
    with Served() as served:
        client = Client(served.address, 'secret', 'worker 0')
        with pytest.raises(ProtocolError, match='at most 65536 bytes'):
            client.send({'text': 'x' * _control.LIMIT})
        client._socket.sendall(b'x' * (_control.LIMIT + 1))
        assert is_closed(client._socket)
        client.close()


def test_a_process_notices_an_agent_without_the_token():
    listening = socket.create_server(('127.0.0.1', 0))

    def pretend():
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b'{"challenge": "x"}\n')
            seen.append(connection.recv(1000))
            connection.sendall(b'{"proof": "' + b'0' * 64 + b'"}\n')
    seen = []
    thread = threading.Thread(target=pretend)
    thread.start()
    with pytest.raises(ProtocolError, match='not that of this job'):
        Client('127.0.0.1:{}'.format(listening.getsockname()[1]), 'secret', 'worker 0')
    thread.join()
    listening.close()
    assert b'secret' not in seen[0]


def test_lines_come_in_any_pieces():
    text = _control.encode({'a': 1}) + _control.encode({'b': 'x\ny'})
    for size in (1, 3, 1000):
        lines, found = Lines(), []
        for begin in range(0, len(text), size):
            found += lines.feed(text[begin:begin + size])
        assert found == [{'a': 1}, {'b': 'x\ny'}]


def test_the_limits_are_those_of_the_docs():
    from d2l.parallel import _agent, _serving
    text = (ROOT / 'docs' / 'parallel.md').read_text()
    for who, limit, size in (
            ('proved nothing yet, to its agent', _control.HELLO_LIMIT, '1 KiB'),
            ('a process to its agent', _control.LIMIT, '64 KiB'),
            ('the launcher to an agent, through ssh', _agent.COMMAND_LIMIT, '16 MiB'),
            ('command to a parameter server, JSON', _serving._LONGEST_COMMAND, '16 MiB')):
        number, unit = size.split()
        assert limit == int(number) << {'KiB': 10, 'MiB': 20}[unit]
        assert f'{who} | {size}' in text
    with pytest.raises(ValueError, match='a command must have at most 16777216 bytes'):
        _serving.Updates().command(b' ' * (_serving._LONGEST_COMMAND + 1))
