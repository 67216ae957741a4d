"""Fetch one file over HTTP: whole and verified, or not at all.

The body goes to a hidden ``.part`` file beside the target.  The target's name is given only to a
file whose SHA-1 is right.  A broken transfer is resumed, by this process or a later one.

Settings, read from the environment at every call:

- ``D2L_TIMEOUT``: seconds to wait for the server's next bytes (default 30)
- ``D2L_RETRIES``: how often to try again without any progress (default 4)
- ``D2L_PROGRESS``: see ``d2l.utils.progress``
"""
import contextlib
import logging
import os
import random
import re
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from d2l.utils.files import file_lock, replace_synced, sha1_of
from d2l.utils.progress import bytes_bar

logger = logging.getLogger('d2l')

_CHUNK = 1 << 16
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Without a network each address costs its connection timeout.  A host that could not be reached
# is left alone for a while, so that only the first call pays.
_FORGET_SECONDS = 60.0
_unreachable = {}


class FetchError(OSError):
    """No address gave the file.  ``attempts`` holds one line for each address."""

    def __init__(self, attempts):
        super().__init__('; '.join(attempts))
        self.attempts = attempts


class _Refused(Exception):
    """This address will not give the file, however often it is asked."""


class _Broken(Exception):
    """The transfer failed and may work next time; ``wait`` is what the server asked for."""

    def __init__(self, reason, wait=None):
        super().__init__(reason)
        self.wait = wait


class _Unreachable(_Broken):
    """No connection could be made."""


class Policy(NamedTuple):
    """Patience with a server: timeouts and waits in seconds, retries as a count."""

    connect: float = 5.0
    read: float = 30.0
    retries: int = 4
    backoff: float = 1.0
    longest_wait: float = 30.0

    @classmethod
    def from_environment(cls):
        read = _number('D2L_TIMEOUT', cls._field_defaults['read'], float)
        retries = _number('D2L_RETRIES', cls._field_defaults['retries'], int)
        if read <= 0:
            raise ValueError(f'D2L_TIMEOUT must be more than 0 seconds, got {read}')
        if retries < 0:
            raise ValueError(f'D2L_RETRIES must not be negative, got {retries}')
        return cls(connect=min(cls._field_defaults['connect'], read), read=read, retries=retries)

    def wait(self, failures, asked):
        """Seconds to wait after so many failures: doubling, with jitter, within bounds."""
        if asked is not None:
            return min(asked, self.longest_wait)
        return min(self.backoff * 2 ** (failures - 1), self.longest_wait) * random.uniform(0.5, 1.5)


def _number(variable, default, kind):
    text = os.environ.get(variable, '').strip()
    if not text:
        return default
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f'{variable} must be a number, got {text!r}') from None


def fetch(urls, target, sha1s, policy=None):
    """Fetch ``target`` from the first of ``urls`` that gives it with one of the ``sha1s``.

    Nothing is fetched if the file is there already and right.  A file of that name with another
    checksum is replaced, but only by a right one.  When several processes ask at once, one
    fetches and the others wait for it.  Raises ``FetchError`` if no address gives the file, and
    ``OSError`` if it cannot be written.
    """
    policy = policy or Policy.from_environment()
    folder, name = os.path.split(target)
    os.makedirs(folder or '.', exist_ok=True)
    part = os.path.join(folder, f'.{name}.{min(sha1s)[:12]}.part')

    def on_wait():
        logger.info('%s: waiting for another process that is fetching it', name)

    with file_lock(os.path.join(folder, f'.{name}.lock'), on_wait):
        if os.path.isfile(target) and sha1_of(target) in sha1s:
            return
        if os.path.isfile(part) and sha1_of(part) in sha1s:
            replace_synced(part, target)
            return
        attempts = []
        for url in urls:
            reason = _fetch_from(url, part, sha1s, policy, name)
            if reason is None:
                replace_synced(part, target)
                return
            attempts.append(f'{url}: {reason}')
    raise FetchError(attempts)


def _fetch_from(url, part, sha1s, policy, name):
    """Fill ``part`` from one address.  Returns None, or why it could not be done."""
    host = urlsplit(url)[:2]  # https may be blocked where http is not
    since = time.monotonic() - _unreachable.get(host, -_FORGET_SECONDS)
    if since < _FORGET_SECONDS:
        return f'not asked: the host could not be reached {since:.0f} s ago'
    failures, furthest = 0, _size(part)
    while True:
        try:
            resumed = _transfer(url, part, policy, name)
        except _Refused as error:
            return str(error)
        except _Broken as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            allowed = min(1, policy.retries) if isinstance(error, _Unreachable) else policy.retries
            if failures > allowed:
                if isinstance(error, _Unreachable):
                    _unreachable[host] = time.monotonic()
                return f'{error} ({failures} attempts)' if failures > 1 else str(error)
            seconds = policy.wait(failures, error.wait)
            logger.info('%s: %s; trying again in %.1f s', url, error, seconds)
            time.sleep(seconds)
            continue
        actual = sha1_of(part)
        if actual in sha1s:
            return None
        os.unlink(part)
        if not resumed:
            return f'it sent a file with SHA-1 {actual}'
        logger.info('%s: what was there and what came do not fit together; starting anew', url)


def _transfer(url, part, policy, name):
    """One request.  Appends to ``part`` and returns True, or fills it anew and returns False."""
    have = _size(part)
    response = _ask(url, have, policy)
    with contextlib.closing(response):
        resumed = _check_status(response, have, part)
        length = response.headers.get('Content-Length', '')
        expected = int(length) if length.isdigit() else None
        received = 0
        with open(part, 'ab' if resumed else 'wb') as file, \
                bytes_bar(name, expected, have if resumed else 0) as bar:
            for chunk in _chunks(response):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if expected is not None and received < expected:
        raise _Broken(f'the connection ended after {received} of {expected} bytes')
    return resumed


def _ask(url, have, policy):
    import requests
    from urllib3.exceptions import NewConnectionError

    # Without "identity" a server may compress once more what is hashed as it stands.
    headers = {'Accept-Encoding': 'identity'}
    if have:
        headers['Range'] = f'bytes={have}-'
    try:
        return requests.get(url, headers=headers, stream=True,
                            timeout=(policy.connect, policy.read))
    except (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
        raise _Unreachable(_brief(error)) from error
    except requests.exceptions.SSLError as error:
        raise _Refused(f'no secure connection: {_brief(error)}') from error
    except requests.exceptions.ConnectionError as error:
        reason = getattr(error.args[0] if error.args else None, 'reason', None)
        kind = _Unreachable if isinstance(reason, NewConnectionError) else _Broken
        raise kind(_brief(error)) from error
    except requests.exceptions.Timeout as error:
        raise _Broken(f'no answer within {policy.read:g} s') from error
    except (requests.RequestException, ValueError) as error:
        raise _Refused(_brief(error)) from error


def _check_status(response, have, part):
    """True if the body continues ``part``, False if it is the whole file; else raises."""
    status = response.status_code
    if status == 200:
        return False
    if status == 206 and have:
        begin = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
        if begin and int(begin.group(1)) == have:
            return True
    if have and status in (206, 416):
        os.unlink(part)
        raise _Broken('it could not continue the partial file; starting anew', wait=0)
    reason = f'status {status} {response.reason or ""}'.strip()
    if status in _TRANSIENT_STATUS:
        wait = response.headers.get('Retry-After', '')
        raise _Broken(reason, wait=float(wait) if wait.isdigit() else None)
    raise _Refused(reason)


def _chunks(response):
    """The body as it travels.  Only what fails on the network becomes ``_Broken``."""
    from urllib3.exceptions import HTTPError

    stream = response.raw.stream(_CHUNK, decode_content=False)
    while True:
        try:
            chunk = next(stream, None)
        except (HTTPError, OSError) as error:
            raise _Broken(_brief(error)) from error
        if chunk is None:
            return
        yield chunk


def _size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _brief(error):
    """The innermost reason of a nest of network errors, on one line."""
    reason = error
    for _ in range(4):
        inner = getattr(reason, 'reason', None)
        if inner is None and getattr(reason, 'args', None):
            inner = next((arg for arg in reason.args if isinstance(arg, Exception)), None)
        if not isinstance(inner, Exception):
            break
        reason = inner
    text = ' '.join(str(reason).split())
    return f'{type(reason).__name__}: {text}' if text else type(reason).__name__
