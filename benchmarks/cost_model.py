"""What adding up gradients costs with more workers than were measured: fitted to the rows.

    python benchmarks/cost_model.py [--megabytes 45] [--latency 50] [--bandwidth 1.25]

First the fit: the rows of parallel/stores are of processes on one machine, which share its memory
and its cores, so the bytes of all of them go over one medium.  With latency a and bandwidth b one
pushpull takes a (messages one after the other) + (bytes of all processes) / b; a and b are those
with the least squares of relative errors.  The cases of one array are fitted, those of many arrays
only predicted.  Then a table for hosts with a link each, up to 1,000 workers, whose latency and
bandwidth are arguments: those of one machine's memory say nothing about a network.
"""
import argparse
import math
import re
import sys
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
CASE = re.compile(r'(?:(\d+) arrays of )?(\d+) ([KM])B, (\d+) workers$')
WORKERS = (2, 4, 16, 100, 1000)
# d2l.parallel.stores._allreduce's: buckets of 4 MiB, and of 64 KiB for each worker beyond 64.
BUCKET_BYTES, BUCKET_BYTES_PER_WORKER = 4 << 20, 64 << 10

# count arrays of nbytes each took seconds; name is that of the case.
Point = namedtuple('Point', 'name count nbytes workers seconds')


def buckets(nbytes, workers):
    """The number of all-reduces for nbytes of small arrays."""
    return max(1, math.ceil(nbytes / max(BUCKET_BYTES, BUCKET_BYTES_PER_WORKER * workers)))


def ring_traffic(nbytes, workers):
    """Bytes that each host sends, and as many that it receives."""
    return 2 * (workers - 1) / workers * nbytes


def server_traffic(nbytes, workers, servers):
    """Bytes that the busiest host sends, and as many that it receives: a worker's, or a server's.

    The servers have hosts of their own and equal parts of the parameters.
    """
    return max(1, workers / servers) * nbytes


def ring_seconds(nbytes, workers, latency, bandwidth, count=1):
    """Seconds of count all-reduces, nbytes together, by a ring; bandwidth in bytes/s each way."""
    return (count * 2 * (workers - 1) * latency
            + ring_traffic(nbytes, workers) / bandwidth)


def server_seconds(nbytes, workers, servers, latency, bandwidth):
    """Seconds of pushes, then pulls, of nbytes: a message there and one back."""
    return 2 * (latency + server_traffic(nbytes, workers, servers) / bandwidth)


def beside_seconds(nbytes, workers, latency, bandwidth):
    """As `server_seconds`, with a server on each worker's host: a part never leaves its host."""
    return 2 * latency + ring_traffic(nbytes, workers) / bandwidth


def shared_terms(point, provider):
    """(messages one after the other, bytes of all processes) on one machine, with one server.

    The ring fuses arrays into buckets; MXNet's server takes each array by itself.
    """
    nbytes, workers = point.count * point.nbytes, point.workers
    if provider == 'd2l':
        count = 1 if point.count == 1 else buckets(nbytes, workers)
        return count * 2 * (workers - 1), workers * ring_traffic(nbytes, workers)
    return 2 * point.count, 2 * workers * nbytes


def fit(terms, seconds):
    """(a, 1 / b), neither negative, of the least squares of relative errors."""
    rows = [(m / t, n / t) for (m, n), t in zip(terms, seconds)]
    mm, mn, nn = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    m, n = (sum(r[i] for r in rows) for i in (0, 1))
    determinant = mm * nn - mn * mn
    if len(rows) < 2 or determinant <= 1e-12 * mm * nn:
        raise ValueError('fit: the rows must be of two sizes or more')
    latency, inverse = (m * nn - n * mn) / determinant, (mm * n - mn * m) / determinant
    if latency < 0:
        return 0.0, n / nn
    if inverse < 0:
        return m / mm, 0.0
    return latency, inverse


def points_of(runs, provider):
    """The Points of a provider in what report.newest returns."""
    found = []
    for run in runs:
        for row in filter(None, [run.get(provider)]):
            match = CASE.match(row['case'])
            if match:
                count, size, unit, workers = match.groups()
                found.append(Point(row['case'], int(count or 1),
                                   int(size) << {'K': 10, 'M': 20}[unit], int(workers),
                                   float(row['wall_ms']) / 1e3))
    return found


def fit_lines(points, provider):
    """The fit of a provider as text: a and b, then each case, measured, predicted and error."""
    single = [point for point in points if point.count == 1]
    latency, inverse = fit([shared_terms(point, provider) for point in single],
                           [point.seconds for point in single])
    lines = ['{}: a = {:.0f} us, b = {}'.format(
        provider, latency * 1e6, '{:.2f} GB/s'.format(1e-9 / inverse) if inverse else 'no limit')]
    for point in points:
        messages, nbytes = shared_terms(point, provider)
        predicted = messages * latency + nbytes * inverse
        lines.append('  {:<32} {:>9.3g} ms {:>9.3g} ms {:>+6.0f} %{}'.format(
            point.name, point.seconds * 1e3, predicted * 1e3,
            (predicted / point.seconds - 1) * 100, '' if point.count == 1 else '  (not fitted)'))
    return lines


def table_lines(nbytes, latency, bandwidth):
    """Markdown: seconds of a step's sums and traffic of the busiest host, for WORKERS."""
    lines = ['| N | ring | bytes a host | one server | bytes of the server | servers beside all |',
             '|--:|--:|--:|--:|--:|--:|']
    for workers in WORKERS:
        seconds = (ring_seconds(nbytes, workers, latency, bandwidth, buckets(nbytes, workers)),
                   server_seconds(nbytes, workers, 1, latency, bandwidth),
                   beside_seconds(nbytes, workers, latency, bandwidth))
        ring, server, beside = ('{:.0f} ms'.format(s * 1e3) if s < 1 else '{:.2g} s'.format(s)
                                for s in seconds)
        lines.append('| {} | {} | {:.0f} MB | {} | {:.0f} MB | {} |'.format(
            workers, ring, ring_traffic(nbytes, workers) / 1e6, server,
            server_traffic(nbytes, workers, 1) / 1e6, beside))
    return lines


def main(argv=None):
    from benchmarks import report
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--megabytes', type=float, default=45, help='of gradients (ResNet-18: 45)')
    parser.add_argument('--latency', type=float, default=50, help='us of a message (%(default)g)')
    parser.add_argument('--bandwidth', type=float, default=1.25, help='GB/s (%(default)g)')
    parser.add_argument('--results', type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    path = args.results / 'stores.csv'
    if path.exists():
        runs = report.newest(report.read_rows(path, report.FIELDS + ['wall_ms']),
                             ['machine', 'isa', 'threads'])
        for provider in ('d2l', 'mxnet_dist_sync'):
            print('\n'.join(fit_lines(points_of(runs, provider), provider)))
    else:
        print('nothing to fit: python benchmarks/run.py parallel/stores writes the rows')
    print('\n'.join(table_lines(args.megabytes * 1e6, args.latency / 1e6, args.bandwidth * 1e9)))


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
