"""The pages say what is so: examples run, commands and paths exist, pictures are drawn.

A Python block that is not to run has ``<!-- not run: why -->`` in the line above it.  Paths of
files that a reader is to make are written with a placeholder: ``d2l/ops/<op>.py``.
"""
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import report
from tools import make_tour
from tools.make_tour import blocks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
TOUR = ROOT / 'docs' / 'tour.md'
# The operator that CONTRIBUTING has one add; its files are those of the one that is copied.
STAND_IN = {'scale_shift': 'layer_norm'}
SHELLS = ('bash', 'sh', 'shell', 'console')


def prose(page):
    """The page without its fenced blocks."""
    return re.sub(r'^```.*?^```$', '', page.read_text(encoding='utf-8'), flags=re.S | re.M)


def run_examples(page, folder):
    """Run the Python blocks of a page, one after the other in one namespace and fresh process."""
    parts = [block for block in blocks(page) if block.language == 'python' and not block.skipped]
    return make_tour.run(parts, folder, page)


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


pages = pytest.mark.parametrize('page', PAGES + [TOUR], ids=lambda page: page.name)


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
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


@pytest.mark.slow
@pytest.mark.parametrize('name', make_tour.examples())
def test_the_tour_draws(name, tmp_path):
    make_tour.make(name, tmp_path / 'picture.png')
    with Image.open(tmp_path / 'picture.png') as drawn, \
            Image.open(make_tour.PICTURES / (name + '.png')) as kept:
        # Labels may take a few pixels more or less, with other fonts and numbers.
        assert all(abs(a - b) <= 40 for a, b in zip(drawn.size, kept.size)), 'make tour'


def test_the_tour_has_its_pictures():
    kept = {path.stem for path in make_tour.PICTURES.iterdir()}
    assert kept == set(make_tour.examples()), 'make tour'


@pytest.mark.parametrize('name', make_tour.examples())
def test_pictures_are_small_and_not_blank(name):
    assert make_tour.fault_of(make_tour.PICTURES / (name + '.png')) is None


def test_the_tour_goes_through_the_book():
    chapters = re.findall(r'^Chapters? (\d+)(?: and (\d+))?', prose(TOUR), flags=re.M)
    found = [int(number) for pair in chapters for number in pair if number]
    # Chapter 1 is the introduction and has no code of its own.
    assert found == list(range(2, 18))
    assert len(make_tour.examples()) == len(chapters)


def test_stand_ins_are_no_operators():
    assert [name for name in STAND_IN if list(ROOT.glob('src/operators/{}.*'.format(name)))] == []


def test_results_table_is_current():
    assert report.update(report.ALL, check=True), 'make docs'
    assert report.update(report.README, headlines=True, check=True), 'make docs'


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


TOUR_PAGE = """```python
from matplotlib import pyplot as plt
```

```python
plt.figure(figsize=(4, 2))
plt.bar([1, 2], [3, 4])
plt.savefig('bars.png')
```

![Bars](tour/bars.png)

```python
plt.figure(figsize=(4, 2))
plt.plot([], label='nothing')
plt.xlabel('x')
plt.savefig('lines.png')
```

![Lines](tour/lines.png)
"""


@pytest.fixture
def tour_page(tmp_path):
    path = tmp_path / 'tour.md'
    path.write_text(TOUR_PAGE)
    return path


def test_a_picture_is_drawn(tour_page, tmp_path):
    make_tour.make('bars', tmp_path / 'bars.png', tour_page)
    with Image.open(tmp_path / 'bars.png') as picture:
        assert picture.size == (400, 200)


def test_a_blank_picture_shows(tour_page, tmp_path):
    with pytest.raises(make_tour.TourError, match='blank'):
        make_tour.make('lines', tmp_path / 'lines.png', tour_page)


@pytest.mark.parametrize('old, new, fragment', [
    ('[3, 4]', '[3, 4, 5]', 'line 7'), ('figsize=(4', 'figsize=(9', '900 pixels wide'),
    ("plt.savefig('bars", "0 and plt.savefig('bars", 'bars')])
def test_an_example_that_fails_shows(tour_page, tmp_path, old, new, fragment):
    assert old in TOUR_PAGE
    tour_page.write_text(TOUR_PAGE.replace(old, new, 1))
    with pytest.raises(make_tour.TourError, match=fragment):
        make_tour.make('bars', tmp_path / 'bars.png', tour_page)


@pytest.mark.parametrize('old, new', [
    ("savefig('bars.png')", "savefig('bar.png')"), ('![Bars](tour/bars.png)', ''),
    ('(tour/lines.png)', '(tour/bars.png)'), ("'lines.png'", 'name')])
def test_pictures_and_examples_that_do_not_fit_show(tour_page, old, new):
    tour_page.write_text(TOUR_PAGE.replace(old, new))
    with pytest.raises(make_tour.TourError, match='an example must save one picture'):
        make_tour.examples(tour_page)
