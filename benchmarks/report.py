"""Writes the measured tables from benchmarks/results: all in docs/measured.md, a few in README.md.

    python benchmarks/report.py [--check]
    make docs

The text between ``<!-- results -->`` and ``<!-- /results -->`` is replaced; with --check nothing
is written, and the exit status is 1 if it is out of date.  Rows come from benchmarks/run.py; those
of gpu_*.csv come from tests/gpu/harness.py, with the fields of GPU_FIELDS among theirs.
"""
import argparse
import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
README = ROOT / 'README.md'
ALL = ROOT / 'docs' / 'measured.md'
BEGIN, END = '<!-- results -->', '<!-- /results -->'
OURS = 'd2l'
# Column title -> how the names of its providers begin; the fastest of them is shown.
OTHERS = {'MXNet': ('mxnet', 'gluon'), 'PyTorch': ('torch',), 'plain Python': ('plain', 'book')}
# The cases that README shows, of one machine: module -> how their names begin.
HEADLINES = {
    'encoder_block': ('train batch 32', 'train dropout 0.1 batch 32'),
    'transformer': ('train h32 T10 batch 32', 'train h256 T32 batch 32', 'greedy h256'),
    'bert': ('train',),
    'lenet': ('train',), 'conv2d': ('train 256x',), 'batch_dot': ('train 64x128x64x128',),
    'dense': ('train',), 'multi_dense': ('train',), 'positional_encoding': ('forward',),
    'additive_attention': ('train B32',),
    'layer_norm': ('train 4096x256',), 'masked_softmax': ('train 256x128x128',),
    'add_norm': ('train 4096x256 p=0.1',), 'attention': ('train B4 T512', 'train B1 T2048'),
    'activation': ('train gelu 4096', 'train tanh 4096'), 'dropout': ('train',),
    'embedding': ('train',), 'masked_softmax_ce': ('train',),
    'multi_adam': ('ResNet-18', '62 tiny'), 'global_norm_clip': ('20 x 512x512 scaling',),
    'word2vec': ('load_data_ptb',), 'pretraining': ('wikitext',), 'recommender': ('split', 'load'),
    'vocab': ('Vocab F',),
    'token_embedding': ('TokenEmbedding',), 'segmentation': ('segmentation item',),
    'evaluate_ranking': ('evaluate_ranking',), 'fashion_mnist': ('fashion_mnist batch 256',)}
FIELDS = ['date', 'commit', 'machine', 'isa', 'threads', 'case', 'provider', 'cpu_ms', 'ratio']
GPU_FIELDS = ['date', 'commit', 'device', 'case', 'provider', 'ms', 'ratio', 'gbs']
# Modules whose work is done by several processes, or waits: there the wall clock tells the truth.
WALL = ('stores', 'overlap', 'checkpoint_stall', 'restart')
WALL_NOTE = ('Wall time of one call, in which several processes or threads work; the other forms '
             'are in the order of the benchmark, which says what they are.')
GPU_NOTE = 'Time of one call on the GPU, median, and how many times as long PyTorch takes.'
NO_ROWS = 'No rows yet: `make bench OP=layer_norm` adds some.'
NO_GPU = 'CUDA kernels: compiled and emulated, not yet run on a GPU.'


class ReportError(Exception):
    """README.md or a file of rows is not what it has to be."""


def read_rows(path, fields):
    """The rows of a csv file as dicts; ReportError if it lacks one of the fields."""
    with Path(path).open(newline='', encoding='utf-8') as f:
        reader = csv.DictReader(f)
        missing = [name for name in fields if name not in (reader.fieldnames or ())]
        if missing:
            raise ReportError('{}: no field {}'.format(path, ', '.join(missing)))
        return [dict(row, module=Path(path).stem) for row in reader]


def newest(rows, keys):
    """The last run of each case: provider -> row, in the order in which cases first appear.

    keys: the fields that, with module and case, tell what was measured where.  Rows of one run
    stand together and have one date and commit; a provider that comes again begins a new run.
    """
    runs = {}
    for row in rows:
        key = (row['module'], row['case']) + tuple(row[k] for k in keys)
        run = runs.setdefault(key, {})
        first = next(iter(run.values()), row)
        if row['provider'] in run or any(row[k] != first[k] for k in ('date', 'commit')):
            runs[key] = run = {}
        run[row['provider']] = row
    return [run for run in runs.values() if OURS in run]


def best_ratio(run, prefixes, bare=False):
    """The smallest ratio to ours among the providers whose names begin so, such as '3.10 x'.

    bare: those that ran in a process which d2l had not prepared, or only the others.
    """
    ratios = [float(row['ratio']) for name, row in run.items()
              if name.startswith(prefixes) and name.endswith('_bare') == bare and row['ratio']]
    if not ratios:
        return '-'
    return ('{:.2f} x' if min(ratios) < 10 else '{:.0f} x').format(min(ratios))


def table(titles, lines):
    """Markdown; the first two columns are text, the others numbers."""
    rule = ['---' if i < 2 else '--:' for i in range(len(titles))]
    return '\n'.join('| {} |'.format(' | '.join(cells)) for cells in [titles, rule] + lines)


def sources(runs):
    """'Commit a of 2030-01-01 (layer_norm, rnn), b of ... (...).'"""
    found = {}
    for run in runs:
        row = run[OURS]
        modules = found.setdefault((row['commit'] or 'unknown', row['date']), [])
        if row['module'] not in modules:
            modules.append(row['module'])
    return 'Commit {}.'.format(', '.join('`{}` of {} ({})'.format(*key, ', '.join(modules))
                                         for key, modules in found.items()))


def sections(runs, where, titles, cells):
    """One table for each machine: heading, table, commits; the last measured machine first."""
    places = {}
    for run in runs:
        places.setdefault(tuple(run[OURS][k] for k in where), []).append(run)
    last = {place: max(run[OURS]['date'] for run in of) for place, of in places.items()}
    parts = []
    for place in sorted(sorted(places), key=last.get, reverse=True):
        parts += ['**{}**'.format(', '.join(place)),
                  table(titles, [cells(run) for run in places[place]]), sources(places[place])]
    return parts


def cpu_cells(run):
    row = run[OURS]
    return [row['module'], row['case'], row['threads'], row['cpu_ms']] + [
        best_ratio(run, prefixes) for prefixes in OTHERS.values()] + [
        best_ratio(run, OTHERS['MXNet'], bare=True)]


def wall_cells(run):
    row = run[OURS]
    others = ['{} {}'.format(name, other['wall_ms']) for name, other in run.items() if name != OURS]
    return [row['module'], row['case'], row['wall_ms'], ', '.join(others) or '-']


def gpu_cells(run):
    row = run[OURS]
    return [row['module'].replace('gpu_', '', 1), row['case'], row['ms'],
            best_ratio(run, OTHERS['PyTorch']), row['gbs']]


def is_headline(run):
    row = run[OURS]
    return row['case'].startswith(HEADLINES.get(row['module'], ())) and row['threads'] == '1'


def of_best_known_machine(runs):
    """Those of the machine on which most operators and models were measured, the last of such."""
    modules, dates = {}, {}
    for run in runs:
        machine, date = run[OURS]['machine'], run[OURS]['date']
        modules.setdefault(machine, set()).add(run[OURS]['module'])
        dates[machine] = max(date, dates.get(machine, date))
    if not runs:
        return runs
    best = max(modules, key=lambda machine: (len(modules[machine]), dates[machine]))
    return [run for run in runs if run[OURS]['machine'] == best]


def report(results, headlines=False):
    """The markdown between the markers, from the csv files in the folder results.

    headlines: only the cases of HEADLINES, of one machine, none in wall time.
    """
    rows, gpu_rows = [], []
    for path in sorted(Path(results).glob('*.csv')):
        if path.name.startswith('gpu_'):
            gpu_rows += read_rows(path, GPU_FIELDS)
        else:
            rows += read_rows(path, FIELDS + ['wall_ms'] * (path.stem in WALL))
    every_run = newest(rows, ['machine', 'isa', 'threads'])
    runs = [run for run in every_run if run[OURS]['module'] not in WALL]
    wall_runs = [run for run in every_run if run[OURS]['module'] in WALL]
    gpu_runs = newest(gpu_rows, ['device'])
    titles = ['what', 'case', 'threads', 'd2l, CPU ms'] + ['{} takes'.format(n) for n in OTHERS]
    titles.append('MXNet alone takes')
    if headlines:
        runs = of_best_known_machine([run for run in runs if is_headline(run)])
    parts = sections(runs, ['machine', 'isa'], titles, cpu_cells) if runs else [NO_ROWS]
    if wall_runs and not headlines:
        parts += [WALL_NOTE] + sections(wall_runs, ['machine', 'isa'], [
            'what', 'case', 'd2l, ms', 'others, ms'], wall_cells)
    if gpu_runs:
        titles = ['what', 'case', 'd2l, ms', 'PyTorch takes', 'GB/s']
        parts += [GPU_NOTE] + sections(gpu_runs, ['device'], titles, gpu_cells)
    else:
        parts.append(NO_GPU)
    return '\n\n'.join(parts)


def replaced(text, body):
    """text with body between its markers; ReportError unless each marker stands there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ReportError('a page needs one {} and, after it, one {}'.format(BEGIN, END))
    return '{}{}\n{}\n{}'.format(text[:text.index(BEGIN)], BEGIN, body, text[text.index(END):])


def update(page, results=RESULTS, headlines=False, check=False):
    """Bring a page up to date, or only look (check).  Returns whether it was up to date."""
    before = Path(page).read_text(encoding='utf-8')
    after = replaced(before, report(results, headlines))
    if after != before and not check:
        Path(page).write_text(after, encoding='utf-8')
    return after == before


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if outdated')
    parser.add_argument('--readme', default=README, type=Path)
    parser.add_argument('--all', default=ALL, type=Path, help='the page with all tables')
    parser.add_argument('--results', default=RESULTS, type=Path)
    args = parser.parse_args(argv)
    for page, headlines in ((args.all, False), (args.readme, True)):
        try:
            current = update(page, args.results, headlines, args.check)
        except (ReportError, OSError) as error:
            sys.exit('report: {}'.format(error))
        if args.check and not current:
            sys.exit('report: the results in {} are out of date: make docs'.format(page))
        print('{} {}'.format(page, 'is up to date' if current else 'written'))


if __name__ == '__main__':
    main()
