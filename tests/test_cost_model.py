"""The arithmetic of benchmarks/cost_model.py; its rows are made here."""
import pytest

from benchmarks import cost_model, report
from benchmarks.cost_model import Point

MB, LATENCY, BANDWIDTH = 1e6, 50e-6, 1.25e9


@pytest.mark.parametrize('workers, count, ring, server, beside', [
    (2, 11, 37.1, 144.1, 36.1), (4, 11, 57.3, 288.1, 54.1), (16, 11, 84.0, 1152.1, 67.6),
    (100, 7, 140.6, 7200.1, 71.4), (1000, 1, 171.8, 72000.1, 72.0)])
def test_seconds(workers, count, ring, server, beside):
    """45 MB over 10 Gbit/s, by hand; buckets of 4 MiB, or of 64 KiB a worker."""
    assert cost_model.buckets(45 * MB, workers) == count
    found = (cost_model.ring_seconds(45 * MB, workers, LATENCY, BANDWIDTH, count),
             cost_model.server_seconds(45 * MB, workers, 1, LATENCY, BANDWIDTH),
             cost_model.beside_seconds(45 * MB, workers, LATENCY, BANDWIDTH))
    assert [s * 1e3 for s in found] == pytest.approx([ring, server, beside], abs=0.06)


def test_traffic():
    assert cost_model.ring_traffic(100, 2) == 100 and cost_model.ring_traffic(100, 4) == 150
    assert cost_model.server_traffic(100, 8, 2) == 400
    assert cost_model.server_traffic(100, 2, 4) == 100  # a worker's link, not a server's


def test_what_one_machine_carries():
    """All processes' messages and bytes; a server gets each array by itself."""
    point = Point('', 200, 1 << 14, 4, 1.0)
    assert cost_model.shared_terms(point, 'd2l') == (6, 6 * 200 << 14)
    assert cost_model.shared_terms(point, 'mxnet_dist_sync') == (400, 8 * 200 << 14)


@pytest.mark.parametrize('latency, inverse', [(2e-4, 5e-10), (0.0, 1e-9), (3e-3, 0.0)])
def test_fit_finds_what_the_times_were_made_of(latency, inverse):
    terms = [(2, 1e3), (6, 1e3), (2, 1e8), (6, 3e8)]
    seconds = [m * latency + n * inverse for m, n in terms]
    assert cost_model.fit(terms, seconds) == pytest.approx((latency, inverse), rel=1e-6, abs=1e-15)


def test_fit_is_never_negative():
    assert cost_model.fit([(1, 1.0), (1, 2.0)], [1.0, 3.0])[0] == 0.0
    assert cost_model.fit([(1, 1.0), (2, 1.0)], [1.0, 3.0])[1] == 0.0


def test_fit_needs_two_sizes():
    with pytest.raises(ValueError, match='two sizes'):
        cost_model.fit([(2, 1e3)], [1.0])
    with pytest.raises(ValueError, match='two sizes'):
        cost_model.fit([(2, 1e3), (4, 2e3)], [1.0, 2.0])


def test_rows_are_fitted_and_held_out_cases_predicted(tmp_path, capsys):
    """100 us a message, 1 GB/s; the case of 200 arrays takes twice what the model says."""
    cases = [('1 KB', 1, 1 << 10, 1), ('1 MB', 1, 1 << 20, 1), ('200 arrays of 16 KB', 200,
                                                                1 << 14, 2)]
    lines = [','.join(report.FIELDS + ['wall_ms'])]
    for provider in ('d2l', 'mxnet_dist_sync'):
        for text, count, nbytes, times in cases:
            for workers in (2, 4):
                messages, total = cost_model.shared_terms(
                    Point('', count, nbytes, workers, 1.0), provider)
                lines.append('2030-01-01,abc,M x2,v3,1,"{}, {} workers",{},1,1,{!r}'.format(
                    text, workers, provider, times * (messages * 0.1 + total * 1e-6)))
    (tmp_path / 'stores.csv').write_text('\n'.join(lines) + '\n')
    cost_model.main(['--results', str(tmp_path)])
    shown = capsys.readouterr().out
    assert shown.count('a = 100 us, b = 1.00 GB/s') == 2
    assert shown.count('-50 %  (not fitted)') == 4 and shown.count('+0 %') + shown.count(
        '-0 %') == 8
    assert '| 1000 | 172 ms | 90 MB | 72 s | 45000 MB | 72 ms |' in shown


def test_without_rows_it_says_so(tmp_path, capsys):
    cost_model.main(['--results', str(tmp_path)])
    assert 'nothing to fit' in capsys.readouterr().out
