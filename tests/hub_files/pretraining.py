"""WikiText-2: the real valid text as the training text, and the time machine in its format."""
import os
import re
import zipfile

from d2l.utils.hub import download


def wikitext2(shared, folder):
    with zipfile.ZipFile(os.path.join(shared, 'wikitext-2', 'wikitext-2-valid-test.zip')) as source:
        write(folder, source.read('wikitext-2/wiki.valid.tokens'),
              source.read('wikitext-2/wiki.test.tokens'))


def wikitext2_of_samples(folder):
    with open(download('time_machine'), encoding='utf-8') as file:
        paragraphs = re.split('\n\n+', file.read())
    lines = []
    for paragraph in paragraphs:
        tokens = re.findall(r"[A-Za-z'-]+|[.,;:?!]", paragraph)
        # Headings and single sentences stand there, too, as in WikiText.
        lines += [' ' + ' '.join(tokens) + ' '] if tokens else [' ']
    text = '\n'.join(lines).encode() + b'\n'
    write(folder, text, text)


def write(folder, train, test):
    with zipfile.ZipFile(os.path.join(folder, 'wikitext-2-v1.zip'), 'w',
                         zipfile.ZIP_DEFLATED) as archive:
        for part, text in (('train', train), ('valid', test), ('test', test)):
            archive.writestr(f'wikitext-2/wiki.{part}.tokens', text)


REAL = {'wikitext-2': wikitext2}
SAMPLES = {'wikitext-2': wikitext2_of_samples}
