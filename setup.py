"""Builds the libraries in d2l/ops; metadata: pyproject.toml.

libd2l_ops.so comes from src/operators: every ``<op>.cc`` is compiled once for each instruction
set, the rest once.  libd2l_blas.so comes from src/blas.  Objects stay in build/ops with their
dependencies, so a change to one operator rebuilds that operator.

Environment: CXX (g++), D2L_WITH_OPS=auto|1|0 (auto: a failed build leaves the composed operators,
with a warning; 1: it is an error; 0: do not build), D2L_WITH_CUDA=1 (needs nvcc; NVCC names it),
D2L_CUDA_ARCH_LIST (for example "70;80;90"; default: what nvcc knows from 70 to 90), D2L_SANITIZE
(for example "address,undefined").
"""
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / 'src' / 'operators'
LIBRARY = ROOT / 'd2l' / 'ops' / 'libd2l_ops.so'
BLAS_SOURCE = ROOT / 'src' / 'blas' / 'blas.cc'
BLAS_LIBRARY = LIBRARY.with_name('libd2l_blas.so')
SYSTEM_LIBRARIES = ['-ldl', '-lpthread']

# What registry.cc's cpu_supports() asks the processor for: GCC's -march=x86-64-v2, -v3 and -v4 as
# far as the kernels use them, spelled out for compilers that lack those names.
TARGETS = {
    'v2': '-msse4.2 -mpopcnt',
    'v3': '-mavx2 -mfma -mbmi -mbmi2',
    'v4': '-mavx2 -mfma -mbmi -mbmi2 -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl '
          '-mprefer-vector-width=512',
}
WARNINGS = '-Wall -Wextra -Wno-unknown-pragmas'
# Errors are return values, so no exceptions; -fno-math-errno and -fno-trapping-math let sqrt and
# comparisons become vector code and change no result.
FLAGS = ('-std=c++17 -O3 -fPIC -fopenmp -fno-exceptions -fno-rtti -fno-math-errno '
         '-fno-trapping-math -fvisibility-inlines-hidden')
# The functions that MXNet looks up keep their visibility; -Bsymbolic: our names win inside.
LINK = '-shared -fopenmp -Wl,-Bsymbolic -Wl,--no-undefined'


class Build:
    """One configuration of the library: compiles what is out of date, then links."""

    def __init__(self, folder, library, sanitize='', cuda=False):
        self.folder, self.library, self.cuda = Path(folder), Path(library), cuda
        self.cxx = shlex.split(os.environ.get('CXX', 'g++'))
        self.flags = shlex.split(FLAGS + ' ' + WARNINGS)
        self.link = shlex.split(LINK)
        if sanitize:
            extra = ['-fsanitize=' + sanitize, '-fno-omit-frame-pointer', '-g', '-O1']
            self.flags += extra
            self.link += extra[:1]

    def run(self):
        jobs = []
        for source in sorted(SOURCES.glob('*.cc')):
            for target, options in TARGETS.items():
                jobs.append((source, target, shlex.split(options)))
        for source in sorted(SOURCES.glob('common/*.cc')) + sorted(SOURCES.glob('mxnet/*.cc')):
            jobs.append((source, 'common', self.cuda_defines() if source.stem == 'c_api' else []))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            objects = list(pool.map(lambda job: self.compile(*job), jobs))
            if self.cuda:
                objects += list(pool.map(self.compile_cuda, sorted(SOURCES.glob('*.cu'))))
        libraries = SYSTEM_LIBRARIES
        if self.cuda:
            libraries = [str(p) for p in cuda_runtime()] + ['-lrt'] + libraries + [
                '-Wl,--exclude-libs,libcudart_static.a']
        command = self.cxx + self.link + [str(o) for o in objects] + libraries
        self.execute(command, self.library, objects)

    def run_blas(self, library):
        """The library that hands MXNet's matrix products to a newer OpenBLAS."""
        out = self.compile(BLAS_SOURCE, 'common', [])
        self.execute(self.cxx + self.link + [str(out)] + SYSTEM_LIBRARIES, library, [out])

    def compile(self, source, target, options):
        out = self.object(source, target)
        command = self.cxx + self.flags + options + ['-DD2L_ISA=' + target, '-MMD', '-MF',
                                                     str(out) + '.d', '-c', str(source)]
        self.execute(command, out, dependencies(out))
        return out

    def compile_cuda(self, source):
        out = self.object(source, 'cuda')
        command = [nvcc(), '-std=c++14', '-O3', '-Xcompiler', '-fPIC', '-DD2L_ISA=cuda', '-c',
                   str(source)]
        # An older nvcc cannot list what it read, so its objects always count as out of date.
        if tuple(map(int, nvcc_version().split('.'))) >= (10, 2):
            command += ['-MMD', '-MF', str(out) + '.d']
        command += [flag for code in cuda_codes() for flag in ('-gencode', code)]
        self.execute(command, out, dependencies(out))
        return out

    def cuda_defines(self):
        if not self.cuda:
            return []
        info = {'version': nvcc_version(), 'archs': [c.split('code=')[1] for c in cuda_codes()]}
        return ['-DD2L_CUDA_BUILD=' + json.dumps(json.dumps(info))]

    def object(self, source, target):
        inside = SOURCES if SOURCES in source.parents else source.parent
        name = '_'.join(source.relative_to(inside).with_suffix('').parts)
        return self.folder / '{}.{}.o'.format(name, target)

    def execute(self, command, out, inputs):
        """Run command + -o out, unless out is newer than all inputs and came from this command."""
        note = self.folder / (out.name + '.cmd')
        line = ' '.join(map(shlex.quote, command))
        if (out.exists() and note.exists() and note.read_text() == line
                and all(p.exists() and p.stat().st_mtime <= out.stat().st_mtime for p in inputs)):
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        print('building', os.path.relpath(str(out), str(ROOT)), flush=True)
        # A process that has the old library mapped keeps it: write beside it, then replace.
        fresh = out.with_suffix(out.suffix + '.tmp')
        done = subprocess.run(command + ['-o', str(fresh)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.stdout:
            print(done.stdout)
        if done.returncode:
            raise RuntimeError('failed: ' + line)
        os.replace(str(fresh), str(out))
        note.write_text(line)


def dependencies(out):
    """The source and the headers that the compiler read the last time."""
    rules = Path(str(out) + '.d')
    if not rules.exists():
        return [rules]  # it does not exist, so the object counts as out of date
    return [Path(n) for n in rules.read_text().replace('\\\n', ' ').split(':', 1)[1].split()]


def nvcc():
    path = os.environ.get('NVCC') or shutil.which('nvcc')
    if not path:
        raise RuntimeError('D2L_WITH_CUDA=1, but nvcc is not on the PATH; set NVCC to name it')
    return path


def nvcc_version():
    text = subprocess.check_output([nvcc(), '--version'], universal_newlines=True)
    return re.search(r'release ([0-9.]+)', text).group(1)


def cuda_codes():
    """The -gencode values: machine code for each architecture, PTX for the newest."""
    wanted = os.environ.get('D2L_CUDA_ARCH_LIST')
    if wanted:
        archs = wanted.replace('.', '').replace(',', ';').split(';')
    else:
        text = subprocess.run([nvcc(), '--list-gpu-arch'], stdout=subprocess.PIPE,
                              text=True).stdout
        known = re.findall(r'compute_(\d+)\b', text) or ['70', '75']  # nvcc before 11 has no list
        # The code for 80 runs on 86, 87 and 89, too.
        archs = [a for a in ('70', '75', '80', '90') if a in known]
    codes = ['arch=compute_{0},code=sm_{0}'.format(a) for a in archs]
    return codes + ['arch=compute_{0},code=compute_{0}'.format(archs[-1])]


def cuda_runtime():
    """libcudart_static.a of nvcc's toolkit, where nvcc itself looks (it may be a wrapper)."""
    said = subprocess.run([nvcc(), '--dryrun', '-c', '-x', 'cu', os.devnull], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    folders = re.findall(r'"-L([^"]+)"', said)
    found = [Path(f) / 'libcudart_static.a' for f in folders]
    found = [p for p in found if p.exists()]
    if not found:
        raise RuntimeError('nvcc has no libcudart_static.a in {}'.format(folders))
    return found[:1]


def build_library():
    wish = os.environ.get('D2L_WITH_OPS', 'auto')
    if wish == '0':
        return
    if platform.system() != 'Linux' or platform.machine() not in ('x86_64', 'AMD64'):
        message = 'the operators are built for Linux on x86-64 only'
        if wish == '1':
            raise RuntimeError(message)
        print('d2l: {}; the composed operators are used'.format(message))
        return
    cuda = os.environ.get('D2L_WITH_CUDA') == '1'
    sanitize = os.environ.get('D2L_SANITIZE', '')
    library, blas = LIBRARY, BLAS_LIBRARY
    folder = ROOT / 'build' / ('ops-cuda' if cuda else 'ops-sanitized' if sanitize else 'ops')
    if sanitize:
        library, blas = folder / LIBRARY.name, folder / BLAS_LIBRARY.name
    try:
        build = Build(folder, library, sanitize, cuda)
        build.run()
        build.run_blas(blas)
    except (RuntimeError, OSError) as error:
        if wish == '1' or cuda:
            raise
        for path in (library, blas):
            if path.exists():
                path.unlink()  # it would not fit the sources
        print('d2l: WARNING: the operators were not built ({}); the composed ones are used. '
              'Install g++ and try again; D2L_WITH_OPS=1 makes this an error.'.format(error))


def import_hook():
    """The line of d2l_gluon.pth.  _compat.py knows the name that its frames have."""
    source = (ROOT / 'src' / 'import_hook.py').read_text(encoding='ascii')
    return "import sys; exec({!r}, {{'__name__': 'd2l_import_hook'}})\n".format(source)


class BuildPy(build_py):
    def run(self):
        build_library()
        super().run()
        # An editable installation takes only what lies where `install` would put it.
        editable = getattr(self, 'editable_mode', False)
        folder = self.get_finalized_command('install').install_lib if editable else self.build_lib
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, 'd2l_gluon.pth'), 'w', encoding='ascii') as file:
            file.write(import_hook())


class BdistWheel(bdist_wheel):
    """The library belongs to the platform but to no Python version: py3-none-linux_x86_64."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = not LIBRARY.exists() and os.environ.get('D2L_WITH_OPS') == '0'

    def get_tag(self):
        if self.root_is_pure:
            return 'py3', 'none', 'any'
        return 'py3', 'none', super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return os.environ.get('D2L_WITH_OPS') != '0'


if __name__ == '__main__':
    if sys.argv[1:] == ['build_ops']:  # `make build`: the library alone, in place
        os.environ.setdefault('D2L_WITH_OPS', '1')
        build_library()
    else:
        setup(cmdclass={'build_py': BuildPy, 'bdist_wheel': BdistWheel},
              distclass=PlatformDistribution)
