"""README.md and CONTRIBUTING.md say what is so: examples run, commands and paths exist.

A Python block that is not to run has ``<!-- not run: why -->`` in the line above it.  Paths of
files that a reader is to make are written with a placeholder: ``d2l/ops/<op>.py``.
"""
import os
import re
import shlex
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
# The operator that CONTRIBUTING has one add; its files are those of the one that is copied.
STAND_IN = {'scale_shift': 'layer_norm'}
SHELLS = ('bash', 'sh', 'shell', 'console')
# line: number of the first line of text; skipped: the reason why it is not to run, or None.
Block = namedtuple('Block', 'language line text skipped')


def blocks(page):
    """The fenced blocks of a page."""
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
    assert opened is None, '{}: the block of line {} does not end'.format(page.name, opened[1])
    return found


def prose(page):
    """The page without its fenced blocks."""
    return re.sub(r'^```.*?^```$', '', page.read_text(encoding='utf-8'), flags=re.S | re.M)


def run_examples(page, folder):
    """Run the Python blocks of a page, one after the other in one namespace and fresh process.

    Each stands in its lines of the page, so that a traceback names them.
    """
    program = ['names = {"__name__": "__main__"}']
    for block in blocks(page):
        if block.language == 'python' and not block.skipped:
            source = '\n' * (block.line - 1) + block.text + '\n'
            program += ['exec(compile({!r}, {!r}, "exec"), names)'.format(source, page.name)]
    script = Path(folder) / 'examples.py'
    script.write_text('\n'.join(program), encoding='utf-8')
    paths = [str(ROOT)] + [p for p in [os.environ.get('PYTHONPATH')] if p]
    env = dict(os.environ, D2L_OFFLINE='1', MPLBACKEND='Agg', PYTHONPATH=os.pathsep.join(paths))
    return subprocess.run([sys.executable, str(script)], cwd=str(folder), env=env, timeout=600,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def commands(page):
    """Command lines of shell blocks and of code within the text, as lists of words."""
    lines = [line for block in blocks(page) if block.language in SHELLS
             for line in block.text.replace('\\\n', ' ').splitlines()]
    lines += [text for text in re.findall(r'`([^`\n]+)`', prose(page)) if text.startswith('make ')]
    for line in lines:
        lexer = shlex.shlex(re.sub(r'^\s*\$\s', '', line), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command = []
        for word in lexer:
            if re.match(r'[;&|()<>]+$', word):
                yield command
                command = []
            else:
                command.append(word)
        yield command


def unknown_targets(page, makefile):
    """What `make` is told to do on a page and the Makefile has no target or variable for."""
    rules = makefile.read_text(encoding='utf-8')
    targets = set(re.findall(r'^([\w-]+):(?!=)', rules, flags=re.M))
    variables = set(re.findall(r'^(\w+)\s*[:?+]?=', rules, flags=re.M))
    found = []
    for words in commands(page):
        while words and re.match(r'\w+=', words[0]):  # of the environment
            words = words[1:]
        if words[:1] == ['make']:
            for word in words[1:]:
                name, value, _ = word.partition('=')
                if not word.startswith('-') and name not in (variables if value else targets):
                    found.append(word)
    return found


def anchors(page):
    """The names under which GitHub links to the headings of a page."""
    titles = re.findall(r'^#+ +(.+)$', prose(page), flags=re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def broken_links(page):
    """Relative links of a page whose file or heading does not exist."""
    found = []
    for link in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        if re.match(r'[a-z]+:', link):
            continue
        path, _, heading = link.partition('#')
        target = page.parent / path if path else page
        if not target.exists() or heading and heading not in anchors(target):
            found.append(link)
    return found


def missing_paths(page, root):
    """Paths in code on a page that begin with a folder of the repository and do not exist.

    A placeholder (<op>, X*) stands for any text; it must fit at least one file.
    """
    words = [w for text in re.findall(r'`([^`\n]+)`', prose(page)) for w in text.split()]
    words += [w for block in blocks(page) if block.language in SHELLS
              for w in block.text.split()]
    folders = {p.name for p in root.iterdir() if p.is_dir()} - {'out', 'build', 'dist', 'data'}
    found = []
    for word in words:
        for name, existing in STAND_IN.items():
            word = word.replace(name, existing)
        word = re.sub(r':\d+$', '', word.strip('.,;:()"\'').rstrip('/'))
        if re.match(r'[\w.<>*/{}-]+$', word) and '/' in word and word.split('/')[0] in folders:
            if not list(root.glob(re.sub(r'<[^>]*>|{[^}]*}', '*', word))):
                found.append(word)
    return found


pages = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


@pytest.mark.slow
@pages
def test_examples_run(page, tmp_path):
    done = run_examples(page, tmp_path)
    assert done.returncode == 0, done.stdout


@pages
def test_make_targets_exist(page):
    found = unknown_targets(page, ROOT / 'Makefile')
    assert not found, ', '.join(found)


@pages
def test_links_and_paths_exist(page):
    found = broken_links(page) + missing_paths(page, ROOT)
    assert not found, ', '.join(found)


def test_stand_ins_are_no_operators():
    assert [name for name in STAND_IN if list(ROOT.glob('src/operators/{}.*'.format(name)))] == []


def test_results_table_is_current():
    assert report.update(check=True), 'make docs'


# The checks above see what they are for.

PAGE = """# A page: of `code`

Look [here](#a-page-of-code), [there](sub/b.md#b) or [far](https://a.org/x.md).
The file `sub/b.md`, any `sub/<op>.md`, `sub/{name}.md:3`, `other/c.md`, `1/2` and `make all`.

```python
x = 20
```

<!-- not run: it would fail -->
```python
1 / 0
```

```bash
git clone x && make all FLAGS="a b"  # it's; make nothing
$ VAR=1 make -j all; ls sub/b.md
```

```python
with open('made', 'w') as f:
    f.write(str(x + 1))
```
"""


@pytest.fixture
def page(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub' / 'b.md').write_text('# B\n')
    (tmp_path / 'Makefile').write_text('FLAGS ?= x\nY := 1\nall: other\n\tmake nothing\n')
    path = tmp_path / 'PAGE.md'
    path.write_text(PAGE)
    return path


def change(page, old, new):
    assert old in PAGE
    page.write_text(PAGE.replace(old, new))


def test_a_true_page_passes(page, tmp_path):
    done = run_examples(page, tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / 'made').read_text() == '21'
    assert [b.skipped for b in blocks(page)] == [None, 'it would fail', None, None]
    assert unknown_targets(page, tmp_path / 'Makefile') == []
    assert broken_links(page) == [] and missing_paths(page, tmp_path) == []


def test_a_failing_example_shows_its_line(page, tmp_path):
    change(page, 'x = 20', 'x = 20 / 0')
    done = run_examples(page, tmp_path)
    assert done.returncode != 0 and 'PAGE.md", line 7' in done.stdout
    assert 'ZeroDivisionError' in done.stdout and not (tmp_path / 'made').exists()


def test_a_skip_needs_a_reason_directly_above(page, tmp_path):
    for marker in ('<!-- not run -->', '<!-- not run: why -->\n'):
        change(page, '<!-- not run: it would fail -->', marker)
        assert run_examples(page, tmp_path).returncode != 0


@pytest.mark.parametrize('old, new, unknown', [
    ('x && make all', 'x && make nothing', 'nothing'), ('FLAGS=', 'FLAG=', 'FLAG=a b'),
    ('make -j all', 'make -j Y', 'Y'), ('`make all`', '`make docs`', 'docs')])
def test_unknown_targets_show(page, tmp_path, old, new, unknown):
    change(page, old, new)
    assert unknown_targets(page, tmp_path / 'Makefile') == [unknown]


@pytest.mark.parametrize('old, new', [
    ('#a-page-of-code', '#b'), ('sub/b.md#b', 'sub/b.md#c'), ('sub/b.md#b', 'sub/c.md')])
def test_broken_links_show(page, old, new):
    change(page, '({})'.format(old), '({})'.format(new))
    assert broken_links(page) == [new]


@pytest.mark.parametrize('old, new', [
    ('`sub/b.md`', '`sub/c.md`'), ('sub/<op>.md', 'sub/<op>.py'), ('ls sub/b.md', 'ls sub/c.md')])
def test_missing_paths_show(page, tmp_path, old, new):
    change(page, old, new)
    assert missing_paths(page, tmp_path) == [new.strip('`').split()[-1]]
