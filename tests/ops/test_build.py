"""setup.py's build of the operators, the objects it makes, and how the library is found."""
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest

from d2l.ops import _library

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / 'src' / 'operators'
OPERATORS = sorted(p.stem for p in SOURCES.glob('*.cc'))


def load_setup(sources=None):
    """setup.py as a module of its own, for the sources given."""
    spec = importlib.util.spec_from_file_location('setup_of_test_build', str(ROOT / 'setup.py'))
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    setup.SOURCES = sources or setup.SOURCES
    return setup


def shell(*command, **kwargs):
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **kwargs)


@pytest.fixture(scope='module')
def objects(tmp_path_factory):
    """The folder of the objects that `make build` has made, brought up to date."""
    folder = ROOT / 'build' / 'ops'
    load_setup().Build(folder, tmp_path_factory.mktemp('build') / 'libd2l_ops.so').run()
    return folder


# --- No instruction set gets into the way of another ----------------------------------------------

def shared_symbols(path, target):
    """Symbols that the linker may take from another object and that do not name the target."""
    lines = shell('nm', '-C', '--defined-only', path, check=True).stdout.splitlines()
    symbols = [line.split(' ', 2)[1:] for line in lines]
    return [name for kind, name in symbols
            if kind in 'WVuwv' and 'd2l::{}::'.format(target) not in name]


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('op', OPERATORS)
def test_no_symbol_is_shared_between_instruction_sets(objects, op, target):
    path = objects / '{}.{}.o'.format(op, target)
    assert path.exists() and shared_symbols(path, target) == []


def compile_text(folder, text, *options):
    source, out = folder / 'source.cc', folder / 'source.o'
    source.write_text(text)
    done = shell(*load_setup().Build(folder, out).cxx, '-std=c++17', '-O0', '-fPIC', *options, '-c',
                 source, '-o', out)
    assert done.returncode == 0, done.stdout
    return out


def test_a_shared_symbol_is_noticed(tmp_path):
    text = ('namespace d2l { inline int f() { return 1; } inline namespace v3 {'
            'inline int g() { return f(); } } int h() { return g(); } }')
    assert shared_symbols(compile_text(tmp_path, text), 'v3') == ['d2l::f()']


def load_time_code(path):
    """What an object runs when the library is loaded: (vector instructions, functions called)."""
    table = shell('objdump', '-r', '-j', '.init_array', path).stdout
    starts = set(re.findall(r'R_X86_64_64\s+(\S+)', table))
    assert starts and all(s.startswith('.text.startup') for s in starts), table
    code = shell('objdump', '-dr', '-C', '--no-show-raw-insn', '-j', '.text.startup', path).stdout
    vector = [line for line in code.splitlines()
              if re.search(r'%[xyz]mm\d|%k\d', line) or re.match(r'\s*[0-9a-f]+:\s+v[a-z]', line)]
    return vector, sorted(set(re.findall(r'R_X86_64_(?:PLT32|PC32)\s+(\w[^\n]*?)(?:-0x\w+)?\n',
                                         code)))


@pytest.mark.parametrize('target', ['v3', 'v4'])
@pytest.mark.parametrize('op', OPERATORS)
def test_the_library_can_be_loaded_by_any_processor(objects, op, target):
    vector, called = load_time_code(objects / '{}.{}.o'.format(op, target))
    assert vector == [] and called == ['d2l::register_op(d2l::Op const&)']


def test_vector_code_at_load_is_noticed(tmp_path):
    text = ('double a[8], b[8]; __attribute__((constructor)) static void f() {'
            'for (int i = 0; i < 8; ++i) a[i] += b[i]; }')
    vector, called = load_time_code(compile_text(tmp_path, text, '-mavx2', '-O3'))
    assert vector and not called


# --- MXNet's interface ----------------------------------------------------------------------------

INCLUDE = Path(mx.libinfo.find_include_path())


def check_abi(source, *options):
    return shell(*load_setup().Build('', '').cxx, '-std=c++17', '-fsyntax-only', '-w', '-fopenmp',
                 '-DD2L_CHECK_ABI', '-I', INCLUDE, '-I', SOURCES / 'mxnet', *options, source)


@pytest.mark.parametrize('file', ['abi.cc', 'unused.cc', 'push.h', 'fresh.h', 'direct.h'])
def test_declarations_are_those_of_mxnet(file):
    assert check_abi(SOURCES / 'mxnet' / file).stdout == ''


@pytest.mark.parametrize('file, changes', [
    ('abi.cc', [('_opVersion', 'int _opVersion(', 'long _opVersion('),
                ('_opCallInferType', 'int count, int* in_types', 'int count, const int* in_types'),
                ('_opCallFCompute', 'const int64_t** in_shapes', 'int64_t** in_shapes'),
                ('_opCallInferShape', 'unsigned*** out_dims', 'int*** out_dims')]),
    ('unused.cc', [('_partRegSize', 'int _partRegSize(', 'long _partRegSize('),
                   ('_passRegGet', '_passRegGet(int, graphPass_t*', '_passRegGet(int, void*')]),
    ('push.h', [('MXEnginePushSyncND', 'const void* property, int priority',
                 'const void* property, long priority')]),
    ('fresh.h', [('MXNDArrayGetGradState', 'int* fresh', 'long* fresh'),
                 ('MXNDArraySetGradState', 'void* array, int fresh', 'void* array, long fresh')]),
    ('direct.h', [('MXNDArrayGetData', 'void* array, void** data', 'void* array, char** data')])])
def test_a_wrong_declaration_is_noticed(tmp_path, file, changes):
    text = (SOURCES / 'mxnet' / file).read_text().replace('"../common', '"../../common')
    for _, right, wrong in changes:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    # Beside a link to the headers, since they are found from where the source stands.
    (tmp_path / 'common').symlink_to(SOURCES / 'common')
    (tmp_path / 'mxnet' / 'changed').mkdir(parents=True)
    source = tmp_path / 'mxnet' / 'changed' / file
    source.write_text(text)
    done = check_abi(source)
    assert done.returncode != 0
    for name, _, _ in changes:
        assert re.search(r'error: .*{}'.format(name), done.stdout), name


# What layout.h and d2l/ops/_push.py take for granted of classes, most of whose members are private.
LAYOUT = '''
#include <mxnet/ndarray.h>
#include <mxnet/op_attr_types.h>
#include <nnvm/op.h>

#include "layout.h"

#define SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs), #ours)
#define SAME(ours, member, theirs, name)                                       \\
  static_assert(offsetof(ours, member) == offsetof(theirs, name) &&            \\
                    sizeof(((ours*)0)->member) == sizeof(((theirs*)0)->name), \\
                #ours "::" #member)

using mxnet::Context;
using mxnet::NDArray;
using mxnet::Storage;
using mxnet::TShape;
using d2l::Array;
using d2l::ArrayShape;
using d2l::Chunk;

constexpr int word = sizeof(void*);
static_assert(offsetof(NDArray::Chunk, shandle) == 0, "Chunk");
SAME(Chunk, data, Storage::Handle, dptr);
SAME(Chunk, size, Storage::Handle, size);
static_assert(offsetof(Context, dev_type) == 0 && offsetof(Context, dev_id) == 4, "Context");
static_assert(sizeof(Context) == 8 && sizeof(Context().dev_type) == 4, "Context");

SAME_SIZE(Array, NDArray);
SAME(Array, chunk, NDArray, ptr_);
SAME(Array, shape, NDArray, shape_);
SAME(Array, byte_offset, NDArray, byte_offset_);
SAME(Array, dtype, NDArray, dtype_);
SAME(Array, reuse, NDArray, reuse_);
SAME(Array, storage_type, NDArray, storage_type_);
static_assert(mxnet::kDefaultStorage == 0, "dense");

SAME_SIZE(ArrayShape, TShape);
SAME(ArrayShape, ndim, TShape, ndim_);
SAME(ArrayShape, on_stack, TShape, data_stack_);
SAME(ArrayShape, on_heap, TShape, data_heap_);
static_assert(TShape::kStackCache == 4, "dims()");

static_assert(offsetof(d2l::Operator, index) == offsetof(nnvm::Op, index_), "Operator");
typedef nnvm::OpMap<mxnet::FComputeEx> Computes;
SAME_SIZE(d2l::OpMap<d2l::Compute>, Computes);
SAME(d2l::OpMap<d2l::Compute>, values, Computes, data_);
typedef std::pair<d2l::Compute, int> Ours;
typedef std::pair<mxnet::FComputeEx, int> Theirs;
SAME_SIZE(Ours, Theirs);
SAME(Ours, second, Theirs, second);
static_assert(sizeof(mxnet::OpReqType) == sizeof(int), "requests");
SAME_SIZE(d2l::NodeEntry, nnvm::NodeEntry);
SAME(d2l::NodeEntry, node, nnvm::NodeEntry, node);
SAME_SIZE(nnvm::ObjectPtr, std::shared_ptr<void>);
static_assert(offsetof(dmlc::any, data_) == offsetof(d2l::Any, held), "Any");
static_assert(sizeof(Computes) > sizeof(dmlc::any::Data), "it is held elsewhere");

SAME_SIZE(d2l::OldString, std::string);
SAME(d2l::NodeAttrs, op, nnvm::NodeAttrs, op);
SAME(d2l::NodeAttrs, name, nnvm::NodeAttrs, name);
typedef std::unordered_map<std::string, std::string> Dict;
static_assert(std::is_same<Dict, decltype(nnvm::NodeAttrs::dict)>::value, "dict");
constexpr int dict = offsetof(nnvm::NodeAttrs, dict);
static_assert(offsetof(d2l::NodeAttrs, items) == dict + offsetof(Dict, _M_h._M_before_begin), "");
static_assert(offsetof(d2l::NodeAttrs, count) == dict + offsetof(Dict, _M_h._M_element_count), "");
typedef Dict::_Hashtable::__node_type Node;
static_assert(offsetof(d2l::NodeAttrs::Item, next) == offsetof(Node, _M_nxt), "Item");
static_assert(offsetof(d2l::NodeAttrs::Item, key) == offsetof(Node, _M_storage), "Item");
'''


@pytest.mark.parametrize('right', [True, False])
def test_arrays_are_laid_out_as_we_take_them(tmp_path, right):
    source = tmp_path / 'layout.cc'
    source.write_text(LAYOUT if right else LAYOUT.replace('shape_);', 'byte_offset_);'))
    done = check_abi(source, '-fno-access-control', '-D_GLIBCXX_USE_CXX11_ABI=0', *(
        f'-DMSHADOW_USE_{name}=0' for name in ('CBLAS', 'MKL', 'CUDA', 'F16C')))
    assert (done.returncode == 0) is right, done.stdout


def test_every_function_that_mxnet_looks_up_is_there():
    header = (INCLUDE / 'mxnet' / 'lib_api.h').read_text()
    names = re.findall(r'#define MXLIB_\w+_STR\s+"(\w+)"', header)
    assert len(names) >= 30 and '_opCallFCompute' in names
    assert [n for n in names if not hasattr(_library.library().c, n)] == []


# --- What is built anew, and when -----------------------------------------------------------------

@pytest.fixture(scope='module')
def workshop(tmp_path_factory):
    """A copy of the sources, and a function that builds it and returns what was made."""
    folder = tmp_path_factory.mktemp('workshop')
    shutil.copytree(str(SOURCES), str(folder / 'src'))
    setup = load_setup(folder / 'src')

    class RecordedBuild(setup.Build):
        """Compiles to preprocessed text and links to nothing: what counts is what is made."""

        def execute(self, command, out, inputs):
            if out == self.library:
                command = [sys.executable, '-c', 'import sys; open(sys.argv[-1], "w")'] + command
            before = out.stat().st_mtime_ns if out.exists() else None
            super().execute(command, out, inputs)
            if out.stat().st_mtime_ns != before:
                self.made.append(out.name)

    def build(flags='-E'):
        new = RecordedBuild(folder / 'objects', folder / 'lib.so')
        new.made, new.flags = [], ['-std=c++17', '-w'] + flags.split()
        new.run()
        return sorted(new.made)
    build.everything = build()
    return folder / 'src', build


def objects_of(*ops):
    return sorted('{}.{}.o'.format(op, target) for op in ops for target in ('v2', 'v3', 'v4'))


def touch(path):
    path.write_text(path.read_text() + '\n')


@pytest.mark.slow
def test_build_makes_every_object_once_and_then_nothing(workshop):
    sources, build = workshop
    common = ['{}_{}.common.o'.format(p.parent.name, p.stem)
              for folder in ('common', 'mxnet') for p in (sources / folder).glob('*.cc')]
    assert build.everything == sorted(objects_of(*OPERATORS) + common + ['lib.so'])
    assert build() == []


@pytest.mark.slow
def test_a_change_to_one_operator_builds_that_operator(workshop):
    sources, build = workshop
    for name in ('masked_softmax.cc', 'masked_softmax.h'):
        touch(sources / name)
        assert build() == ['lib.so'] + objects_of('masked_softmax')
    touch(sources / 'mxnet' / 'abi.cc')
    assert build() == ['lib.so', 'mxnet_abi.common.o']
    touch(sources / 'common' / 'reduce.h')
    made = build()
    assert set(made) <= set(['lib.so'] + objects_of(*OPERATORS)) and 'layer_norm.v4.o' in made
    assert build() == []


@pytest.mark.slow
def test_other_flags_and_lost_objects_are_built_again(workshop):
    sources, build = workshop
    (sources.parent / 'objects' / 'layer_norm.v3.o').unlink()
    assert build() == ['layer_norm.v3.o', 'lib.so']
    assert build('-E -DNDEBUG') == build.everything
    assert build() == build.everything


def test_a_new_operator_is_built_without_the_others(workshop):
    sources, build = workshop
    shutil.copy(str(sources / 'masked_softmax.cc'), str(sources / 'other.cc'))
    assert build() == ['lib.so'] + objects_of('other')
    (sources / 'other.cc').unlink()
    assert build() == ['lib.so']


def test_an_error_leaves_the_old_library(workshop):
    sources, build = workshop
    path = sources / 'layer_norm.cc'
    text = path.read_text()
    path.write_text(text + '#error not yet\n')
    with pytest.raises(RuntimeError, match='failed: .*layer_norm.cc'):
        build()
    assert (sources.parent / 'lib.so').exists()
    path.write_text(text)
    assert build()


@pytest.mark.parametrize('wish', ['auto', '1', '0'])
def test_without_a_compiler(wish, tmp_path, monkeypatch, capsys):
    setup = load_setup()
    setup.ROOT, setup.LIBRARY = tmp_path, tmp_path / 'libd2l_ops.so'
    setup.BLAS_LIBRARY = tmp_path / 'libd2l_blas.so'
    setup.LIBRARY.write_text('an old one')
    monkeypatch.setenv('CXX', str(tmp_path / 'no-such-compiler'))
    monkeypatch.setenv('D2L_WITH_OPS', wish)
    if wish == '1':
        with pytest.raises(OSError, match='no-such-compiler'):
            setup.build_library()
    else:
        setup.build_library()
    said = capsys.readouterr().out
    assert ('WARNING: the operators were not built' in said) == (wish == 'auto')
    assert setup.LIBRARY.exists() == (wish != 'auto')


# --- How the library is found and which instruction set runs --------------------------------------

SCRIPT = """
import json, logging, sys
messages = []
handler = logging.Handler()
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger('d2l').addHandler(handler)
logging.getLogger('d2l').propagate = False
from d2l import ops
from mxnet import autograd, np, npx
import numpy
npx.set_np()
rng = numpy.random.RandomState(0)
x, gamma, beta = (np.array(rng.standard_normal(s), dtype='float32') for s in ((5, 77), 77, 77))
found = {'info': ops.info(), 'available': ops.available(), 'error': None, 'results': []}
for _ in range(2):
    try:
        x.attach_grad()
        with autograd.record():
            y = ops.layer_norm(x, gamma, beta)
        y.backward(gamma * np.ones_like(x))
        found['results'] = [y.tolist(), x.grad.tolist(),
                            ops.masked_softmax(x, np.array([0, 1, 40, 77, 99])).tolist()]
    except Exception as error:
        found['error'] = [type(error).__name__, isinstance(error, ImportError), str(error)]
print(json.dumps(dict(found, messages=messages)))
"""


def in_fresh_process(**environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith('D2L_')}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT], capture_output=True,
                          text=True, env=dict(clean, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1',
                                              **environment))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def usual():
    """What a process says to which nothing special was done."""
    found = in_fresh_process()
    assert found['info']['loaded'] and not found['error'] and not found['messages']
    assert found['available'] == OPERATORS and sorted(found['info']['operators']) == OPERATORS
    return found


def assert_same_results(found, usual, tolerance):
    assert found['error'] is None
    for got, want in zip(found['results'], usual['results']):
        onp.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def test_the_best_instruction_set_is_taken(usual):
    c = _library.library().c
    able = [t for t in ('v2', 'v3', 'v4') if c.d2l_cpu_supports(t.encode())]
    assert usual['info']['isas'] == ['v2', 'v3', 'v4'] and usual['info']['isa'] == able[-1]


@pytest.mark.parametrize('target', ['v2', 'v3'])
def test_an_instruction_set_is_forced(target, usual, runs_target):
    runs_target(target)
    found = in_fresh_process(D2L_ISA=target)
    assert found['info']['isa'] == target and not found['messages']
    assert_same_results(found, usual, 3e-6)


def test_a_wrong_instruction_set():
    found = in_fresh_process(D2L_ISA='v9')
    assert not found['info']['loaded'] and found['available'] == []
    name, is_import_error, text = found['error']
    assert name == 'LibraryError' and is_import_error and text == found['info']['error']
    assert 'D2L_ISA must name' in text and text.endswith('got v9')
    assert found['messages'] == [text]


def test_an_instruction_set_that_this_processor_lacks(monkeypatch):
    c = _library.library().c
    lacking = [t for t in ('v2', 'v3', 'v4') if not c.d2l_cpu_supports(t.encode())]
    if not lacking:
        pytest.skip('this processor has all instruction sets')
    monkeypatch.setenv('D2L_ISA', lacking[0])
    with pytest.raises(_library.LibraryError, match='this processor has .*got ' + lacking[0]):
        _library.Library(_library.library().path)


def test_a_missing_library_is_replaced_with_one_warning(usual, tmp_path):
    path = str(tmp_path / 'nowhere.so')
    found = in_fresh_process(D2L_OPS_LIBRARY=path)
    assert not found['info']['loaded'] and found['info']['error'] is None
    assert len(found['messages']) == 1 and path in found['messages'][0]
    assert_same_results(found, usual, 1e-5)


def test_a_library_switched_off_is_replaced_in_silence(usual):
    found = in_fresh_process(D2L_OPS='0')
    assert not found['info']['loaded'] and found['messages'] == []
    assert_same_results(found, usual, 1e-5)


def test_a_broken_library_is_an_error_when_an_operator_is_called(tmp_path):
    path = tmp_path / 'libbroken.so'
    path.write_text('this is not a library')
    found = in_fresh_process(D2L_OPS_LIBRARY=str(path))
    name, is_import_error, text = found['error']
    assert name == 'LibraryError' and is_import_error
    assert str(path) in text and 'make build' in text and 'D2L_OPS=0' in text
    assert found['messages'] == [text] and not found['info']['loaded']


def test_the_library_of_somebody_else(tmp_path):
    source, path = tmp_path / 'other.cc', tmp_path / 'libother.so'
    source.write_text('int other;\n')
    shell(*load_setup().Build('', '').cxx, '-shared', '-fPIC', source, '-o', path, check=True)
    with pytest.raises(_library.LibraryError, match='libother.so cannot be loaded: .*d2l_'):
        _library.Library(str(path))
