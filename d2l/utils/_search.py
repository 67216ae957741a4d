"""Where a file of data is looked for, in which order, and what is said about it.

1. the cache folder that the caller names: only a file with the right checksum
2. ``D2L_DATA``: one or several folders (separated as in ``PATH``) of data that the user brought,
   each searched at its top and one folder down; a file with the right name and another checksum
   is used, with a warning
3. folders of the system, in the same way
4. the network, unless ``D2L_OFFLINE`` is set; the file goes to the cache folder
5. a sample that ships with the package

One line of the log names the place that was used and those that were tried before it.
"""
from __future__ import annotations

import json
import logging
import os
from typing import NamedTuple

from d2l.utils._fetch import FetchError, fetch
from d2l.utils.files import sha1_of

logger = logging.getLogger('d2l')

SYSTEM_FOLDERS = ('/usr/share/datasets',)
_SAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'samples')


class DataNotFoundError(FileNotFoundError):
    """A file of data is nowhere to be found.  The message says how to bring it."""


class Resource(NamedTuple):
    """A file of data, as it is published.

    ``also`` holds checksums of other files with the same data, such as the same data compressed
    anew.  ``home`` is for a file name that other data have, too: the folder that a file with an
    unknown checksum must lie in to be taken for this one.
    """

    name: str
    filename: str
    sha1: str
    urls: tuple[str, ...]
    also: tuple[str, ...] = ()
    home: str = ''

    @property
    def sha1s(self):
        return frozenset((self.sha1,) + self.also)


class Found(NamedTuple):
    """A file that was found: where, and in which way it differs from the published one."""

    path: str
    origin: str
    differs: str = ''


def locate(resources, cache_dir, title=None, folder=None):
    """Find files that belong together.  Returns one ``Found`` for each resource.

    Samples are used for all of them or for none, so that they fit each other.  ``folder`` names
    a folder that holds the unpacked data already: it is used rather than a sample.  Raises
    ``DataNotFoundError``.
    """
    title = title or resources[0].name
    cache_dir = os.path.expanduser(cache_dir)
    found, trail = {}, []
    for step in (_from_cache, _from_d2l_data, _from_system, _from_network):
        missing = [resource for resource in resources if resource.name not in found]
        if not missing:
            break
        before = len(found)
        reason = step(missing, cache_dir, found)
        if len(found) - before == len(missing):
            reason = 'found'
        elif len(found) > before:
            reason = f'{len(found) - before} found, then {reason}'
        trail.append(f'{_LABELS[step](cache_dir)}: {reason}')
    if len(found) < len(resources):
        if folder is not None and os.path.isdir(folder):
            found = {r.name: Found(folder, 'folder', 'unpacked earlier, from an archive that is '
                                   'not at hand') for r in resources}
        else:
            found = _from_samples(resources)
            if found is None:
                raise DataNotFoundError(_how_to_bring(resources, cache_dir, trail))
    result = [found[resource.name] for resource in resources]
    _tell(title, result, trail)
    return result


def _from_cache(missing, cache_dir, found):
    reasons = []
    for resource in missing:
        path = os.path.join(cache_dir, resource.filename)
        if not os.path.isfile(path):
            reasons.append('not there')
        elif sha1_of(path) in resource.sha1s:
            found[resource.name] = Found(path, 'cache')
        else:
            reasons.append(f'{resource.filename} is there, but its SHA-1 is {sha1_of(path)} and '
                           f'not {resource.sha1}, so it is not trusted')
    return _joined(reasons)


def _from_d2l_data(missing, cache_dir, found):
    folders = [os.path.expanduser(f) for f in os.environ.get('D2L_DATA', '').split(os.pathsep) if f]
    return _from_folders(missing, folders, 'D2L_DATA', found) if folders else 'not set'


def _from_system(missing, cache_dir, found):
    return _from_folders(missing, SYSTEM_FOLDERS, 'system', found)


def _from_folders(missing, folders, origin, found):
    for resource in missing:
        others = []
        for path in _candidates(resource.filename, folders):
            actual = sha1_of(path)
            if actual in resource.sha1s:
                found[resource.name] = Found(path, origin)
                break
            parent = os.path.basename(os.path.dirname(os.path.abspath(path)))
            if not resource.home or parent == resource.home:
                others.append((path, actual))
        else:
            if others:
                path, actual = others[0]
                found[resource.name] = Found(
                    path, origin, f'its SHA-1 is {actual}, the published one {resource.sha1}')
    absent = [folder for folder in folders if not os.path.isdir(folder)]
    return f'no such folder: {", ".join(absent)}' if absent else 'not there'


def _candidates(filename, folders):
    """The files of that name at the top of the folders and one folder down."""
    for folder in folders:
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            continue
        for place in [folder] + [os.path.join(folder, entry) for entry in entries]:
            path = os.path.join(place, filename)
            if os.path.isfile(path) and os.access(path, os.R_OK):
                yield path


def is_offline():
    """Whether ``D2L_OFFLINE`` forbids the network."""
    return os.environ.get('D2L_OFFLINE', '').strip().lower() not in ('', '0', 'false', 'no', 'off')


def _from_network(missing, cache_dir, found):
    if is_offline():
        return 'off (D2L_OFFLINE)'
    for resource in missing:
        target = os.path.join(cache_dir, resource.filename)
        try:
            fetch(resource.urls, target, resource.sha1s)
        except FetchError as error:
            # The others belong to this one: without it they are of no use.
            return '; '.join(error.attempts)
        except OSError as error:
            return f'cannot write to {cache_dir}: {error}'
        found[resource.name] = Found(target, 'network')
    return 'nothing to fetch'


def _from_samples(resources):
    """{name: Found} with a sample for every resource, or None."""
    index = sample_index()
    if not all(resource.name in index for resource in resources):
        return None
    found = {}
    for resource in resources:
        entry = index[resource.name]
        path = os.path.join(_SAMPLES, *entry['file'].split('/'))
        if os.path.basename(path) != resource.filename:
            return None
        if not os.path.isfile(path) or sha1_of(path) != entry['sha1']:
            raise DataNotFoundError(f'{path}, which ships with d2l, is missing or damaged: '
                                    'install d2l anew')
        found[resource.name] = Found(path, 'sample', entry['differs'] or 'complete')
    return found


def sample_index():
    """What ships with the package: {name: {'file', 'sha1', 'differs'}}."""
    with open(os.path.join(_SAMPLES, 'index.json'), encoding='utf-8') as file:
        return json.load(file)


_LABELS = {
    _from_cache: lambda cache_dir: f'cache {cache_dir}',
    _from_d2l_data: lambda cache_dir: 'D2L_DATA',
    _from_system: lambda cache_dir: ', '.join(SYSTEM_FOLDERS) or 'system folders',
    _from_network: lambda cache_dir: 'network',
}
_ORIGINS = {
    'cache': 'the cache',
    'D2L_DATA': 'D2L_DATA',
    'system': "the system's folders",
    'network': 'the network',
    'sample': 'the sample that ships with d2l',
    'folder': 'a folder that was there before',
}


def _tell(title, result, trail):
    """One line: the place used, how it differs, and what was tried."""
    places = {}
    for found in result:
        folder, filename = os.path.split(found.path)
        places.setdefault((folder, found.origin, found.differs), []).append(filename)
    uses = []
    for (folder, origin, differs), filenames in places.items():
        note = f' ({differs})' if differs else ''
        uses.append(f'{_ORIGINS[origin]}{note}, {folder}: {", ".join(filenames)}')
    level = logging.WARNING if any(found.differs for found in result) else logging.INFO
    logger.log(level, '%s: using %s; looked in: %s', title, '; '.join(uses), ' | '.join(trail))


def _how_to_bring(resources, cache_dir, trail):
    lines = []
    for resource in resources:
        lines.append(f'{resource.filename} ({resource.name}) was not found, and no sample of it '
                     'ships with d2l.')
    lines.append('Tried:')
    lines.extend(f'  {step}' for step in trail)
    lines.append('To bring it by hand:')
    for resource in resources:
        target = os.path.abspath(os.path.join(cache_dir, resource.filename))
        lines.append(f'  fetch {resource.urls[0]}')
        lines.append(f'  and save it as {target} (SHA-1 {resource.sha1}),')
        lines.append(f'  or as {resource.filename} in a folder that D2L_DATA names')
    return '\n'.join(lines)


def _joined(reasons):
    return ', '.join(dict.fromkeys(reasons))
