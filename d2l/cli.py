"""The command ``d2l``.

A command is one line in ``COMMANDS``: its name, one line of help, and the module that has
``add_arguments(parser)`` and ``run(args)``, which returns the exit status.  The module is
imported only when its command is asked for, so ``d2l --help`` stays quick.

``d2l env`` lives here, too.  It has to work on the installation that does not: every part is
gathered by itself, and one that fails shows its error in place of its facts.
"""
import argparse
import base64
import csv
import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import time
import warnings

COMMANDS = {
    'env': ('versions, libraries, processor and data, for a bug report', 'd2l.cli'),
    'launch': ('run a script as the workers of one job, on this host or on several',
               'd2l.parallel.launch'),
}


def main(argv=None):
    """Run the command line.  Returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog='d2l', description='Tools of d2l, an extension of MXNet and Gluon.')
    parser.add_argument('--version', action='store_true', help='print the version and exit')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND')
    module = None
    for name, (summary, module_name) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
    args = parser.parse_args(argv)
    if args.version:
        print('d2l', _version_of_d2l())
    elif module is None:
        parser.print_help()
    else:
        return module.run(args)
    return 0


# --- d2l env --------------------------------------------------------------------------------------

PACKAGES = ('numpy', 'pandas', 'matplotlib', 'scipy', 'requests', 'tqdm', 'setuptools', 'pip',
            'gluoncv', 'gluonnlp', 'torch', 'onnx', 'onnxruntime', 'opencv-python',
            'opencv-python-headless', 'tensorboardX', 'graphviz', 'ipython', 'nbconvert', 'pytest')
VARIABLES = ('OMP_NUM_THREADS', 'OMP_PROC_BIND', 'OPENBLAS_CORETYPE', 'OPENBLAS_NUM_THREADS',
             'MKL_NUM_THREADS', 'LD_PRELOAD', 'LD_LIBRARY_PATH', 'CUDA_VISIBLE_DEVICES')
INSTRUCTIONS = ('sse4_2', 'avx', 'f16c', 'fma', 'avx2', 'avx512f', 'avx512bw', 'avx512dq',
                'avx512vl', 'avx512_vnni', 'avx512_bf16', 'amx_bf16')


def add_arguments(parser):
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', RuntimeWarning)
        facts = gather()
    known = facts['problems']
    for warning in caught:
        message = str(warning.message)
        if issubclass(warning.category, RuntimeWarning) and message not in known:
            known.append(message)
    print(json.dumps(facts, indent=2, default=str) if args.json else as_text(facts))
    return 0


def gather():
    """All that ``d2l env`` prints: {section: {name: value}}, and 'problems', a list of texts.

    A section that cannot be gathered holds 'error' instead.
    """
    problems = []
    facts = {}
    # The sections about MXNet come first for its import to be the first thing that happens.
    for section in (_mxnet, _d2l, _python, _packages, _variables, _threads, _memory, _blas,
                    _processor, _operators, _gpus, _data):
        try:
            found = section(problems)
        except Exception as error:  # the report must come out, whatever is broken
            found = {'error': f'{type(error).__name__}: {error}'}
            problems.append(f'{section.__name__.lstrip("_")}: {found["error"]}')
        facts[section.__name__.lstrip('_')] = found
    facts['problems'] = list(dict.fromkeys(problems))
    return facts


def as_text(facts):
    """The facts of ``gather`` as lines to read."""
    lines = []
    for section, values in facts.items():
        if section == 'problems':
            continue
        lines.append(section)
        for name, value in values.items():
            lines += textwrap.wrap(f'  {name:<15} {_inline(value)}', 100, break_long_words=False,
                                   subsequent_indent=' ' * 18, break_on_hyphens=False)
    lines.append('problems')
    for problem in facts['problems'] or ['none found']:
        lines += textwrap.wrap(problem, 100, initial_indent='  ', subsequent_indent='    ',
                               break_long_words=False, break_on_hyphens=False)
    return '\n'.join(lines)


def _inline(value):
    if isinstance(value, dict):
        return ', '.join(f'{key}: {_inline(item)}' for key, item in value.items()) or '-'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_inline, value)) or '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return '-' if value in (None, '') else str(value)


def _mxnet(problems):
    from d2l import _compat
    _compat.prepare()  # d2l/__init__.py does it, unless another distribution has replaced it
    start = time.perf_counter()
    try:
        import mxnet
        facts = {'version': mxnet.__version__}
    except Exception as error:
        problems += _compat.report()['warnings']
        problems.append(_why_mxnet_fails(error, _compat))
        return {'error': f'{type(error).__name__}: {error}'}
    facts['seconds'] = round(time.perf_counter() - start, 2)
    folder = os.path.dirname(mxnet.__file__)
    facts['location'] = folder
    facts['distributions'] = _compat.mxnet_distributions(os.path.dirname(folder))
    features = mxnet.runtime.Features()
    facts['features'] = sorted(name for name in features if features.is_enabled(name))
    facts['features_off'] = sorted(name for name in features if not features.is_enabled(name))
    problems += _compat.report()['warnings']
    return facts


def _why_mxnet_fails(error, compat):
    text = f'MXNet cannot be imported: {error}'
    if isinstance(error, ModuleNotFoundError):
        return text  # says what to install
    if isinstance(error, OSError) and '.so' in str(error):
        return (f'{text}. A library that this build of MXNet needs is missing; the builds for CUDA '
                f'need their CUDA, cuDNN and NCCL. {compat.INSTALL_HINT}')
    if not compat.report()['enabled']:
        return f'{text}. D2L_COMPAT=0 is set: without it d2l mends what newer NumPy breaks'
    return f'{text}. Install it anew: {compat.INSTALL_HINT}'


def _version_of_d2l():
    import d2l
    return getattr(d2l, '__version__', 'of unknown version')


def _d2l(problems):
    from d2l import _compat
    folder = os.path.dirname(os.path.abspath(__file__))
    site = os.path.dirname(folder)
    distribution = _distribution(_compat.DISTRIBUTION)
    facts = {'version': _version_of_d2l(), 'location': folder,
             'distribution': f'{_compat.DISTRIBUTION} {distribution.version}' if distribution
             else 'none (a source tree)',
             'compat': 'on' if _compat.report()['enabled'] else 'off (D2L_COMPAT=0)',
             'numpy_names': (_compat.report()['numpy'] or {}).get('names')}
    others = _compat.other_d2l(site)
    changed = _changed_files(distribution, site)
    if others:
        facts['other'] = others
    if changed:
        facts['changed_files'] = changed
    if changed:
        problems.append(f'Files of {_compat.DISTRIBUTION} are not as they were installed: '
                        f'{", ".join(changed)}')
    if others:
        problems.append(_compat.double_d2l_text(others))
    elif changed:
        problems.append(f'Repair: install {_compat.DISTRIBUTION} again with '
                        'pip install --force-reinstall --no-deps')
    return facts


def _distribution(name):
    from importlib import metadata
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _changed_files(distribution, site):
    """Python files of the installed package that differ from what pip recorded."""
    if distribution is None or not os.path.samefile(site, distribution.locate_file('')):
        return []  # the package in use is a source tree
    changed = []
    # Not distribution.files: from Python 3.12 on it leaves out what is missing.
    for name, digest, _ in csv.reader((distribution.read_text('RECORD') or '').splitlines()):
        if name.startswith('d2l/') and name.endswith('.py'):
            path = distribution.locate_file(name)
            if not os.path.isfile(path) or _digest(path, digest.partition('=')[0]) != digest:
                changed.append(name)
    return changed


def _digest(path, algorithm):
    """A hash in the notation of RECORD."""
    with open(path, 'rb') as file:
        digest = hashlib.new(algorithm, file.read()).digest()
    return f'{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}'


def _python(problems):
    return {'version': platform.python_version(), 'implementation': sys.implementation.name,
            'executable': sys.executable, 'prefix': sys.prefix, 'system': platform.platform(),
            'libc': ' '.join(platform.libc_ver())}


def _packages(problems):
    found = {name: _distribution(name) for name in PACKAGES}
    return {name: distribution.version for name, distribution in found.items() if distribution}


def _variables(problems):
    from d2l import _compat
    cap = _compat.report()['grad_sum_cap'] or {}
    ours = {_compat.GRAD_SUM_CAP} if cap.get('set_by') == 'd2l' else ()
    return {name: value + (' (set by d2l)' if name in ours else '')
            for name, value in sorted(os.environ.items())
            if name in VARIABLES or name.startswith(('D2L_', 'MXNET_', 'DMLC_'))}


def _threads(problems):
    from d2l import _compat
    chosen = _compat.report()['threads']
    processors = len(_compat.allowed_processors())
    facts = {'processors': os.cpu_count(), 'allowed': processors,
             'usable_cores': _compat.usable_cores()}
    if 'mxnet' in sys.modules:
        facts['mxnet_uses'] = _threads_of_mxnet(chosen, processors)
        facts['set_by'] = (f'{chosen["variable"]}={chosen["value"]} ({chosen["set_by"]})'
                           if chosen else 'MXNet')
    return facts


def _threads_of_mxnet(chosen, processors):
    """OpenMP threads of an operator: MXNET_OMP_MAX_THREADS cannot exceed the processors."""
    if os.environ.get('OMP_NUM_THREADS', '').isdigit():
        return int(os.environ['OMP_NUM_THREADS'])
    if chosen and chosen['value'].isdigit():
        return min(int(chosen['value']), processors)
    return max(processors // 2, 1)


def _memory(problems):
    from d2l import _compat
    chosen = _compat.report()['malloc'] or {}
    kept = chosen.get('kept_bytes')
    return {'kept': f'up to {kept >> 20} MiB of freed arrays' if kept else None,
            'set_by': chosen.get('set_by')}


def _blas(problems):
    from d2l import _compat
    chosen = _compat.report()['blas'] or {}
    core = _compat.loaded_openblas_core()
    products = _compat.report()['products'] or {}
    facts = {'kernel': core, 'set_by': chosen.get('set_by'),
             'by_itself': chosen.get('detected'), 'products': _where_products_go(products)}
    if core not in (None, *_compat.AVX_CORES) and _compat.processor_flags() >= _compat.AVX2:
        problems.append(f"MXNet's OpenBLAS runs its {core} kernel, without AVX, on a processor "
                        'that has AVX2: products of matrices are several times slower than they '
                        'could be. Import d2l before mxnet, with OPENBLAS_CORETYPE unset')
    forced = os.environ.get('OPENBLAS_CORETYPE')
    if forced and products.get('core') in _compat.AVX_CORES[:-2] and (
            'avx512f' in _compat.processor_flags()):
        problems.append(f'OPENBLAS_CORETYPE={forced} keeps products of matrices from AVX-512, '
                        'which this processor has. Unset it: d2l chooses the kernels')
    return facts


def _where_products_go(products):
    if products.get('products') == 'modern':
        return f'{products["config"]}, for {", ".join(products["functions"])}'
    return f"MXNet's own OpenBLAS ({products.get('why_bundled') or 'nothing was redirected'})"


def _processor(problems):
    from d2l import _compat
    flags = _compat.processor_flags()
    model = ''
    if os.path.isfile('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            model = next((line.partition(':')[2].strip() for line in file
                          if line.startswith('model name')), '')
    return {'model': model or platform.processor(), 'machine': platform.machine(),
            'instructions': [name for name in INSTRUCTIONS if name in flags]}


def _operators(problems):
    from d2l import _compat
    if 'mxnet' not in sys.modules:
        return {'error': 'not tried: MXNet cannot be imported'}
    try:
        from d2l import ops
        facts = ops.info()
    except Exception as error:
        problems.append(f'd2l.ops cannot be imported: {error}. Files of {_compat.DISTRIBUTION} are '
                        'missing or replaced: install it anew')
        return {'error': f'{type(error).__name__}: {error}'}
    if facts.get('error'):
        problems.append(f'The operators are not loaded: {facts["error"]}')
    elif not facts.get('loaded'):
        there = os.path.exists(str(facts.get('path')))
        reason = 'D2L_OPS=0 is set' if there else 'the file is not there'
        problems.append(f'The operator library {facts.get("path")} is not loaded: {reason}. Slower '
                        "operators, composed from MXNet's own, are used"
                        f'{"" if there else ". Build it with `make build` (needs g++)"}')
    return facts


def _gpus(problems):
    facts = {}
    if 'mxnet' in sys.modules:
        import mxnet
        try:
            facts['seen_by_mxnet'] = mxnet.context.num_gpus()
        except Exception as error:
            facts['seen_by_mxnet'] = f'error: {str(error).strip().splitlines()[-1]}'
    facts['nvidia_smi'] = _nvidia_smi()
    return facts


def _nvidia_smi():
    command = shutil.which('nvidia-smi')
    if command is None:
        return 'not installed'
    query = [command, '--query-gpu=name,driver_version,memory.total,compute_cap',
             '--format=csv,noheader']
    try:
        result = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f'error: {error}'
    lines = result.stdout.strip().splitlines()
    return lines if result.returncode == 0 else f'error: {" ".join(lines) or result.returncode}'


def _data(problems):
    from d2l.utils import _search, hub
    try:
        samples = sorted(_search.sample_index())
    except (OSError, ValueError) as error:
        samples = []
        problems.append(f'The samples that ship with d2l are missing or damaged: {error}')
    return {'cache': os.path.abspath(os.path.expanduser(hub.DEFAULT_CACHE)),
            'D2L_DATA': os.environ.get('D2L_DATA'),
            'system': {folder: sorted(os.listdir(folder)) if os.path.isdir(folder) else 'not there'
                       for folder in _search.SYSTEM_FOLDERS},
            'offline': _search.is_offline(), 'samples': samples}
