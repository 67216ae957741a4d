"""Unpacking: every kind of archive, and everything an archive must not do."""
import hashlib
import io
import os
import random
import stat
import tarfile
import threading
import zipfile

import pytest

from d2l.utils import _archive
from d2l.utils._archive import ArchiveError, Limits, UnsafeArchiveError, unpack

MEMBERS = {'box/a.txt': b'alpha', 'box/sub/b.bin': bytes(range(256)) * 300, 'box/empty': b'',
           'top.txt': b'top'}
TAR_MODES = {'.tar': 'w', '.tar.gz': 'w:gz', '.tgz': 'w:gz', '.tar.bz2': 'w:bz2',
             '.tbz2': 'w:bz2', '.tar.xz': 'w:xz', '.txz': 'w:xz'}
ENDINGS = ['.zip', *TAR_MODES]


def write_zip(path, members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def write_tar(path, members, mode='w'):
    """``members``: {name: bytes, or a dict of fields of TarInfo}."""
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                for field, value in content.items():
                    setattr(info, field, value)
                file.addfile(info)


def write_archive(folder, ending, members, stem='box'):
    path = folder / (stem + ending)
    if ending == '.zip':
        write_zip(path, members)
    else:
        write_tar(path, members, TAR_MODES[ending])
    return path


def tree(folder):
    """{relative name: content} of all files that do not start with a dot."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*')
            if path.is_file() and not path.name.startswith('.')}


@pytest.mark.parametrize('ending', ENDINGS)
def test_every_kind(tmp_path, ending):
    archive = write_archive(tmp_path, ending, MEMBERS)
    out = tmp_path / 'out'
    assert unpack(str(archive), str(out)) == sorted(MEMBERS)
    assert tree(out) == MEMBERS
    assert sorted(os.listdir(out)) == [f'.box{ending}.unpacked.json', 'box', 'top.txt']
    assert _archive.stem_of(archive.name) == 'box'


def test_stem_and_ending():
    assert _archive.stem_of('aclImdb_v1.tar.gz') == 'aclImdb_v1'
    assert _archive.stem_of('glove.6B.50d.zip') == 'glove.6B.50d'
    assert _archive.ending_of('X.TAR.GZ') == '.tar.gz'
    assert _archive.ending_of('x.csv') is None


def test_an_empty_folder_is_made(tmp_path):
    with zipfile.ZipFile(tmp_path / 'box.zip', 'w') as file:
        file.writestr('box/void/', '')
    unpack(str(tmp_path / 'box.zip'), str(tmp_path / 'out'))
    assert (tmp_path / 'out' / 'box' / 'void').is_dir()


def test_rights_are_plain(tmp_path):
    write_tar(tmp_path / 'box.tar', {'dir': {'type': tarfile.DIRTYPE, 'mode': 0o000}})
    with tarfile.open(tmp_path / 'box.tar', 'a') as file:
        info = tarfile.TarInfo('dir/run')
        info.mode, info.size = 0o6777, 1
        file.addfile(info, io.BytesIO(b'x'))
    unpack(str(tmp_path / 'box.tar'), str(tmp_path / 'out'))
    mode = (tmp_path / 'out' / 'dir' / 'run').stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR | stat.S_IWOTH)


@pytest.mark.parametrize('ending', ['.zip', '.tar.gz'])
def test_a_second_call_does_nothing(tmp_path, monkeypatch, ending):
    archive = write_archive(tmp_path, ending, MEMBERS)
    out = tmp_path / 'out'
    unpack(str(archive), str(out))
    monkeypatch.setattr(_archive, '_extract', None)
    assert unpack(str(archive), str(out)) == sorted(MEMBERS)


def test_a_new_archive_replaces_its_own_files_only(tmp_path):
    out = tmp_path / 'out'
    unpack(str(write_archive(tmp_path, '.zip', MEMBERS)), str(out))
    (out / 'box' / 'mine').write_bytes(b'mine')
    unpack(str(write_archive(tmp_path, '.zip', {'box/a.txt': b'new'})), str(out))
    assert tree(out) == {'box/a.txt': b'new', 'box/mine': b'mine'}


def test_two_archives_share_a_folder(tmp_path):
    out = tmp_path / 'out'
    for name in ('one', 'two'):
        unpack(str(write_archive(tmp_path, '.zip', {f'box/{name}': b'x'}, stem=name)), str(out))
    assert sorted(tree(out)) == ['box/one', 'box/two']


# What is refused

def refuse(archive, out, error=UnsafeArchiveError, match=None, limits=None):
    """The archive is refused and leaves nothing, neither in the folder nor beside it."""
    before = sorted(os.listdir(out.parent))
    with pytest.raises(error, match=match):
        unpack(str(archive), str(out), limits)
    assert sorted(os.listdir(out)) == []
    out.rmdir()
    assert sorted(os.listdir(out.parent)) == before


@pytest.mark.parametrize('name', ['../evil', 'box/../../evil', '/tmp/evil', 'C:/evil', '..',
                                  'box/..'])
@pytest.mark.parametrize('ending', ['.zip', '.tar'])
def test_names_that_lead_out(tmp_path, ending, name):
    archive = write_archive(tmp_path, ending, {'box/good': b'good', name: b'evil'})
    refuse(archive, tmp_path / 'out', match='leads out')


def test_backslashes_lead_out_as_well(tmp_path):
    archive = write_archive(tmp_path, '.zip', {'box\\..\\..\\evil': b'evil'})
    refuse(archive, tmp_path / 'out', match='leads out')


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(tmp_path, kind):
    archive = tmp_path / 'box.tar'
    write_tar(archive, {'box/good': b'good', 'box/odd': {'type': kind, 'linkname': 'box/good'}})
    link = kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
    refuse(archive, tmp_path / 'out', match='a link' if link else 'a device')


@pytest.mark.parametrize('kind', [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_zip(tmp_path, kind):
    info = zipfile.ZipInfo('box/odd')
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / 'box.zip', 'w') as file:
        file.writestr('box/good', 'good')
        file.writestr(info, '/etc/passwd')
    refuse(tmp_path / 'box.zip', tmp_path / 'out', match='box/odd is a')


@pytest.mark.parametrize('ending', ['.zip', '.tar.gz'])
def test_limits(tmp_path, ending):
    archive = write_archive(tmp_path, ending, MEMBERS)
    total = sum(len(content) for content in MEMBERS.values())
    out = tmp_path / 'out'
    refuse(archive, out, match='bytes', limits=Limits(bytes=total - 1))
    refuse(archive, out, match='files', limits=Limits(files=len(MEMBERS) - 1))
    refuse(archive, out, match='times', limits=Limits(ratio=1.5, ratio_from=1000))
    assert unpack(str(archive), str(out), Limits(bytes=total, files=len(MEMBERS)))


def test_a_bomb_is_stopped_early(tmp_path):
    """64 MB of zeros in 64 kB: refused long before it is all on the disk."""
    with zipfile.ZipFile(tmp_path / 'box.zip', 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('zeros', bytes(64 << 20))
    limits = Limits(ratio_from=8 << 20)
    written = []
    original = _archive._Budget.count_bytes

    class Budget(_archive._Budget):
        def count_bytes(self, count):
            original(self, count)
            written.append(count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_archive, '_Budget', Budget)
        refuse(tmp_path / 'box.zip', tmp_path / 'out', match='times its size', limits=limits)
    assert sum(written) <= 17 << 20


def test_a_name_that_is_file_and_folder(tmp_path):
    archive = tmp_path / 'box.tar'
    write_tar(archive, {'box': b'file', 'box/a': b'a'})
    refuse(archive, tmp_path / 'out', ArchiveError, 'both a file and a folder')


def test_a_password(tmp_path):
    archive = write_archive(tmp_path, '.zip', {'a': b'a'})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    refuse(archive, tmp_path / 'out', ArchiveError, 'password')


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('length', [0, 20, 0.5])
def test_truncated(tmp_path, ending, length):
    archive = write_archive(tmp_path, ending, {'a': bytes(5000) + os.urandom(5000)})
    content = archive.read_bytes()
    archive.write_bytes(content[:length if length != 0.5 else len(content) // 2])
    refuse(archive, tmp_path / 'out', ArchiveError)


@pytest.mark.parametrize('ending', ENDINGS)
def test_random_damage_is_an_archive_error(tmp_path, ending):
    """One changed bit is either harmless or an ArchiveError.  Only tar has no checksums."""
    good = {'box/a': b'alpha' * 50, 'box/b': b'beta' * 50}
    archive = write_archive(tmp_path, ending, good)
    content = archive.read_bytes()
    source = random.Random(ending)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        damaged[source.randrange(len(content))] ^= 1 << source.randrange(8)
        archive.write_bytes(damaged)
        out = tmp_path / f'out{number}'
        try:
            unpack(str(archive), str(out))
            assert ending == '.tar' or tree(out).items() <= good.items()
        except ArchiveError:
            refused += 1
            assert os.listdir(out) == []
    assert refused >= 5


def test_a_damaged_header_is_not_the_end(tmp_path):
    archive = tmp_path / 'box.tar'
    write_tar(archive, {'a': b'a', 'b': b'b', 'c': b'c'})
    content = bytearray(archive.read_bytes())
    content[1024 + 10] ^= 0xFF  # the name field of the second member
    archive.write_bytes(content)
    refuse(archive, tmp_path / 'out', ArchiveError, 'header')


def test_a_planted_marker_removes_nothing_outside(tmp_path):
    (tmp_path / 'precious').write_bytes(b'p')
    out = tmp_path / 'out'
    marker = b'{"sha1": "0", "files": {"../precious": 1}}'
    unpack(str(write_archive(tmp_path, '.zip', {'.box.tar.unpacked.json': marker}, 'evil')),
           str(out))
    unpack(str(write_archive(tmp_path, '.tar', {'a': b'a'})), str(out))
    assert (tmp_path / 'precious').exists()
    assert (out / 'a').read_bytes() == b'a'


# Interruptions and neighbours

def test_an_interruption_is_made_good(tmp_path, monkeypatch):
    archive = write_archive(tmp_path, '.zip', MEMBERS)
    out = tmp_path / 'out'
    unpack(str(archive), str(out))
    new = dict(MEMBERS, **{'box/a.txt': b'new'})
    write_archive(tmp_path, '.zip', new)
    real, calls = os.replace, []

    def fail_at_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, 'replace', fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        unpack(str(archive), str(out))
    monkeypatch.setattr(os, 'replace', real)
    assert _archive.unpacked_from('box.zip', str(out)) is None
    unpack(str(archive), str(out))
    assert tree(out) == new
    expected = hashlib.sha1(archive.read_bytes()).hexdigest()
    assert _archive.unpacked_from('box.zip', str(out)) == expected


def test_what_a_killed_process_left_is_cleared(tmp_path):
    archive = write_archive(tmp_path, '.zip', MEMBERS)
    out = tmp_path / 'out'
    (out / '.box.zip.unpacking' / 'old').mkdir(parents=True)
    unpack(str(archive), str(out))
    assert sorted(os.listdir(out)) == ['.box.zip.unpacked.json', 'box', 'top.txt']


def test_several_at_once_unpack_once(tmp_path, monkeypatch):
    archive = write_archive(tmp_path, '.zip', MEMBERS)
    extract, count = _archive._extract, []

    def counted(*args):
        count.append(1)
        return extract(*args)

    monkeypatch.setattr(_archive, '_extract', counted)
    threads = [threading.Thread(target=unpack, args=(str(archive), str(tmp_path / 'out')))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(count) == 1
    assert tree(tmp_path / 'out') == MEMBERS
