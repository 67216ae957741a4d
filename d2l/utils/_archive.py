"""Unpack an archive: only plain files and folders, only below the target, and only once.

Understands zip, and tar plain or compressed with gzip, bzip2 or xz.  An archive that holds an
absolute name, a name with ``..``, a link or a device is refused as a whole: nothing of it stays.
"""
import contextlib
import json
import logging
import os
import shutil
import stat
import tarfile
import zipfile
from functools import partial
from typing import NamedTuple

from d2l.utils.files import file_lock, replace_synced, sha1_of
from d2l.utils.progress import bytes_bar

logger = logging.getLogger('d2l')

_TAR_ENDINGS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz')
_ENDINGS = ('.zip',) + _TAR_ENDINGS
_CHUNK = 1 << 20
# A smaller archive is unpacked before a progress bar could be read.
_PROGRESS_BYTES = 20 << 20


class ArchiveError(ValueError):
    """The archive is damaged, or of a kind that cannot be unpacked."""


class UnsafeArchiveError(ArchiveError):
    """The archive would write where it should not, or more than it may."""


class Limits(NamedTuple):
    """How much one archive may unpack to.

    ``ratio`` (unpacked bytes over the archive's bytes) counts only beyond ``ratio_from`` bytes:
    a small file of zeros is no attack.
    """

    bytes: int = 32 << 30
    files: int = 1_000_000
    ratio: float = 250.0
    ratio_from: int = 256 << 20


def ending_of(filename):
    """The archive's ending, such as '.tar.gz', or None for a file that is no archive."""
    lower = filename.lower()
    return next((e for e in sorted(_ENDINGS, key=len, reverse=True) if lower.endswith(e)), None)


def stem_of(filename):
    """The file name without the archive's ending ('x.tar.gz' gives 'x')."""
    ending = ending_of(filename)
    return filename[:-len(ending)] if ending else os.path.splitext(filename)[0]


def require_archive(filename):
    """Raises ``ValueError`` for a file that cannot be unpacked."""
    if ending_of(filename) is None:
        raise ValueError(f'{filename} cannot be unpacked: expected a file that ends in '
                         f'{", ".join(_ENDINGS)}')


def unpacked_from(filename, folder):
    """The SHA-1 of the archive ``filename`` that was unpacked into ``folder``.

    '' if some of its files are gone, None if no archive of that name was unpacked there.
    """
    marker = _read_marker(filename, folder)
    if marker is None:
        return None
    whole = all(_is_there(os.path.join(folder, name), size)
                for name, size in marker['files'].items())
    return marker['sha1'] if whole else ''


def files_of(filename, folder):
    """The files that the archive ``filename`` left in ``folder``, relative to it."""
    marker = _read_marker(filename, folder)
    return sorted(marker['files']) if marker else []


def unpack(archive, folder, limits=None):
    """Unpack ``archive`` into ``folder``.  Returns the names of its files, relative to it.

    The work is done in a hidden folder beside the result, which is then renamed.  A second call
    with the same archive finds the marker and does nothing.  Files that an earlier archive of
    the same name left behind are removed; files of other origin stay.  Safe with several
    processes at once.

    Raises ``ArchiveError`` for a damaged archive and ``UnsafeArchiveError`` for one that leaves
    the folder, holds links or devices, or exceeds ``limits``.
    """
    limits = limits or Limits()
    filename = os.path.basename(archive)
    require_archive(filename)
    os.makedirs(folder, exist_ok=True)

    def on_wait():
        logger.info('%s: waiting for another process that is unpacking it', filename)

    with file_lock(os.path.join(folder, f'.{filename}.lock'), on_wait):
        sha1 = sha1_of(archive)
        if unpacked_from(filename, folder) != sha1:
            earlier = _read_marker(filename, folder)
            work = os.path.join(folder, f'.{filename}.unpacking')
            shutil.rmtree(work, ignore_errors=True)
            os.mkdir(work)
            try:
                with contextlib.ExitStack() as stack:
                    on_bytes = None
                    if os.path.getsize(archive) > _PROGRESS_BYTES:
                        bar = bytes_bar(f'unpacking {filename}', _unpacked_size(archive))
                        on_bytes = stack.enter_context(bar).update
                    files = _extract(archive, work, limits, on_bytes)
                _remove(os.path.join(folder, _marker_name(filename)))
                for name in set(earlier['files'] if earlier else ()) - set(files):
                    _remove(os.path.join(folder, name))
                _move_into(work, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            _write_marker(filename, folder, sha1, files)
        return files_of(filename, folder)


def _unpacked_size(archive):
    """Bytes that will come out, as far as it can be known without unpacking: of zip only."""
    if ending_of(archive) != '.zip':
        return None
    with _reading(os.path.basename(archive)), zipfile.ZipFile(archive) as file:
        return sum(info.file_size for info in file.infolist())


def _extract(archive, work, limits, on_bytes=None):
    """Write the archive's files below ``work``.  Returns {relative name: size}.

    ``on_bytes`` is told the size of each file when it is there.
    """
    read = _zip_members if ending_of(archive) == '.zip' else _tar_members
    budget = _Budget(os.path.basename(archive), os.path.getsize(archive), limits)
    members, files = read(archive), {}
    while True:
        with _reading(budget.archive):
            member = next(members, None)
        if member is None:
            return files
        name, size, source = member
        budget.count_entry()
        parts = _safe_parts(name, budget.archive)
        if not parts:
            continue
        path = os.path.join(work, *parts)
        try:
            os.makedirs(os.path.dirname(path) if source else path, exist_ok=True)
            if source:
                _write_member(path, size, source, budget)
                files['/'.join(parts)] = size
                if on_bytes:
                    on_bytes(size)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise ArchiveError(f'{budget.archive}: {name} is both a file and a folder') from error


def _write_member(path, size, source, budget):
    with _reading(budget.archive):
        reader = source()
    written = 0
    with reader, open(path, 'wb') as writer:
        while True:
            with _reading(budget.archive):
                chunk = reader.read(_CHUNK)
            if not chunk:
                break
            budget.count_bytes(len(chunk))
            writer.write(chunk)
            written += len(chunk)
    if written != size:
        raise ArchiveError(f'{budget.archive} is damaged: {os.path.basename(path)} should have '
                           f'{size} bytes, but {written} came out')


@contextlib.contextmanager
def _reading(archive):
    """Whatever goes wrong inside is the archive's fault.

    The readers of the standard library raise many kinds of error for damaged input.
    """
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:
        raise ArchiveError(f'{archive} is damaged: {error or type(error).__name__}') from error


def _zip_members(archive):
    """Yields (name, size, opener or None for a folder)."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            name = info.filename.replace('\\', '/')
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _not_plain(archive, name, 'a link' if kind == stat.S_IFLNK else 'a device')
            if info.flag_bits & 1:
                raise ArchiveError(f'{os.path.basename(archive)}: {name} needs a password')
            folder = kind == stat.S_IFDIR or name.endswith('/')
            yield name, info.file_size, None if folder else partial(file.open, info)


def _tar_members(archive):
    """Yields (name, size, opener or None for a folder)."""
    with tarfile.open(archive, 'r:*') as file:
        for info in file:
            if not (info.isfile() or info.isdir()):
                link = info.issym() or info.islnk()
                raise _not_plain(archive, info.name, 'a link' if link else 'a device')
            opener = None if info.isdir() else partial(file.extractfile, info)
            yield info.name, info.size, opener
            # tarfile keeps what it has seen; a large archive would fill the memory.
            file.members = []
        # tarfile takes a damaged header for the end.  Reading on also checks gzip's checksum.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(1 << 20)[:tarfile.BLOCKSIZE].strip(b'\0'):
            raise tarfile.ReadError('a member has no valid header')


def _not_plain(archive, name, what):
    return UnsafeArchiveError(f'{os.path.basename(archive)}: {name} is {what}; '
                              'only plain files and folders are unpacked')


def _safe_parts(name, archive):
    """The parts of a member's name.  Refuses a name that leads out of the folder."""
    parts = [part for part in name.split('/') if part not in ('', '.')]
    drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ':'
    if name.startswith('/') or drive or '..' in parts or '\0' in name:
        raise UnsafeArchiveError(f'{archive}: {name!r} leads out of the folder it is unpacked in')
    return parts


class _Budget:
    """Counts what comes out, not what the archive claims."""

    def __init__(self, archive, packed, limits):
        self.archive = archive
        self._packed = max(packed, 1)
        self._limits = limits
        self._bytes = 0
        self._entries = 0

    def count_entry(self):
        self._entries += 1
        if self._entries > self._limits.files:
            raise UnsafeArchiveError(f'{self.archive} holds more than {self._limits.files} files')

    def count_bytes(self, count):
        self._bytes += count
        if self._bytes > self._limits.bytes:
            raise UnsafeArchiveError(
                f'{self.archive} unpacks to more than {self._limits.bytes} bytes')
        if (self._bytes > self._limits.ratio_from
                and self._bytes > self._limits.ratio * self._packed):
            raise UnsafeArchiveError(
                f'{self.archive} unpacks to more than {self._limits.ratio:g} times its size')


def _move_into(work, folder):
    """Move everything below ``work`` into ``folder``; a new folder moves in one step."""
    for entry in sorted(os.listdir(work)):
        source, target = os.path.join(work, entry), os.path.join(folder, entry)
        if os.path.isdir(source) and not os.path.islink(source) and os.path.isdir(target):
            _move_into(source, target)
        else:
            os.replace(source, target)


def _marker_name(filename):
    return f'.{filename}.unpacked.json'


def _read_marker(filename, folder):
    try:
        with open(os.path.join(folder, _marker_name(filename)), encoding='utf-8') as file:
            marker = json.load(file)
        # An archive can hold a file that looks like a marker: believe no name in it.
        files = {'/'.join(_safe_parts(name, filename)): int(size)
                 for name, size in marker['files'].items()}
        return {'sha1': str(marker['sha1']), 'files': files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_marker(filename, folder, sha1, files):
    path = os.path.join(folder, _marker_name(filename))
    with open(path + '.new', 'w', encoding='utf-8') as file:
        json.dump({'sha1': sha1, 'files': files}, file)
    replace_synced(path + '.new', path)


def _is_there(path, size):
    # Readers may edit what they unpacked.  Only a file that lost its content, as after a power
    # failure, counts as missing.
    try:
        return os.path.getsize(path) > 0 or size == 0
    except OSError:
        return False


def _remove(path):
    try:
        os.unlink(path)
    except OSError:
        pass
