"""Folders, checksums, locks, and files that appear whole or not at all."""
import contextlib
import fcntl
import functools
import hashlib
import os
import time

# A checksum is remembered only for a file that has been left alone for this long: a younger one
# could change again within one tick of the file system's clock and keep its size.
_SETTLED_SECONDS = 2.0


def mkdir_if_not_exist(path):
    """Make a folder and its parents, unless they are there already.

    ``path`` is one path, or a list or tuple of parts that are joined.  Several processes may
    call it at once.  Raises ``FileExistsError`` where a file stands in the way.  Book section 2.2.
    """
    if isinstance(path, (list, tuple)):
        if not path:
            raise ValueError('mkdir_if_not_exist: path must have at least one part, got none')
        path = os.path.join(*path)
    os.makedirs(path, exist_ok=True)


@contextlib.contextmanager
def open_text(path, encoding='utf-8', newline=None):
    """A text file to read, closed at the end of the ``with`` block.

    Raises ``ValueError`` with the path where the content is not UTF-8.
    """
    with open(path, encoding=encoding, newline=newline) as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f'{path} is not UTF-8: {error}') from error


def sha1_of(path):
    """The SHA-1 of a file's content, as 40 hexadecimal digits.

    A file that has not changed since it was last asked about is not read again.
    """
    stat = os.stat(path)
    key = (os.path.realpath(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if time.time() - stat.st_mtime < _SETTLED_SECONDS:
        return _read_sha1(key[0])
    return _remembered_sha1(key)


@functools.lru_cache(maxsize=512)
def _remembered_sha1(key):
    return _read_sha1(key[0])


def _read_sha1(path):
    digest = hashlib.sha1()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            digest.update(chunk)
    return digest.hexdigest()


def replace_synced(source, target):
    """Give a finished file its name: flushed to the disk first, then renamed in one step.

    After a crash ``target`` is the old file or the new one, never a half of either.  Both paths
    must lie on one file system.
    """
    with open(source, 'rb') as file:
        os.fsync(file.fileno())
    os.replace(source, target)
    folder = os.open(os.path.dirname(os.path.abspath(target)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def file_lock(path, on_wait=None):
    """Hold the lock file ``path``: one holder at a time among all threads and processes.

    The kernel frees the lock when its holder ends, however it ends, so nobody waits for the
    dead.  ``on_wait`` is called once if another holder is in the way.  The file is removed at
    the end.
    """
    descriptor = _acquire(path, on_wait)
    try:
        yield
    finally:
        # Removed while the lock is held: see _acquire for those who have it open already.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _acquire(path, on_wait):
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None and not told:
                    on_wait()
                    told = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The holder before us removed the file: ours is a lock that nobody else can see.
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor, path):
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
