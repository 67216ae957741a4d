"""Run the examples of docs/tour.md and keep the pictures that they draw.

    make tour      or      python tools/make_tour.py [EXAMPLE ...]

The page is the only place where the examples stand.  Its first Python block is what each of them
begins with; every other one runs in a process of its own, in an empty folder, and must write there
the one picture that the page shows below it.  An example is called by the name of its picture.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'tour.md'
PICTURES = ROOT / 'docs' / 'tour'
LARGEST = 30_000
# Curves and maps need few colours; with 256 the files would be twice as large.
COLORS = 64
TIMEOUT = 600
# line: number of the first line of text; skipped: the reason why it is not to run, or None.
Block = namedtuple('Block', 'language line text skipped')


class TourError(Exception):
    """The page is not what it has to be, or an example failed."""


def blocks(page):
    """The fenced blocks of a page of markdown.

    A block that is not to run has ``<!-- not run: why -->`` in the line above it.  Raises
    ``TourError`` for a block without end.
    """
    found, opened, above = [], None, ''
    for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
        if opened is None and line.startswith('```'):
            reason = re.match(r'<!-- not run: (.+) -->$', above.strip())
            opened = line[3:].strip(), number + 1, [], reason and reason.group(1)
        elif opened is not None and line.startswith('```'):
            language, start, lines, skipped = opened
            found.append(Block(language, start, '\n'.join(lines), skipped))
            opened = None
        elif opened is not None:
            opened[2].append(line)
        above = line
    if opened is not None:
        raise TourError('{}: the block of line {} does not end'.format(page.name, opened[1]))
    return found


def examples(page=PAGE):
    """Name -> the blocks to run one after the other, in the order of the page.

    Raises ``TourError`` unless each Python block but the first is followed by one picture, the
    file that it saves.
    """
    text = page.read_text(encoding='utf-8')
    begin, *others = [block for block in blocks(page) if block.language == 'python']
    ends = [block.line for block in others[1:]] + [text.count('\n') + 2]
    found = {}
    for block, end in zip(others, ends):
        below = '\n'.join(text.split('\n')[block.line - 1:end - 1])
        shown = re.findall(r'^!\[[^\]]+\]\(tour/(\w+)\.png\)$', below, flags=re.M)
        saved = re.findall(r"save(?:fig)?\('(\w+)\.png'", block.text)
        if len(shown) != 1 or shown != saved or shown[0] in found:
            raise TourError('{}:{}: an example must save one picture of its own, and the page show '
                            'it below; saved: {}, shown: {}'.format(page.name, block.line, saved,
                                                                   shown))
        found[shown[0]] = [begin, block]
    return found


def run(parts, folder, page):
    """Run blocks of a page in one namespace of a fresh process, in folder; return the process.

    Each stands in its lines of the page, so that a traceback names them.
    """
    program = ['names = {"__name__": "__main__"}']
    for block in parts:
        source = '\n' * (block.line - 1) + block.text + '\n'
        program.append('exec(compile({!r}, {!r}, "exec"), names)'.format(source, page.name))
    script = Path(folder) / 'examples.py'
    script.write_text('\n'.join(program), encoding='utf-8')
    paths = [str(ROOT)] + [p for p in [os.environ.get('PYTHONPATH')] if p]
    env = dict(os.environ, D2L_OFFLINE='1', MPLBACKEND='Agg', PYTHONPATH=os.pathsep.join(paths))
    # The layers are too small to share: a second thread gains little on a quiet machine and loses
    # several times as much on a busy one.
    env.setdefault('OMP_NUM_THREADS', '1')
    return subprocess.run([sys.executable, str(script)], cwd=str(folder), env=env,
                          timeout=TIMEOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)


def make(name, target, page=PAGE):
    """Run one example, write its picture to the file target and return what it printed.

    Raises ``TourError`` if the example fails or its picture does not come out as it has to.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = run(examples(page)[name], folder, page)
        drawn = Path(folder) / (name + '.png')
        if done.returncode or not drawn.is_file():
            raise TourError('{}: {}'.format(name, done.stdout))
        with Image.open(drawn) as picture:
            picture.convert('RGB').quantize(COLORS).save(target, optimize=True)
    fault = fault_of(target)
    if fault:
        raise TourError('{}: {}'.format(target, fault))
    return done.stdout


def fault_of(path):
    """What is wrong with a picture: too large, or blank.  None if nothing is."""
    if path.stat().st_size > LARGEST:
        return '{} bytes, more than {}'.format(path.stat().st_size, LARGEST)
    with Image.open(path) as picture:
        if not 200 <= picture.width <= 600:
            return '{} pixels wide'.format(picture.width)
        saturations = picture.convert('RGB').convert('HSV').getchannel('S').histogram()
    # Axes and text are gray; a line across the picture is more than a hundredth of it.
    share = sum(saturations[64:]) / sum(saturations)
    if share < 0.005:
        return 'blank: {:.2%} of the pixels are coloured'.format(share)
    return None


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('names', nargs='*', metavar='EXAMPLE', help='default: all')
    args = parser.parse_args(argv)
    try:
        found = examples()
        unknown = sorted(set(args.names) - set(found))
        if unknown:
            sys.exit('make_tour: no example is called {}; there are {}'.format(
                ', '.join(unknown), ', '.join(found)))
        PICTURES.mkdir(exist_ok=True)
        for name in args.names or found:
            print('== {}\n{}'.format(name, make(name, PICTURES / (name + '.png'))), flush=True)
        for path in PICTURES.glob('*.png'):
            if path.stem not in found:
                path.unlink()
    except TourError as error:
        sys.exit('make_tour: {}'.format(error))


if __name__ == '__main__':
    main()
