"""The files of checkpoints: a folder of zip archives, step-00000120.npz and so on.

An archive holds arrays in NumPy's format (numpy.load reads it), bytes, and ``state.json``, which
names every other member.  The CRC-32 of each member is checked when it is read.  Nothing here
knows MXNet.
"""
import contextlib
import errno
import io
import json
import os
import re
import shutil
import zipfile
import zlib

import numpy

from d2l.utils.files import replace_synced

FORMAT = 1

_STATE = 'state.json'
_NAME = re.compile(r'step-(\d{8,})\.npz$')
_TEMPORARY = re.compile(r'step-\d+\.npz\.part$')
_CHUNK = 1 << 20


class DamagedError(Exception):
    """A file that is not what was written."""


def path_of(folder, step):
    """Return the path of the checkpoint of a step."""
    return os.path.join(folder, 'step-{:08d}.npz'.format(step))


def steps_in(folder):
    """Return the steps that a folder has checkpoints of, in ascending order."""
    with contextlib.suppress(FileNotFoundError):
        matches = (_NAME.match(name) for name in os.listdir(folder))
        return sorted(int(match.group(1)) for match in matches if match)
    return []


def write(path, state, members):
    """Write an archive: it is there whole, with its name, or not at all.

    state is what goes into JSON; members a dict from names to bytes, numpy arrays and others with
    asnumpy().  Raises OSError.
    """
    part = path + '.part'
    try:
        with open(part, 'wb') as file, zipfile.ZipFile(file, 'w', allowZip64=True) as archive:
            for name, value in members.items():
                _write_member(archive, name, value)
            state = dict(state, format=FORMAT, members=sorted(members))
            _write_member(archive, _STATE, json.dumps(state).encode())
        replace_synced(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _write_member(archive, name, value):
    info = zipfile.ZipInfo(name)  # without the time of day: equal content, equal file
    value = value.asnumpy() if hasattr(value, 'asnumpy') else value
    with archive.open(info, 'w', force_zip64=True) as member:
        if isinstance(value, numpy.ndarray):
            value = numpy.asarray(value, order='C')
            numpy.lib.format.write_array_header_1_0(
                member, numpy.lib.format.header_data_from_array_1_0(value))
            value = value.reshape(-1).view('uint8') if value.size else b''
        # In pieces, which the checksum and the file take without Python's lock.
        view = memoryview(value)
        for begin in range(0, len(view), _CHUNK):
            member.write(view[begin:begin + _CHUNK])


def read(path):
    """Read an archive: return (state, members, digest), members as numpy arrays and bytes.

    path is that of a file, or an open file.
    digest is an integer below 2**32 that tells two checkpoints apart.  Raises DamagedError for a
    file that is cut off, changed, lacks a member or cannot be read; FileNotFoundError and
    PermissionError as they are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            state = json.loads(archive.read(_STATE).decode())
            if state['format'] != FORMAT:
                raise ValueError('its format is {}, not {}'.format(state['format'], FORMAT))
            members = {name: _read_member(archive, name) for name in state['members']}
            checksums = sorted((info.filename, info.CRC) for info in archive.infolist())
            return state, members, zlib.crc32(repr(checksums).encode())
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    # Whatever makes no sense ends in one of a dozen exceptions of zipfile, numpy and json.
    except Exception as error:
        raise DamagedError('{}: {}'.format(type(error).__name__, error)) from error


def _read_member(archive, name):
    data = archive.read(name)
    if not name.endswith('.npy'):
        return data
    file = io.BytesIO(data)
    array = numpy.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError('{} is too long'.format(name))
    return array


def require_space(folder, needed):
    """Raise OSError unless a folder's disk has room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        text = 'a checkpoint takes {:.1f} MB, the disk has {:.1f} MB left'
        raise OSError(errno.ENOSPC, text.format(needed / 1e6, free / 1e6), folder)


def prune(folder, step, keep):
    """Remove all but `keep` checkpoints: that of `step` and the last ones before it."""
    older = [other for other in steps_in(folder) if other < step]
    for other in older[:max(0, len(older) + 1 - keep)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path_of(folder, other))


def remove_parts(folder):
    """Remove what writers that were killed have left."""
    for name in os.listdir(folder):
        if _TEMPORARY.match(name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))


def set_aside(path):
    """Give a damaged checkpoint another name, so that it is neither counted nor tried again."""
    with contextlib.suppress(OSError):
        os.replace(path, path + '.damaged')
