"""Bars of what takes more than a few seconds, where and when they are shown."""
import zipfile

import pytest

from d2l.data import kaggle, language
from d2l.utils import _archive, progress


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', '1')


@pytest.mark.parametrize('setting, bar', [('1', True), ('0', False), ('', False)])
def test_a_bar_is_shown_where_it_is_wanted(monkeypatch, capsys, setting, bar):
    monkeypatch.setenv('D2L_PROGRESS', setting)
    assert list(progress.progress(range(3), 'counting', few=2)) == [0, 1, 2]
    assert ('counting: 100%' in capsys.readouterr().err) == bar


def test_no_bar_for_a_moments_work(shown, capsys):
    assert list(progress.progress(range(3), 'counting')) == [0, 1, 2]
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('ending', ['.zip', '.tar.gz'])
def test_unpacking(shown, capsys, tmp_path, monkeypatch, ending):
    for size in (1 << 20, 10):
        monkeypatch.setattr(_archive, '_PROGRESS_BYTES', size)
        path = tmp_path / f'box{size}{ending}'
        if ending == '.zip':
            with zipfile.ZipFile(path, 'w') as file:
                file.writestr('a.txt', 'x' * 2048)
        else:
            (tmp_path / 'a.txt').write_text('x' * 2048)
            with _archive.tarfile.open(path, 'w:gz') as file:
                file.add(tmp_path / 'a.txt', 'a.txt')
        assert _archive.unpack(str(path), str(tmp_path / f'out{size}')) == ['a.txt']
        shows = f'unpacking {path.name}'
        found = capsys.readouterr().err
        assert (shows in found and '2.00k' in found) == (size == 10)


def test_pictures_that_are_sorted(shown, capsys, tmp_path):
    names = [f'{i:04}.png' for i in range(1001)]
    for part in ('train', 'test'):
        (tmp_path / part).mkdir()
        for name in names:
            (tmp_path / part / name).write_bytes(b'')
    kaggle.reorg_train_valid(str(tmp_path), {name[:-4]: 'cat' for name in names}, 0.1)
    kaggle.reorg_test(str(tmp_path))
    found = capsys.readouterr().err
    assert 'reorg_train_valid: 100%' in found and 'reorg_test: 100%' in found


def test_reviews_and_sentences(shown, capsys, tmp_path, monkeypatch):
    for label in ('pos', 'neg'):
        (tmp_path / 'train' / label).mkdir(parents=True)
        for i in range(1001):
            (tmp_path / 'train' / label / f'{i}_1.txt').write_text('fine')
    assert len(language.read_imdb(str(tmp_path), True)[0]) == 2002
    found = capsys.readouterr().err
    assert 'IMDb, train/pos: 100%' in found and 'IMDb, train/neg: 100%' in found
    (tmp_path / 'snli_1.0_train.txt').write_text('gold_label\n' + 'neutral\t( a )\t( b )\n' * 9)
    plain = language.read_snli(str(tmp_path), True)
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(language, '_PROGRESS_BYTES', 10)
    assert language.read_snli(str(tmp_path), True) == plain
    assert 'snli_1.0_train.txt: ' in capsys.readouterr().err
