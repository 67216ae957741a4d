"""IMDb and SNLI: parts of the real sets, and sentences of the samples in their formats."""
import io
import os
import tarfile
import zipfile

from d2l.utils.hub import download

# Reviews per class and half, of the 2,500 in the shared folder: tests should not take long.
NUM_REVIEWS = 1000

_HEADINGS = ('gold_label', 'sentence1_binary_parse', 'sentence2_binary_parse', 'sentence1_parse')


def _write_imdb(folder, reviews):
    """reviews: pairs of a name such as 'train/pos/0_9.txt' and the text as bytes."""
    with tarfile.open(os.path.join(folder, 'aclImdb_v1.tar.gz'), 'w:gz', compresslevel=1) as target:
        for name, text in reviews:
            info = tarfile.TarInfo('aclImdb/' + name)
            info.size = len(text)
            target.addfile(info, io.BytesIO(text))


def imdb(shared, folder):
    """The first reviews of each class and half, by number."""
    def chosen():
        path = os.path.join(shared, 'aclImdb', 'aclImdb_5k_5k.tar.xz')
        with tarfile.open(path, 'r|xz') as source:
            for member in source:
                half, label, name = ('/' + member.name).split('/')[-3:]
                if name.endswith('.txt') and int(name.split('_')[0]) < NUM_REVIEWS:
                    yield '/'.join((half, label, name)), source.extractfile(member).read()
    _write_imdb(folder, chosen())


def imdb_of_samples(folder):
    """Pieces of three lines of the time machine; those that say 'I' are the positive ones."""
    with open(download('time_machine'), encoding='utf-8') as file:
        lines = [line.strip() for line in file if line.strip()]
    reviews = []
    for number in range(len(lines) // 3):
        text = '\n'.join(lines[3 * number:3 * number + 3])
        label = 'pos' if 'I' in text.split() else 'neg'
        half = 'test' if number % 4 == 0 else 'train'
        reviews.append((f'{half}/{label}/{number}_{9 if label == "pos" else 2}.txt',
                        text.encode('utf-8')))
    _write_imdb(folder, reviews)


def snli(shared, folder):
    """The real development set under the name of the training set, and the real test set."""
    with zipfile.ZipFile(os.path.join(shared, 'snli', 'snli-dev-test.zip')) as source, \
            zipfile.ZipFile(os.path.join(folder, 'snli_1.0.zip'), 'w',
                            zipfile.ZIP_DEFLATED) as target:
        for name, part in (('train', 'dev'), ('test', 'test')):
            target.writestr(f'snli_1.0/snli_1.0_{name}.txt',
                            source.read(f'snli_1.0/snli_1.0_{part}.txt'))


def parsed(sentence):
    """The sentence in the parentheses of a parse that branches to the right."""
    words = sentence.split()
    return '( ' * (len(words) - 1) + ' '.join(words[:1]) + ''.join(f' {w} )' for w in words[1:])


def snli_of_samples(folder):
    """Short English sentences: repeated, with 'not' at the end, and followed by another one."""
    with zipfile.ZipFile(download('fra-eng')) as source:
        text = source.read('fra-eng/fra.txt').decode('utf-8')
    sentences = [line.split('\t')[0] for line in text.split('\n')[::7]]
    rows = []
    for number, (first, second) in enumerate(zip(sentences, sentences[1:])):
        pair = (('entailment', first), ('contradiction', first + ' not'),
                ('neutral', second), ('-', second))[number % 4]
        rows.append('\t'.join((pair[0], parsed(first), parsed(pair[1]), '(ROOT)')))
    with zipfile.ZipFile(os.path.join(folder, 'snli_1.0.zip'), 'w') as target:
        for name, part in (('train', rows[:1200]), ('test', rows[1200:])):
            target.writestr(f'snli_1.0/snli_1.0_{name}.txt',
                            '\n'.join(['\t'.join(_HEADINGS)] + part) + '\n')


REAL = {'aclImdb': imdb, 'SNLI': snli}
SAMPLES = {'aclImdb': imdb_of_samples, 'SNLI': snli_of_samples}
