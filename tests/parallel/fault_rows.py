"""The rows that the fault matrix leaves, a run each, and the table of them in docs/parallel.md.

    python tests/parallel/fault_rows.py [out/faults.csv]
    make test-faults

The text between ``<!-- faults -->`` and ``<!-- /faults -->`` is replaced.
"""
import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'parallel.md'
BEGIN, END = '<!-- faults -->', '<!-- /faults -->'
# moment: seconds from the start of the job; detection: until it had been noticed and all processes
# had ended, empty where the fault hit nothing; restored: the step gone on from; lost: steps that
# had to be made again; ok: whether everything was as it must be.
FIELDS = ['store', 'victim', 'fault', 'seed', 'moment', 'detection', 'restarts', 'restored', 'lost',
          'identical', 'ok']
HEAD = ['store', 'victim', 'fault', 'runs', 'passed', 'identical weights', 'noticed and ended, s: '
        'median, worst', 'most steps lost']


def append(path, row):
    """Add a row, a dict, to a file that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, FIELDS)
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


def table(rows):
    """The lines of a markdown table: a row for each store, victim and fault."""
    groups = {}
    for row in rows:
        groups.setdefault((row['store'], row['victim'], row['fault']), []).append(row)
    lines = ['| ' + ' | '.join(HEAD) + ' |', '|---' * len(HEAD) + '|']
    for key in sorted(groups):
        # A run that the fault did not hit was followed by another one.
        hit = [row for row in groups[key] if row['detection'] or row['ok'] != 'yes']
        seconds = sorted(float(row['detection']) for row in hit if row['detection'])
        times = f'{seconds[len(seconds) // 2]:.1f}, {seconds[-1]:.1f}' if seconds else '-'
        lost = max((int(row['lost']) for row in hit if row['lost']), default='-')
        counts = [len(hit), *[sum(row[name] == 'yes' for row in hit)
                              for name in ('ok', 'identical')]]
        lines.append('| ' + ' | '.join(map(str, [*key, *counts, times, lost])) + ' |')
    return lines


def main(path):
    """Replace the table in docs/parallel.md by that of a file of rows."""
    with open(path, newline='', encoding='utf-8') as file:
        lines = table(csv.DictReader(file))
    text = PAGE.read_text(encoding='utf-8')
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    PAGE.write_text('\n'.join([head + BEGIN, *lines, END + tail]), encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'out' / 'faults.csv')
