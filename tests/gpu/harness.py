"""Checks and times the CUDA kernels on a GPU, through their plain C interface; MXNet is not needed.

    python tests/gpu/harness.py --check --bench      # builds for the GPU at hand with nvcc first

--check runs all checks of battery.py against float64, with misaligned arrays too, and arrays of
more than 2^31 elements.  --bench compares with PyTorch and with the bandwidth of a large copy on
the same device, each provider in turn, the cache emptied before each call; the rows go to
benchmarks/results/gpu_<device>.csv.  It refuses to time what is wrong.

Needs PyTorch for --bench; --check also runs with CuPy.  --dry runs the same lines without a GPU: on
host memory, with emulated kernels and small arrays; its times mean nothing.
"""
import argparse
import csv
import datetime
import functools
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import battery
import emulated
from driver import Call, Cupy, Library, Torch

FIELDS = ['date', 'commit', 'device', 'copy_gbs', 'case', 'provider', 'ms', 'spread', 'ratio',
          'gbs', 'of_copy']
RESULTS = emulated.ROOT / 'benchmarks' / 'results'
SHAPES = [(32768, 128), (1 << 20, 128), (4096, 256), (1 << 19, 256), (1 << 17, 1024),
          (1 << 15, 4096), (1 << 17, 1000), (4096, 30522)]
DRY_SHAPES = [(40, 128), (6, 1001)]


def build_for_gpu():
    """The library for the GPU at hand, or for all architectures if that is not known."""
    try:
        import torch
        major, minor = torch.cuda.get_device_capability()
        os.environ.setdefault('D2L_CUDA_ARCH_LIST', '{}{}'.format(major, minor))
    except ImportError:
        pass
    folder = emulated.ROOT / 'build' / 'gpu'
    library = folder / 'libd2l_ops.so'
    emulated.load_setup().Build(folder, library, cuda=True).run()
    return library


class Device:
    """What the harness asks of a GPU: its name, its copy bandwidth and times.  dry: the host."""

    def __init__(self, dry):
        import torch
        self.torch, self.dry = torch, dry
        self.kind = 'cpu' if dry else 'cuda'
        self.name = 'dry run' if dry else torch.cuda.get_device_name()
        self.cache = torch.empty(1 << (10 if dry else 28), dtype=torch.uint8, device=self.kind)

    def sample(self, function):
        """Milliseconds of one call on a cold cache.

        Emptying the cache takes the device longer than the host needs to launch, so the time has
        no host in it.
        """
        self.cache.zero_()
        if self.dry:
            start = time.perf_counter()
            function()
            return (time.perf_counter() - start) * 1e3
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def compare(self, providers):
        """name -> (median, spread) in milliseconds, measured in turns."""
        rounds, warm = (2, 1) if self.dry else (50, 5)
        samples = {name: [] for name in providers}
        for i in range(rounds + warm):
            for name, function in providers.items():
                ms = self.sample(function)
                if i >= warm:
                    samples[name].append(ms)
        return {name: (statistics.median(s), (max(s) - min(s)) / statistics.median(s))
                for name, s in samples.items()}

    def copy_bandwidth(self):
        """GB/s, bytes read plus bytes written."""
        a = self.torch.randn(1 << (10 if self.dry else 28), device=self.kind)
        b = self.torch.empty_like(a)
        ms, _ = self.compare({'copy': lambda: b.copy_(a)})['copy']
        return 8 * a.numel() / ms / 1e6


def bench_layer_norm(torch, library, backend, x):
    """(pass, bytes moved, providers, check) for each pass."""
    cols = x.shape[-1]
    gamma, beta, dy = torch.randn_like(x[0]), torch.randn_like(x[0]), torch.randn_like(x)
    call = Call(library, backend, 'layer_norm', [x, gamma, beta])
    forward, (y, mean, rstd) = call.prepare(False)
    backward, (dx, dgamma, dbeta) = call.prepare(True, [dy])

    def torch_forward():
        return torch.native_layer_norm(x, (cols,), gamma, beta, 1e-5)

    _, mu, rs = torch_forward()

    def torch_backward():
        return torch.ops.aten.native_layer_norm_backward(dy, x, [cols], mu, rs, gamma, beta,
                                                         [True, True, True])
    size = x.numel() * x.element_size()
    yield ('forward', 2 * size, {'d2l': forward, 'torch': torch_forward},
           lambda: [(y, torch_forward()[0])])
    yield ('backward', 3 * size, {'d2l': backward, 'torch': torch_backward},
           lambda: list(zip((dx, dgamma, dbeta), torch_backward())))


def bench_masked_softmax(torch, library, backend, x):
    """PyTorch's softmax without a mask is the same traffic; with one it takes two operators."""
    rows, cols = x.shape
    lengths = torch.full((rows,), cols, dtype=torch.int32, device=x.device)
    mask = torch.arange(cols, device=x.device) >= lengths[:, None]
    dy = torch.randn_like(x)
    call = Call(library, backend, 'masked_softmax', [x, lengths])
    forward, (y,) = call.prepare(False)
    backward, (dx, _) = call.prepare(True, [dy])
    forward()

    def torch_backward():
        return torch._softmax_backward_data(dy, y, -1, x.dtype)

    size = x.numel() * x.element_size()
    yield ('forward', 2 * size,
           {'d2l': forward, 'torch': lambda: torch.softmax(x, -1),
            'torch, masked': lambda: torch.softmax(x.masked_fill(mask, float('-inf')), -1)},
           lambda: [(y, torch.softmax(x, -1))])
    yield ('backward', 3 * size, {'d2l': backward, 'torch': torch_backward},
           lambda: [(dx, torch_backward())])


def assert_like_torch(torch, name, ours, theirs, dtype):
    """PyTorch rounds too, so this only says that the same thing is being timed."""
    error = torch.linalg.norm(ours.double() - theirs.double()) / torch.linalg.norm(theirs.double())
    assert error < 10 * battery.TOLERANCES[dtype], '{}: differs by {}'.format(name, float(error))


def bench(device, library):
    """Rows of all cases."""
    torch, rows = device.torch, []
    backend = Torch(device.kind)
    copy = device.copy_bandwidth()
    print('{}: copies {:.0f} GB/s'.format(device.name, copy), flush=True)
    common = {'date': datetime.date.today().isoformat(), 'commit': commit(),
              'device': device.name, 'copy_gbs': '{:.0f}'.format(copy)}
    for op, cases in (('layer_norm', bench_layer_norm), ('masked_softmax', bench_masked_softmax)):
        for dtype in ('float32', 'float16'):
            for shape in DRY_SHAPES if device.dry else SHAPES:
                x = torch.randn(shape, device=device.kind).to(getattr(torch, dtype))
                for part, nbytes, providers, check in cases(torch, library, backend, x):
                    name = '{} {} {} {}x{}'.format(op, part, dtype, *shape)
                    providers['d2l']()
                    for ours, theirs in check():
                        assert_like_torch(torch, name, ours, theirs, dtype)
                    times = device.compare(providers)
                    for provider, (ms, spread) in times.items():
                        rows.append(dict(
                            common, case=name, provider=provider, ms='{:.4g}'.format(ms),
                            spread='{:.2f}'.format(spread),
                            ratio='{:.2f}'.format(ms / times['d2l'][0]),
                            gbs='{:.0f}'.format(nbytes / ms / 1e6),
                            of_copy='{:.2f}'.format(nbytes / ms / 1e6 / copy)))
                        print('{case:<42} {provider:<14} {ms:>9} ms {gbs:>6} GB/s '
                              '{of_copy} of copy, {ratio}x'.format(**rows[-1]), flush=True)
    return rows


def commit():
    try:
        return subprocess.check_output(['git', 'describe', '--always', '--dirty'],
                                       cwd=str(emulated.ROOT), stderr=subprocess.DEVNULL,
                                       text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def save(rows, device, folder):
    name = 'gpu_{}.csv'.format(re.sub(r'[^a-z0-9]+', '_', device.name.lower()).strip('_'))
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open('a', newline='') as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator='\n')
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
    return path


def check_many_elements(library, device, elements, cols=2048):
    """Indices past 2^31: the first and the last rows, against float64 on the device."""
    import torch
    rows = elements // cols
    x = torch.empty(rows, cols, dtype=torch.float16, device=device).normal_()
    ends = [0, 1, rows // 2, rows - 2, rows - 1]
    truth = x[ends].double()
    gamma = torch.ones(cols, dtype=x.dtype, device=device)
    lengths = torch.full((rows,), cols, dtype=torch.int32, device=device)
    for op, inputs, expected in (
            ('layer_norm', [x, gamma, torch.zeros_like(gamma)],
             torch.nn.functional.layer_norm(truth, (cols,))),
            ('masked_softmax', [x, lengths], torch.softmax(truth, -1))):
        launch, outputs = Call(library, Torch(device), op, inputs).prepare(False)
        launch()
        assert_like_torch(torch, op, outputs[0][ends], expected, 'float16')
        del launch, outputs


def gpu_backend():
    try:
        import torch
    except ImportError:
        return Cupy
    if not torch.cuda.is_available():
        sys.exit('PyTorch sees no GPU here; --dry runs without one')
    return Torch


def many_rows():
    """More rows than a GPU has in hand at a time."""
    checks = []
    for cols in battery.PLAN_COLS + (101, 1001, 10001):
        shape = (20000 if cols <= 512 else 4000 if cols <= 2048 else 900, cols)
        for dtype in ('float32', 'float16'):
            checks += [battery.norm(shape, dtype), battery.softmax(shape, dtype)]
    return checks


def check(library, dry):
    """All of battery.py, more rows than the device runs at once, and many elements."""
    if dry:
        backend, checks = functools.partial(Torch, 'cpu'), battery.quick()
    else:
        backend, checks = gpu_backend(), battery.full() + many_rows()
    for one in checks:
        one.run(library, backend)
    if backend is not Cupy:
        check_many_elements(library, 'cpu' if dry else 'cuda', 20480 if dry else (1 << 31) + 4096)
    print(len(checks), 'checks passed', flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--bench', action='store_true')
    parser.add_argument('--dry', action='store_true', help='no GPU: host memory, emulated kernels')
    parser.add_argument('--library', help='a built library; default: build one')
    parser.add_argument('--results', default=str(RESULTS), help='folder for the rows')
    args = parser.parse_args(argv)
    if not args.check and not args.bench:
        parser.error('say --check, --bench or both')
    path = args.library or (emulated.build() if args.dry else build_for_gpu())
    library = Library(path)
    if args.check:
        check(library, args.dry)
    if args.bench:
        device = Device(args.dry)
        print('rows added to', save(bench(device, library), device, args.results))


if __name__ == '__main__':
    sys.exit(main())
