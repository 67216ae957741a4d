"""The book's data: names, addresses and checksums, and how to get at the files.

``DATA_HUB`` maps a name to ``(url, sha1)``; readers add to it.  ``MIRRORS`` maps a name to other
addresses of the same file.  Files are looked for in the order of ``d2l.utils._search``: the cache
folder, ``D2L_DATA``, the system's folders, the network (unless ``D2L_OFFLINE=1``), and a sample
that ships with the package.  The use of a sample is always logged as a warning.
Book section 4.10.
"""
import difflib
import logging
import os
import re
from urllib.parse import unquote, urlsplit

from d2l.utils import _archive
from d2l.utils._archive import ArchiveError, UnsafeArchiveError
from d2l.utils._search import DataNotFoundError, Resource, locate, sample_index

__all__ = [
    'DATA_HUB',
    'DATA_URL',
    'MIRRORS',
    'ArchiveError',
    'DataNotFoundError',
    'Resource',
    'UnknownDataError',
    'UnsafeArchiveError',
    'download',
    'download_all',
    'download_extract',
    'locate',
    'resource',
]

logger = logging.getLogger('d2l')

DATA_URL = 'https://d2l-data.s3-accelerate.amazonaws.com/'

# Beside the folder that the reader works in.
DEFAULT_CACHE = os.path.join('..', 'data')

# The same storage bucket by its plain address.
_PLAIN_DATA_URL = 'https://d2l-data.s3.amazonaws.com/'

_DATA_URL_FILES = {
    'kaggle_house_train': ('kaggle_house_pred_train.csv',
                           '585e9cc93e70b39160e7921475f9bcd7d31219ce'),
    'kaggle_house_test': ('kaggle_house_pred_test.csv',
                          'fa19780a7b011d9b009e8bff8e99922a8ee2eb90'),
    'time_machine': ('timemachine.txt', '090b5e7e70c295757f55df93cb0a180b9691891a'),
    'fra-eng': ('fra-eng.zip', '94646ad1522d915e7b0f9296181140edcf86a4f5'),
    'airfoil': ('airfoil_self_noise.dat', '76e5be1548fd8222e5074cf0faae75edff8cf93f'),
    'hotdog': ('hotdog.zip', 'fba480ffa8aa7e0febbb511d181409f899b9baa5'),
    'bananas': ('bananas.zip', 'aadfd1c4c5d7178616799dd1801c9a234ccdaf19'),
    'voc2012': ('VOCtrainval_11-May-2012.tar', '4e443f8a2eca6b1dac8a6c57641b67dd40621a49'),
    'cifar10_tiny': ('kaggle_cifar10_tiny.zip', '2068874e4b9a9f0fb07ebe0ad2b29754449ccacd'),
    'dog_tiny': ('kaggle_dog_tiny.zip', '0cb91d09b814ecdc07b50f31f8dcad3e81d6a86d'),
    'ptb': ('ptb.zip', '319d85e578af0cdc590547f26231e4e31cdf1e42'),
    'glove.6b.50d': ('glove.6B.50d.zip', '0b8703943ccdb6eb788e6f091b8946e82231bc4d'),
    'glove.6b.100d': ('glove.6B.100d.zip', 'cd43bfb07e44e6f27cbcc7bc9ae3d80284fdaf5a'),
    'glove.42b.300d': ('glove.42B.300d.zip', 'b5116e234e9eb9076672cfeabf5469f3eec904fa'),
    'wiki.en': ('wiki.en.zip', 'c1816da3821ae9f43899be655002f6c723e91b88'),
    'ctr': ('ctr.zip', 'e18327c48c8e8e5c23da714dd614e390d369843f'),
    'bert.base': ('bert.base.zip', '7b3820b35da691042e5d34c0971ac3edbd80d3f4'),
    'bert.small': ('bert.small.zip', 'a4e718a47137ccd1809c9107ab4f5edd317bae2c'),
    'pokemon': ('pokemon.zip', 'c065c0e2593b8b161a2d7873e42418bf6a21106c'),
}

DATA_HUB = {name: (DATA_URL + file, sha1) for name, (file, sha1) in _DATA_URL_FILES.items()}
DATA_HUB.update({
    'wikitext-2': ('https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip',
                   '3c914d17d80b1459be871a5039ac23e752a53cbe'),
    'aclImdb': ('https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz',
                '01ada507287d82875905620988597833ad4e0903'),
    'SNLI': ('https://nlp.stanford.edu/projects/snli/snli_1.0.zip',
             '9fcde07509c7e87ec61c640c1b2753d9041758e4'),
    'ml-100k': ('https://files.grouplens.org/datasets/movielens/ml-100k.zip',
                'cd4dcac4241c8a4ad7badc7ca635da8a69dddb83'),
})

MIRRORS = {name: (_PLAIN_DATA_URL + file,) for name, (file, _) in _DATA_URL_FILES.items()}
# The addresses of the book: plain http, for networks where the secure ones fail.  The checksum
# guards the content either way.
MIRRORS.update({
    'aclImdb': ('http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz',),
    'ml-100k': ('http://files.grouplens.org/datasets/movielens/ml-100k.zip',),
})


class UnknownDataError(KeyError):
    """No entry of ``DATA_HUB`` has that name."""

    def __str__(self):
        # KeyError would show the message in quotes.
        return self.args[0]


def resource(name):
    """The ``DATA_HUB`` entry ``name`` as a ``Resource``, with its mirrors.

    Raises ``UnknownDataError`` for an unknown name and ``ValueError`` for a malformed entry.
    """
    if name not in DATA_HUB:
        raise UnknownDataError(_unknown(name))
    entry = DATA_HUB[name]
    if not (isinstance(entry, (tuple, list)) and len(entry) == 2
            and all(isinstance(part, str) for part in entry)):
        raise ValueError(f'DATA_HUB[{name!r}] must be (url, sha1), got {entry!r}')
    url, sha1 = entry
    if not re.fullmatch('[0-9a-fA-F]{40}', sha1):
        raise ValueError(f'DATA_HUB[{name!r}]: sha1 must have 40 hexadecimal digits, got {sha1!r}')
    filename = unquote(urlsplit(url).path.rsplit('/', 1)[-1])
    if not filename.strip('.') or '/' in filename or '\0' in filename:
        raise ValueError(f'DATA_HUB[{name!r}]: url must end in a file name, got {url!r}')
    return Resource(name, filename, sha1.lower(), (url,) + tuple(MIRRORS.get(name, ())))


def _unknown(name):
    by_lower = {known.lower(): known for known in DATA_HUB}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)
    if near:
        hint = 'did you mean ' + ' or '.join(repr(by_lower[match]) for match in near) + '?'
    else:
        hint = 'it has ' + ', '.join(sorted(by_lower.values(), key=str.lower))
    return f'DATA_HUB has no entry {name!r}; {hint}'


def download(name, cache_dir=DEFAULT_CACHE):
    """Get the file of a ``DATA_HUB`` entry.  Returns its path.

    A file that the network gives is kept in ``cache_dir``; one that lies elsewhere is used where
    it lies.  Its SHA-1 has been checked; the exceptions, files from ``D2L_DATA`` or the system
    that differ from the published one and reduced samples, are logged as a warning.

    Raises ``UnknownDataError`` (a ``KeyError``) for an unknown name, and ``DataNotFoundError`` (an
    ``OSError``), which says how to bring the file by hand, if it is nowhere.  Book section 4.10.
    """
    return locate([resource(name)], cache_dir)[0].path


def download_extract(name, folder=None, cache_dir=DEFAULT_CACHE):
    """Get the archive of a ``DATA_HUB`` entry and unpack it.  Returns the path of the data.

    The archive is unpacked into ``cache_dir``, once: a second call finds it done.  The result is
    ``cache_dir/folder``; without ``folder`` the name of the archive without its ending.

    Raises what ``download`` raises, ``ValueError`` for a file that is neither zip nor tar or does
    not hold the folder, and ``ArchiveError`` or ``UnsafeArchiveError`` for an archive that is
    damaged, leaves its folder, or holds links.  Book section 4.10.
    """
    item = resource(name)
    _archive.require_archive(item.filename)
    cache_dir = os.path.expanduser(cache_dir)
    target = os.path.join(cache_dir, folder or _archive.stem_of(item.filename))
    before = _archive.unpacked_from(item.filename, cache_dir)
    if before not in item.sha1s:
        # Data unpacked by hand or from another archive are better than a sample.
        sample = sample_index().get(name)
        folder_counts = before != '' and not (sample and before == sample['sha1'])
        found, = locate([item], cache_dir, folder=target if folder_counts else None)
        if found.origin != 'folder':
            _archive.unpack(found.path, cache_dir)
    if not os.path.isdir(target):
        raise ValueError(f'{item.filename} was unpacked into {cache_dir}, but it holds no folder '
                         f'{os.path.relpath(target, cache_dir)!r}; it holds '
                         f'{_top_level(item.filename, cache_dir)}')
    return target


def _top_level(filename, cache_dir):
    names = {file.split('/')[0] for file in _archive.files_of(filename, cache_dir)}
    return ', '.join(sorted(names)[:10]) or 'nothing'


def download_all(cache_dir=DEFAULT_CACHE):
    """Get the files of all ``DATA_HUB`` entries.

    Goes on after a failure.  Raises ``DataNotFoundError`` at the end if any is missing.  Book
    section 4.10.
    """
    missing = []
    for name in list(DATA_HUB):
        try:
            download(name, cache_dir)
        except DataNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise DataNotFoundError('\n\n'.join(missing))
