"""The benchmark driver, the case modules and the report; nothing here depends on a duration."""
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report, run
from benchmarks.parallel import _jobs

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(str(p.relative_to(run.FOLDER).with_suffix(''))
                 for p in run.FOLDER.glob('*/[!_]*.py'))

# The case module that the driver's tests run.  calls: how often each provider was called.
FAKE = """
from benchmarks.run import Case

calls = {}


def provider(name, result):
    def f():
        calls[name] = calls.get(name, 0) + 1
        return [result]
    return f


def check(results):
    assert results['d2l'] != [0], 'd2l'
    return [name for name, result in results.items() if result != [1]]


def cases():
    yield Case('small', {n: provider(n, r) for n, r in RESULTS.items()}, check, nbytes=8, flops=2)
"""

# Runs the smallest case of each module, then spoils our results for its check.
SMALLEST = """
import json, math, sys, traceback
import d2l
from mxnet import npx
from benchmarks.run import load

def smallest_case(module):
    loaded = load(module)
    if hasattr(loaded, 'SHAPES'):  # the others need not even be built
        loaded.SHAPES = [min(loaded.SHAPES, key=math.prod)]
    if hasattr(loaded, 'KINDS'):  # the processes of one kind of job are enough
        first = next(iter(loaded.KINDS.values()))
        loaded.KINDS = {name: kind for name, kind in loaded.KINDS.items() if kind == first}
    cases = list(loaded.cases())
    names = [case.name for case in cases]
    assert names and len(set(names)) == len(names), names
    assert all(next(iter(case.providers)) == 'd2l' for case in cases), 'd2l is not the first'
    return min(cases, key=lambda case: case.nbytes or 0)

def spoiled(value):
    return value[:-1] if isinstance(value, list) else value + 1

def try_module(module):
    case = smallest_case(module)
    assert len(case.providers) > 1, 'nothing to compare with'
    results = {name: f() for name, f in case.providers.items()}
    wrong = case.check(results) or ()
    assert 'd2l' not in wrong, 'd2l is wrong in ' + case.name
    results['d2l'] = [spoiled(value) for value in results['d2l']]
    try:
        noticed = 'd2l' in (case.check(results) or ())
    except AssertionError:
        noticed = True
    assert noticed, 'the check of {} lets a wrong result pass'.format(case.name)

npx.set_np()
outcome = {}
for module in sys.argv[1:]:
    try:
        try_module(module)
        outcome[module] = ''
    except Exception:
        outcome[module] = traceback.format_exc()
print(json.dumps(outcome))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Call it with provider -> result: writes the case module, returns the driver's main."""
    monkeypatch.setattr(run, 'FOLDER', tmp_path)
    monkeypatch.setattr(run, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(run, 'copy_bandwidth', lambda: 1.0)
    monkeypatch.setattr(run, 'commit', lambda: 'abc1234')
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setitem(sys.modules, 'torch', None)  # its import takes seconds
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    (tmp_path / 'ops').mkdir()

    def write(**results):
        (tmp_path / 'ops' / 'fake.py').write_text('RESULTS = {!r}\n{}'.format(results, FAKE))
        return lambda *args: run.main(['ops/fake', '--samples', '2'] + list(args))
    return write


def rows_of(folder):
    with (folder / 'results' / 'fake.csv').open(newline='') as f:
        return list(csv.DictReader(f))


def test_rows_have_all_fields_and_are_appended(fake, tmp_path, capsys):
    main = fake(d2l=1, mxnet=1)
    main()
    main('--threads', '2')
    rows = rows_of(tmp_path)
    assert [(r['provider'], r['threads']) for r in rows] == [
        ('d2l', '1'), ('mxnet', '1'), ('d2l', '2'), ('mxnet', '2')]
    assert all(list(row) == run.FIELDS and all(row.values()) for row in rows)
    assert rows[0]['ratio'] == '1.00' and rows[0]['commit'] == 'abc1234'
    assert 'small' in capsys.readouterr().out


def test_dry_keeps_no_rows(fake, tmp_path, capsys):
    fake(d2l=1, mxnet=1)('--dry')
    assert not (tmp_path / 'results').exists()
    assert 'mxnet' in capsys.readouterr().out


def test_a_wrong_provider_is_not_timed(fake, tmp_path, capsys):
    fake(d2l=1, mxnet=2, torch=1)()
    assert [row['provider'] for row in rows_of(tmp_path)] == ['d2l', 'torch']
    assert 'mxnet: WRONG RESULT' in capsys.readouterr().out


def test_a_wrong_provider_is_called_once(fake):
    fake(d2l=1, mxnet=2)
    module = run.load('ops/fake')
    case, = module.cases()
    run.run_case(case, samples=1)
    assert module.calls['mxnet'] == 1 and module.calls['d2l'] > 1


def test_without_ours_there_is_no_ratio(fake, tmp_path):
    fake(d2l=2, mxnet=1)()
    row, = rows_of(tmp_path)
    assert row['provider'] == 'mxnet' and row['ratio'] == ''


def test_bare_adds_mxnet_from_another_process(fake, tmp_path, monkeypatch, capsys):
    main = fake(d2l=1, mxnet=1)
    found = []

    def child(command, env, universal_newlines):
        assert env['D2L_COMPAT'] == '0' and '--bare-child' in command
        monkeypatch.setattr(run, 'import_bare_mxnet', lambda: found.append('bare'))
        capsys.readouterr()
        run.main(command[2:])
        return capsys.readouterr().out
    monkeypatch.setattr(run.subprocess, 'check_output', child)
    monkeypatch.setattr(run, 'commit', lambda: 'abc1234')
    main('--bare')
    rows = rows_of(tmp_path)
    assert found == ['bare'] and [row['provider'] for row in rows] == [
        'd2l', 'mxnet', 'mxnet_bare']
    assert float(rows[2]['ratio']) > 0


def test_a_check_that_raises_ends_the_run(fake, tmp_path):
    with pytest.raises(AssertionError, match='d2l'):
        fake(d2l=0, mxnet=1)()
    assert not (tmp_path / 'results').exists()


def test_only_chooses_cases(fake, capsys):
    fake(d2l=1)('--only', 'large', '--dry')
    assert 'small' not in capsys.readouterr().out


def test_an_unknown_module_gives_the_list(fake):
    fake(d2l=1)
    with pytest.raises(SystemExit, match='no benchmark ops/nothing; there are: ops/fake'):
        run.main(['ops/nothing'])


@pytest.fixture(scope='module')
def outcomes():
    done = subprocess.run([sys.executable, '-c', SMALLEST] + MODULES, cwd=str(ROOT), text=True,
                          stdout=subprocess.PIPE, env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize('module', MODULES)
def test_smallest_case_is_right(outcomes, module):
    if 'nothing to compare: ' in outcomes[module]:  # what the benchmark is about is not installed
        pytest.skip(outcomes[module].splitlines()[-1])
    assert outcomes[module] == '', outcomes[module]


@pytest.mark.slow
def test_jobs_that_cannot_start_end_with_a_sentence(monkeypatch):
    """A process that ends, and one that is waited for."""
    monkeypatch.setattr(_jobs, 'START_TIMEOUT', 1)
    stores = run.load('parallel/stores')
    job = stores.new_job('async', 1)
    with pytest.raises(RuntimeError, match='the job async of 1 workers: not all .* within'):
        job.work('d2l_dist_async', 1, 8, 1)
    assert all(process.returncode is not None for process in job._processes.values())
    monkeypatch.setattr(_jobs, 'START_TIMEOUT', 60)
    with pytest.raises(RuntimeError, match='ended: .*worker 0 .exit status 1'):
        stores.new_job('unheard', 1).work('d2l', 1, 8, 1)


# The report

def write_rows(path, rows, fields=run.FIELDS):
    path.parent.mkdir(exist_ok=True)
    with path.open('w', newline='') as f:
        writer = csv.DictWriter(f, fields, restval='1', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def rows_for(case, machine='M x2', commit='abc', date='2030-01-01', threads='1', **ratios):
    """A row for each provider; it takes its ratio in ms."""
    return [{'date': date, 'commit': commit, 'machine': machine, 'isa': 'v3', 'threads': threads,
             'case': case, 'provider': name, 'cpu_ms': str(ratio), 'ratio': str(ratio)}
            for name, ratio in ratios.items()]


@pytest.fixture
def page(tmp_path):
    (tmp_path / 'results').mkdir()
    path = tmp_path / 'README.md'
    path.write_text('before\n{}\nold\n{}\nafter\n'.format(report.BEGIN, report.END))
    return path


def table_lines(results):
    """Cells of the lines of all tables in the report."""
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in report.report(results).splitlines() if line.startswith('|')]


def test_report_shows_best_forms(page, tmp_path):
    write_rows(tmp_path / 'results' / 'relu.csv', rows_for(
        'train', d2l=1.0, mxnet=30.0, mxnet_static=25.31, mxnet_bare=24.0, torch=2.0,
        torch_compiled=1.126))
    write_rows(tmp_path / 'results' / 'loader.csv', rows_for(
        'pass', d2l=1.0, gluon=7.0, plain=9.0))
    assert table_lines(tmp_path / 'results') == [
        ['what', 'case', 'threads', 'd2l, CPU ms', 'MXNet takes', 'PyTorch takes',
         'plain Python takes', 'MXNet alone takes'],
        ['---', '---'] + ['--:'] * 6,
        ['loader', 'pass', '1', '1.0', '7.00 x', '-', '9.00 x', '-'],
        ['relu', 'train', '1', '1.0', '25 x', '1.13 x', '-', '24 x']]


def test_report_takes_the_newest_run(page, tmp_path):
    write_rows(tmp_path / 'results' / 'relu.csv', rows_for('a', d2l=1.0, mxnet=2.0, torch=2.0)
               + rows_for('b', d2l=1.0, mxnet=3.0)
               + rows_for('a', d2l=1.1, mxnet=4.0)  # same commit, and PyTorch was not there
               + rows_for('b', d2l=1.2, commit='def', mxnet=5.0)
               + rows_for('b', d2l=1.3, threads='2', mxnet=6.0))
    lines = table_lines(tmp_path / 'results')[2:]
    assert [line[1:] for line in lines] == [[*cells, '-', '-', '-'] for cells in (
        ['a', '1', '1.1', '4.00 x'], ['b', '1', '1.2', '5.00 x'], ['b', '2', '1.3', '6.00 x'])]
    text = report.report(tmp_path / 'results')
    assert 'Commit `abc` of 2030-01-01 (relu), `def` of 2030-01-01 (relu).' in text


def test_report_has_a_table_for_each_machine(page, tmp_path):
    write_rows(tmp_path / 'results' / 'relu.csv', rows_for('a', machine='Old x2', d2l=1.0)
               + rows_for('a', machine='New x8', date='2031-01-01', d2l=1.0))
    text = report.report(tmp_path / 'results')
    assert 0 <= text.index('**New x8, v3**') < text.index('**Old x2, v3**')


def test_report_without_ours_has_no_line(page, tmp_path):
    write_rows(tmp_path / 'results' / 'relu.csv', rows_for('a', mxnet=2.0))
    assert report.report(tmp_path / 'results').startswith(report.NO_ROWS)


def test_headlines_are_of_the_machine_with_most_modules(page, tmp_path):
    old, new = (rows_for('train 4096x256', machine, date=date, d2l=1.0)
                for machine, date in (('Old', '2030-01-01'), ('New', '2031-01-01')))
    write_rows(tmp_path / 'results' / 'layer_norm.csv', old + new)
    write_rows(tmp_path / 'results' / 'dropout.csv', old)
    text = report.report(tmp_path / 'results', headlines=True)
    assert '**Old, v3**' in text and 'New' not in text


def test_headlines_are_chosen_rows_of_the_machine_measured_last(page, tmp_path):
    write_rows(tmp_path / 'results' / 'layer_norm.csv', [
        row for machine, date in (('Old', '2030-01-01'), ('New', '2031-01-01'))
        for case, threads in (('train 4096x256', '1'), ('train 4096x256', '2'), ('other', '1'))
        for row in rows_for(case, machine, date=date, threads=threads, d2l=1.0)])
    text = report.report(tmp_path / 'results', headlines=True)
    assert '**New, v3**' in text and 'Old' not in text
    assert [line.split(' | ')[:3] for line in text.splitlines() if 'layer_norm |' in line] == [
        ['| layer_norm', 'train 4096x256', '1']]


def test_report_of_gpu_rows(page, tmp_path):
    assert report.NO_GPU in report.report(tmp_path / 'results')
    rows = [{'case': 'train', 'device': 'G100', 'provider': name, 'ratio': ratio, 'ms': '0.1',
             'gbs': '900'} for name, ratio in (('d2l', '1.00'), ('torch', '1.50'))]
    write_rows(tmp_path / 'results' / 'gpu_relu.csv', rows, report.GPU_FIELDS)
    text = report.report(tmp_path / 'results')
    assert '**G100**' in text and report.NO_GPU not in text
    assert table_lines(tmp_path / 'results')[2] == ['relu', 'train', '0.1', '1.50 x', '900']


def test_report_of_several_processes_is_in_wall_time(page, tmp_path):
    """All forms are there; the CPU time, which leaves servers out, is not."""
    rows = rows_for('1 MB', d2l=1.0, mxnet_dist_sync=0.5, d2l_fp16=0.7, horovod=3.0)
    for row, wall in zip(rows, ('8.5', '20', '6.1', '9')):
        row['wall_ms'] = wall
    write_rows(tmp_path / 'results' / 'stores.csv', rows)
    write_rows(tmp_path / 'results' / 'relu.csv', rows_for('a', d2l=1.0))
    text = report.report(tmp_path / 'results')
    assert text.index('| relu | a |') < text.index(report.WALL_NOTE) < text.index('| stores |')
    assert table_lines(tmp_path / 'results')[3:] == [
        ['what', 'case', 'd2l, ms', 'others, ms'], ['---', '---', '--:', '--:'],
        ['stores', '1 MB', '8.5', 'mxnet_dist_sync 20, d2l_fp16 6.1, horovod 9']]
    assert 'stores' not in report.report(tmp_path / 'results', headlines=True)


def test_update_writes_and_check_only_looks(page, tmp_path, capsys):
    args = ['--readme', str(page), '--all', str(page), '--results', str(tmp_path / 'results')]
    before = page.read_text()
    with pytest.raises(SystemExit, match='make docs'):
        report.main(args + ['--check'])
    assert page.read_text() == before
    report.main(args)
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n') and 'old' not in text
    report.main(args + ['--check'])
    report.main(args)
    assert page.read_text() == text and 'up to date' in capsys.readouterr().out
    write_rows(tmp_path / 'results' / 'relu.csv', rows_for('a', d2l=1.0))
    with pytest.raises(SystemExit):
        report.main(args + ['--check'])


def test_check_exits_with_1(page, tmp_path):
    command = [sys.executable, str(ROOT / 'benchmarks' / 'report.py'), '--check', '--readme',
               str(page), '--all', str(page), '--results', str(tmp_path / 'results')]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 1


@pytest.mark.parametrize('text', [
    'none', report.BEGIN, report.END + report.BEGIN, report.BEGIN * 2 + report.END])
def test_markers_must_be_there(page, tmp_path, text):
    page.write_text(text)
    with pytest.raises(report.ReportError, match='needs one <!-- results -->'):
        report.update(page, tmp_path / 'results')


def test_a_missing_field_is_named(page, tmp_path):
    write_rows(tmp_path / 'results' / 'relu.csv', [], [f for f in run.FIELDS if f != 'ratio'])
    with pytest.raises(report.ReportError, match='relu.csv: no field ratio'):
        report.update(page, tmp_path / 'results')
