"""Builds the operator library with its CUDA twins compiled for the CPU emulator of CUDA threads.

    python tests/gpu/emulated.py [--sanitize address,undefined] [--folder build/emulated]

The library has the rules and CPU kernels (instruction set v2), the plain C interface, and the
.cu files as they are, with cuda_emulator.h in place of nvcc.  Objects that are up to date stay.
"""
import argparse
import contextlib
import fcntl
import importlib.util
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = ROOT / 'src' / 'operators'
FOLDER = ROOT / 'build' / 'emulated'


def load_setup():
    """setup.py as a module: its Build knows what is out of date."""
    spec = importlib.util.spec_from_file_location('d2l_setup', str(ROOT / 'setup.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def locked(folder):
    """Two test runs at a time must not write the same objects."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def build(folder=FOLDER, sources=SOURCES, sanitize='', extra=()):
    """The path of the library, built in folder from a tree like src/operators; extra: .cu files."""
    setup = load_setup()
    folder, sources = Path(folder), Path(sources)

    class EmulatedBuild(setup.Build):
        def run(self):
            self.flags = [f for f in self.flags if not f.startswith(('-O', '-g'))] + ['-O1']
            if sanitize:  # without -g, without checks for null: they double the time of the build
                self.flags += ['-fno-sanitize-recover=all', '-fno-sanitize=null']
            jobs = [(s, 'v2', shlex.split(setup.TARGETS['v2'])) for s in sources.glob('*.cc')]
            jobs += [(s, 'common', []) for s in sources.glob('common/*.cc')]
            # As nvcc of CUDA 10.1 would read it.
            jobs += [(s, 'cuda', ['-std=c++14', '-DD2L_EMULATE_CUDA', '-include',
                                  str(HERE / 'cuda_emulator.h'), '-I', str(sources),
                                  '-x', 'c++'])
                     for s in [*sources.glob('*.cu'), *map(Path, extra)]]
            objects = [self.compile(*job) for job in sorted(jobs, key=str)]
            command = self.cxx + self.link + [str(o) for o in objects] + ['-lpthread']
            self.execute(command, self.library, objects)

        def object(self, source, target):
            inside = source.relative_to(sources) if sources in source.parents else Path(source.name)
            name = '_'.join(inside.with_suffix('').parts)
            return self.folder / '{}.{}.o'.format(name, target)

    library = folder / 'libd2l_emulated.so'
    with locked(folder):
        EmulatedBuild(folder, library, sanitize).run()
    return library


def sanitizer_environment():
    """What a process needs to load a library built with address,undefined."""
    cxx = shlex.split(os.environ.get('CXX', 'g++'))
    paths = [subprocess.check_output(cxx + ['-print-file-name=' + name], text=True).strip()
             for name in ('libasan.so', 'libubsan.so')]
    return dict(os.environ, LD_PRELOAD=' '.join(paths),
                ASAN_OPTIONS='detect_leaks=0:detect_stack_use_after_return=0')


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--folder', default=str(FOLDER))
    parser.add_argument('--sanitize', default='')
    args = parser.parse_args(argv)
    print(build(args.folder, sanitize=args.sanitize))


if __name__ == '__main__':
    sys.exit(main())
