"""Words counted by the operator library, against Counter and sorted."""
import collections
import random
import shutil
import subprocess
import sys

import pytest

from d2l.data import text
from d2l.data._tokens import count_sorted
from d2l.utils import _native

pytestmark = pytest.mark.skipif(_native.function('d2l_count_tokens') is None,
                                reason='the operator library was not built')


def expected(lines):
    counter = collections.Counter(word for line in lines for word in line)
    return sorted(counter.items(), key=lambda pair: (-pair[1], pair[0]))


def check(lines):
    found = list(zip(*count_sorted(lines)))
    assert found == expected(lines)
    first = {}
    for line in lines:
        for word in line:
            first.setdefault(word, word)
    assert all(word is first[word] for word, _ in found)


@pytest.mark.parametrize('alphabet', ['ab', 'a\0', 'a\u00e9', '\u8a9e\u00e9', 'a\U0001f600\uffff'])
def test_words_of_every_length(alphabet):
    source = random.Random(0)
    words = [''.join(source.choice(alphabet) for _ in range(length)) + tail
             for length in range(41) for tail in ('', 'x' * 8, 'y' * 16, 'z' * 17) for _ in (0, 1)]
    words += ['x' * 8 + word for word in words] + ['', '\0', '\0\0', 'a\0', '\0a']
    words += [''.join(list(word)) for word in source.choices(words, k=3000)]  # other objects
    source.shuffle(words)
    check([words[i:i + 7] for i in range(0, len(words), 7)])


def test_more_words_than_the_table_begins_with():
    words = [str(i * i) for i in range(100000)] + [str(i) for i in range(50000)]
    check([words])


@pytest.mark.parametrize('lines', [[], [[]], [[], ['a'], []], [['']]])
def test_few_words(lines):
    assert list(zip(*count_sorted(lines))) == expected(lines)


def test_without_the_library(monkeypatch):
    monkeypatch.setenv('D2L_OPS', '0')
    assert count_sorted([['a']]) is None
    assert text.Vocab(['b', 'a', 'b']).token_freqs == [('b', 2), ('a', 1)]


class Word(str):
    """Equal to every other."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


class Line(list):
    def __iter__(self):
        return iter(['other'])


@pytest.mark.parametrize('lines', [
    [['a', 1]], [['a', None]], [['a'], ('b',)], [['a', ('b', 'c')]], [['a', b'b']], [['a', ['b']]],
    [['a', '\ud800']], [['a', Word('b'), 'c']], [['a', Word('\u00e9')]], [Line(['a'])], ['ab'],
    (['a'],)])
def test_what_python_is_to_count(lines):
    assert count_sorted(lines) is None


def test_vocab_of_subclasses_is_as_before():
    assert text.Vocab([[Word('b'), Word('c')], ['d']]).token_freqs == [('b', 2), ('d', 1)]
    assert text.Vocab([Line(['a', 'b'])]).idx_to_token == ['<unk>', 'other']
    assert text.Vocab(['\ud800', 'a', 'a']).idx_to_token == ['<unk>', 'a', '\ud800']


@pytest.mark.parametrize('nested', [False, True])
def test_vocab_counts_with_the_library_and_without(nested, monkeypatch):
    source = random.Random(1)
    words = source.choices(['the', 'a', 'caf\u00e9', 'time', 'Zeit', '<pad>'], k=500)
    tokens = [words[:200], [], words[200:]] if nested else words
    mine = text.Vocab(tokens, 2, ['<pad>'])
    monkeypatch.setattr(text, 'count_sorted', lambda lines: None)
    plain = text.Vocab(tokens, 2, ['<pad>'])
    assert vars(mine) == vars(plain)
    monkeypatch.undo()
    monkeypatch.setattr(text, 'count_corpus', None)  # the library's way does not come here
    assert vars(text.Vocab(tokens, 2, ['<pad>'])) == vars(plain)


@pytest.mark.parametrize('last', ['end', 5])
def test_reference_counts(last):
    words = [f'word {i % 50}' + '\u00e9' * (i % 2) for i in range(1000)]
    lines = [words, [last]]
    before = [sys.getrefcount(word) for word in words], sys.getrefcount(lines)
    for _ in range(3):
        count_sorted(lines)
    assert ([sys.getrefcount(word) for word in words], sys.getrefcount(lines)) == before


def test_a_process_without_python(tmp_path):
    compiler = shutil.which('g++') or shutil.which('cc')
    if compiler is None:
        pytest.skip('no C compiler')
    source, program = tmp_path / 'main.c', tmp_path / 'main'
    source.write_text("""
        #include <dlfcn.h>
        int main(int count, char** names) {
          void* library = dlopen(names[count - 1], RTLD_NOW);
          long long (*f)(void*, void*, void*, long long, void*, void*) =
              library ? (__typeof__(f))dlsym(library, "d2l_count_tokens") : 0;
          return !f || f(0, 0, 0, 1, 0, 0) != -1;
        }""")
    subprocess.run([compiler, '-x', 'c', str(source), '-o', str(program), '-ldl'], check=True)
    subprocess.run([str(program), _native.library_path()], check=True)
