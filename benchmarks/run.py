"""Runs benchmark cases: checks every provider, times those that are right, keeps the rows.

    python benchmarks/run.py ops/layer_norm [--threads 1] [--samples 15] [--dry] [--bare]
    make bench OP=layer_norm

A case module (benchmarks/ops/<op>.py, benchmarks/data/<loader>.py) has ``cases()``, which yields
``Case`` objects.  Rows go to benchmarks/results/<module>.csv with commit and machine.
"""
import argparse
import builtins
import csv
import datetime
import importlib.util
import itertools
import json
import os
import platform
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / 'results'
FIELDS = ['date', 'commit', 'machine', 'isa', 'threads', 'case', 'provider', 'cpu_ms', 'wall_ms',
          'spread', 'ratio', 'gbs', 'gflops']
# providers: name -> function of no arguments that does the work once and returns its results; the
# first one is ours.  check(results: name -> what one call returned) raises AssertionError, or
# returns the names of providers that are wrong.  nbytes, flops: of one call, for GB/s, GFLOP/s.
# time: stands in for d2l.testing.time_op where the work is done in other processes.
Case = namedtuple('Case', 'name providers check nbytes flops time')
Case.__new__.__defaults__ = (None, None, None)


def load(module):
    """The module benchmarks/<module>.py."""
    path = FOLDER / (module + '.py')
    if not path.exists():
        known = sorted(str(p.relative_to(FOLDER).with_suffix(''))
                       for p in FOLDER.glob('*/[!_]*.py'))
        sys.exit('no benchmark {}; there are: {}'.format(module, ', '.join(known)))
    spec = importlib.util.spec_from_file_location(module.replace('/', '_'), str(path))
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def run_case(case, samples):
    """Rows of one case, in the order of its providers; refuses to time what is wrong."""
    from d2l.testing import time_op
    results = {name: f() for name, f in case.providers.items()}
    wrong = case.check(results) or ()
    providers = {n: f for n, f in case.providers.items() if n not in wrong}
    for name in wrong:
        print('  {}: WRONG RESULT, not timed'.format(name))
    del results
    timed = (case.time or time_op)(providers, samples)
    ours = next(iter(case.providers))
    rows = []
    for name, t in timed.items():
        row = {'case': case.name, 'provider': name, 'spread': '{:.2f}'.format(t['spread']),
               'cpu_ms': '{:.4g}'.format(t['cpu_ms']), 'wall_ms': '{:.4g}'.format(t['wall_ms'])}
        if ours in timed:
            row['ratio'] = '{:.2f}'.format(t['cpu_ms'] / timed[ours]['cpu_ms'])
        if case.nbytes:
            row['gbs'] = '{:.1f}'.format(case.nbytes / t['wall_ms'] / 1e6)
        if case.flops:
            row['gflops'] = '{:.1f}'.format(case.flops / t['wall_ms'] / 1e6)
        rows.append(row)
    return rows


def machine():
    found = {'model name': platform.processor() or 'unknown'}
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as f:
            for line in itertools.takewhile(str.strip, f):  # the first processor
                key, _, value = line.partition(':')
                found[key.strip()] = value.strip()
    name = found['model name']
    if 'cpu family' in found:  # virtual machines hide the model from the name
        name += ' (family {cpu family} model {model})'.format_map(found)
    return '{} x{}'.format(name, os.cpu_count())


def commit():
    """The commit that is measured, with -dirty if files beside the rows are not as it has them."""
    def git(*command):
        return subprocess.check_output(['git', *command], cwd=str(FOLDER),
                                       stderr=subprocess.DEVNULL, universal_newlines=True).strip()
    try:
        changed = git('status', '--porcelain', '--untracked-files=no', '--', ':/',
                      ':(exclude)' + RESULTS.name)
        return git('describe', '--always') + ('-dirty' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return ''


def copy_bandwidth(mebibytes=64):
    """GB/s that one thread reads and writes when it copies memory: the limit for bound rows."""
    import time

    import numpy as np
    a = np.ones(mebibytes << 17)
    b = np.empty_like(a)
    best = float('inf')
    for _ in range(8):
        start = time.perf_counter()
        np.copyto(b, a)
        best = min(best, time.perf_counter() - start)
    return 2 * a.nbytes / best / 1e9


def table(rows):
    lines = ['{:<34} {:<16} {:>9} {:>9} {:>7} {:>8} {:>7}'.format(
        'case', 'provider', 'CPU ms', 'wall ms', 'spread', 'x ours', 'GB/s')]
    for r in rows:
        lines.append('{:<34} {:<16} {:>9} {:>9} {:>7} {:>8} {:>7}'.format(
            r['case'], r['provider'], r['cpu_ms'], r['wall_ms'], r['spread'],
            r.get('ratio', ''), r.get('gbs', '')))
    return '\n'.join(lines)


def save(module, rows, threads):
    """Append to results/<last part of module>.csv."""
    from d2l import ops
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (module.split('/')[-1] + '.csv')
    common = {'date': datetime.date.today().isoformat(), 'commit': commit(), 'machine': machine(),
              'isa': ops.info()['isa'], 'threads': threads}
    fresh = not path.exists()
    with path.open('a', newline='') as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator='\n')
        if fresh:
            writer.writeheader()
        for row in rows:
            writer.writerow({**common, **row})
    return path


def bare_rows(args, rows):
    """MXNet as its users have it: the provider mxnet in a process that d2l has not prepared.

    No variable helps its OpenBLAS to choose kernels.  Not in turns with the others, so these rows
    are less sure than theirs.
    """
    alone = {key: value for key, value in os.environ.items() if key != 'OPENBLAS_CORETYPE'}
    command = [sys.executable, str(FOLDER / 'run.py'), args.module, '--only', args.only,
               '--threads', str(args.threads), '--samples', str(args.samples), '--bare-child']
    text = subprocess.check_output(command, env=dict(alone, D2L_COMPAT='0'),
                                   universal_newlines=True)
    ours = {row['case']: float(row['cpu_ms']) for row in rows if row['provider'] == 'd2l'}
    found = json.loads(text.splitlines()[-1])
    for row in found:
        row['provider'] += '_bare'
        row['ratio'] = '{:.2f}'.format(float(row['cpu_ms']) / ours[row['case']])
    return found


def import_bare_mxnet():
    """MXNet alone cannot be imported beside a NumPy from 1.24 on, which lacks these names."""
    import numpy
    for name in ('bool', 'int', 'float', 'complex', 'object', 'str'):
        if name not in vars(numpy):
            setattr(numpy, name, getattr(builtins, name))
    import mxnet  # noqa: F401


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('module', help='such as ops/layer_norm')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--samples', type=int, default=15)
    parser.add_argument('--only', default='', help='only cases whose name contains this')
    parser.add_argument('--dry', action='store_true', help='print the table, keep no rows')
    parser.add_argument('--bare', action='store_true',
                        help='also MXNet in a process that d2l has not prepared')
    parser.add_argument('--bare-child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = str(args.threads)  # read by MXNet and PyTorch on import
    sys.path.insert(0, str(FOLDER.parent))
    if args.bare_child:
        import_bare_mxnet()
    import d2l  # noqa: F401, I001  (before mxnet)
    from mxnet import npx
    npx.set_np()
    try:
        import torch
        torch.set_num_threads(args.threads)
    except ImportError:
        print('PyTorch is not installed; its rows are missing')
    print('{}, {} thread(s), copy {:.1f} GB/s'.format(machine(), args.threads, copy_bandwidth()))
    rows = []
    for case in load(args.module).cases():
        if args.only not in case.name:
            continue
        if args.bare_child:
            # It is checked in the other process, beside those that it is compared with.
            case = case._replace(providers={'mxnet': case.providers['mxnet']}, check=lambda _: ())
        rows += run_case(case, args.samples)
        print('  done', case.name, flush=True)
    if args.bare_child:
        print(json.dumps(rows))
        return
    if args.bare:
        rows += bare_rows(args, rows)
    print(table(rows))
    if not args.dry:
        print('rows added to', save(args.module, rows, args.threads))


if __name__ == '__main__':
    # Case modules import benchmarks.run: it must be this module, not a second copy.
    sys.path.insert(0, str(FOLDER.parent))
    from benchmarks.run import main as run_main
    run_main()
