"""Plants faults in a copy of the CUDA sources, to show that the checks find them.

All of them go into one copy, each behind a condition on the variable d2l_fault (0: none of them),
so that one build serves for all.  A fault is (what it is, file, text); in the text,
@@right@@wrong@@ stands for the right code and what takes its place.  Right code that ends with a
semicolon is a statement, other code an expression.  The text must occur exactly once in the file.

    python tests/gpu/faults.py LIBRARY     # runs the quick checks for each fault, prints JSON
"""
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

import battery
from driver import Guarded, Library
from emulated import ROOT, SOURCES, build

CUDA, NORM, SOFTMAX = 'common/cuda.h', 'common/norm_cuda.h', 'masked_softmax.cu'
ELEMENTS, BIAS = 'activation.cu', 'common/bias_cuda.h'
ENTROPY, TABLE = 'masked_softmax_ce.cu', 'embedding.cu'
DROPOUT, SUM = 'dropout.cu', 'add_norm.cu'
ATTENTION, TILES = 'attention.cu', 'common/attention_cuda.h'
ADDITIVE, CONV, PRODUCT = 'additive_attention.cu', 'conv2d.cu', 'common/products_cuda.h'
POSITIONS, DENSE, LAYERS = 'positional_encoding.cu', 'dense.cu', 'multi_dense.cu'

# The entries read are not used, so no number is wrong: this one is for the address sanitizer.
OVERREAD = 'load past the end of a row'

FAULTS = [
    ('reduction without its barrier', CUDA,
     '    @@__syncthreads();@@@@\n#pragma unroll\n    for (int k = 0; k < n; ++k) {\n'),
    ('reduction with one scratch for all turns', CUDA, 'turn_ ^= @@1@@0@@;'),
    ('barrier that a part of the block does not reach', CUDA,
     '    @@__syncthreads();@@if (threadIdx.x < 64) __syncthreads();@@\n#pragma unroll\n'
     '    for (int k = 0; k < n; ++k) {\n'),
    ('reduction over half a warp', CUDA, 'int distance = @@16@@8@@;'),
    ('reduction that stops before neighbours', CUDA, 'distance > @@0@@1@@;'),
    ('wrong mask of lanes', CUDA, '__shfl_xor_sync(@@0xffffffffu@@0x7fffffffu@@, value'),
    ('part of the wrong warp', CUDA, 'part[@@threadIdx.x / 32@@threadIdx.x / 32 + 1@@][k] = value'),
    ('part of every other warp', CUDA, 'if (@@threadIdx.x % 32 == 0@@threadIdx.x % 64 == 0@@) {'),
    ('last warp left out', CUDA, 'w < @@kWarps@@kWarps - 1@@; ++w'),
    ('mask off by one', CUDA, '@@Plan::column(i) < n@@Plan::column(i) <= n@@ ? load('),
    ('load that leaves the tail out', CUDA, 'if (@@c < n@@c + kVector < n@@) pack[p]'),
    ('store past the end of a row', CUDA, 'if (@@c < cols@@true@@) *reinterpret_cast'),
    ('store that leaves the tail out', CUDA,
     'if (@@c < cols@@c + kVector < cols@@) *reinterpret_cast'),
    ('columns of a thread in the wrong order', CUDA, '+ @@item % kVector@@(item + 1) % kVector@@;'),
    ('step over rows too long', CUDA,
     'static_cast<int64_t>(@@gridDim.x@@gridDim.x + 1@@) * kRows'),
    ('more threads than a block can have', CUDA, 'blocks, @@threads@@threads + 1024@@, stream'),
    ('packs at addresses that are not aligned', CUDA,
     'if (@@reinterpret_cast<uintptr_t>(p) % bytes != 0@@false@@) return'),
    ('padding counted in the variance', NORM, 'if (@@Plan::column(i) >= cols@@false@@) continue'),
    ('statistics of one row in a block', NORM, 'if (@@Plan::thread() == 0@@threadIdx.x == 0@@) {'),
    ('groups that add their sums at once', NORM,
     '      }\n    }\n    @@__syncthreads();@@@@\n  }\n}'),
    ('sums of the first group lost', NORM, 'if (@@turn > 0@@turn > 1@@) {'),
    ('workspace overrun', NORM,
     'partial + static_cast<int64_t>(@@blockIdx.x@@blockIdx.x + 1@@) * 2'),
    ('part left out', NORM, 'part < @@parts@@parts - 1@@;'),
    ('parts added without their barrier', NORM,
     '  tile[threadIdx.y][threadIdx.x] = sum;\n  @@__syncthreads();@@@@'),
    ('threads that leave before a barrier', NORM,
     '@@tile[threadIdx.y][threadIdx.x] = sum;@@'
     'if (c >= 2 * cols) return; tile[threadIdx.y][threadIdx.x] = sum;@@'),
    ('dbeta written behind itself', NORM, 'dbeta[@@c - cols@@c@@] = total'),
    ('sums over rows that do not exist', NORM, 'last = @@end < rows ? end : rows@@end@@;'),
    ('row left out of the sums', NORM, 'row += @@kRowLanes@@kRowLanes + 1@@)'),
    ('gradient without its second mean', NORM,
     'h[i] = layer_norm_dx(h[i], xhat[i], rs, mean_h, @@mean_h_xhat@@A(0)@@)'),
    ('row without valid entries divided by its sum', SOFTMAX,
     'item[i] = @@n == 0@@false@@ ? uniform'),
    ('masked entries of a row of NaNs', SOFTMAX,
     '(@@Plan::column(i) < n@@true@@ ? item[i] * scale'),
    ('masked entries in the maximum', SOFTMAX,
     'c < @@n@@cols@@; c += kLongThreads) m[0] = fmax'),
    ('masked gradient read', SOFTMAX,
     'c < @@n@@cols@@; c += kLongThreads) total[0] += load(yr[c])'),
    ('gradient of valid_len not written', SOFTMAX,
     '@@if (int status = zero(none, resources.stream)) return status;@@@@'),
    ('end of the array left out', ELEMENTS,
     'i = @@packs * kVector + thread_of_grid()@@n@@; i < n; i += threads_of_grid()) {\n    y[i]'),
    ('packs where arrays are not aligned', ELEMENTS, '@@aligned(16, {dy, saved, dx})@@true@@, kV'),
    ('gradient of gelu from its result', ELEMENTS, 'saved = @@F::kFromInput@@false@@ ? x : y'),
    ('rows that do not exist in the gradient of a bias', BIAS, '@@end < rows ? end : rows@@end@@}'),
    ('sums of a bias added without their barrier', BIAS,
     '[threadIdx.x] = sum;\n  @@__syncthreads();@@@@\n  if (threadIdx.y > 0 || c >= cols) return;\n'
     '  for (int lane = 1; lane < kRowLanes; ++lane) sum += tile[lane][threadIdx.x];\n  partial'),
    ('part of the gradient of a bias left out', BIAS, 'part < @@parts@@parts - 1@@;'),
    ('loss of a step that does not count', ENTROPY,
     'if (@@!in.valid(row)@@false@@) {\n      if (Plan::thread() == 0)'),
    ('padding counted in the smoothing', ENTROPY,
     'if (@@Plan::column(i) >= cols@@false@@) continue'),
    ('gradient without its label', ENTROPY, 'column == label ? @@on_label@@A(0)@@ :'),
    ('losses of another example', ENTROPY, 'losses[b * @@steps@@(steps - 1)@@ + t]'),
    ('gradient of a label not written', ENTROPY,
     '@@if (int status = zero(call.grad_inputs[i], resources.stream)) return status;@@@@'),
    ('segment of another row', TABLE, 'in.segments.at(@@r@@r + 1@@, in.num_segments)'),
    ('digits counted without their barrier', TABLE, '@@__syncthreads();@@@@\n  int total = 0;'),
    ('digits past the end counted', TABLE, '% kDigits : @@-1@@0@@;'),
    ('places given twice', TABLE, '    @@next += own;@@@@\n'),
    ('order among equals lost', TABLE, 'for (int j = @@0@@1@@; j < t; ++j) before'),
    ('sort by the first digit only', TABLE, '} while (@@(count - 1) >> pass.shift > 0@@false@@);'),
    ('run without its last entry', TABLE, 'i < @@end@@end - (end > begin + 1)@@; ++i) sum'),
    ('steps without an entry', TABLE, 'if (@@i < steps * cols@@true@@) {'),
    ('gradient of rows not used left as it was', TABLE,
     '@@if (int status = zero(dtable, stream)) return status;@@@@'),
    ('mask of the other half of a word', DROPOUT, 'upper = @@k < 4@@k >= 4@@ ? word'),
    ('mask drawn before the seed is there', DROPOUT,
     'shared = dropout_of(state, p);\n  @@__syncthreads();@@@@'),
    ('gradient of Y without its mask', SUM, 'item[i] = @@dropped(item[i], factor('
     'row, Plan::column(i)))@@item[i]@@;'),
    ('gradient of Y in long rows without its mask', SUM,
     'dy[row * cols + c] = ::d2l::store<T>(@@dropped(value, factor(row, c))@@value@@);'),
    ('product of a tile without its barrier', TILES,
     'load_tile<T, A, kLanesOfTile, kChunk>(lanes, first_lane, c, tiles->lanes);\n'
     '    @@__syncthreads();@@@@'),
    ('key behind the last that counts', TILES,
     'key < (count == 0 ? in.size.keys : @@count@@count + 1@@)'),
    ('query without keys that looks at none', TILES,
     'key < (count == 0 ? @@in.size.keys@@int64_t{0}@@ : count)'),
    ('sum of values that does not shrink', TILES, 'sum[r][i] *= @@shrink@@A(1)@@;'),
    ('total that does not shrink', TILES, 'total[r] * @@shrink@@A(1)@@ +'),
    ('weights of dropout in the total', TILES,
     'total[r] = total[r] * shrink + warp_reduce(@@p@@weight[r]@@, Sum());'),
    ('statistics of the wrong query', TILES,
     'inverse[@@at@@at - at % in.size.queries@@] = scale'),
    ('gradient of what dropout dropped', TILES,
     'attention_ds(p, grad * @@factor@@A(1)@@, saved.delta[row])'),
    ('gradient of a query without keys', TILES, 'if (@@count > 0@@true@@) *grad_score'),
    ('queries skipped that look at the last tile of keys', ATTENTION,
     '<= @@block.first@@block.first + kRows@@) continue;'),
    ('last chunk of columns left out', ATTENTION,
     'key_chunks = tiles_of(@@widest@@size.dim@@, kColumns)'),
    ('features beyond the last', ADDITIVE, 'return @@c < hidden@@true@@ ?'),
    ('slopes of the wrong lane', ADDITIVE,
     'const A ds = tiles->weights[warp * kRowsOfWarp + r][@@j@@lane@@];'),
    ('slopes before their tile is there', ADDITIVE,
     'grad_score[r];\n  }\n  @@__syncthreads();@@@@\n  for (int j'),
    ('features of one warp', ADDITIVE, 'w < @@kAttentionThreads / 32@@1@@; ++w'),
    ('features without their barrier', ADDITIVE,
     'features[i];\n  }\n  @@__syncthreads();@@@@\n  if (threadIdx.x >='),
    ('parts of dv in the wrong place', ADDITIVE,
     'block.b * row_tiles + @@block.first / kRows@@0@@) * in.size.dim'),
    ('part of dv left out', ADDITIVE, 'part < @@parts@@parts - 1@@; part'),
    ('dk without v', ADDITIVE, '@@times_v(term, block.column, sum_key);@@@@'),
    ('row above a picture', CONV, 'if (@@row < 0 || row >= s.height@@row >= s.height@@) continue;'),
    ('gradient of a place beside a picture', CONV,
     'if (@@col >= 0 && col < s.out_width()@@col >= 0@@) sum'),
    ('sums of a weight over one picture', CONV, 'at < @@s.batch * places@@places@@; at +='),
    ('gradient of a bias left out', CONV, '+ (@@given(grad[2])@@false@@ ? s.channels'),
    ('product read before its tile is there', PRODUCT,
     'depth, tiles.right);\n      @@__syncthreads();@@@@\n#pragma unroll'),
    ('product whose tile is written while it is read', PRODUCT,
     'depth += kStep) {\n      @@__syncthreads();@@@@\n      load_product_tile(left'),
    ('entries beyond the last of depth', PRODUCT, '&& @@col < from.cols@@true@@ ?'),
    ('column of the wrong tile', PRODUCT, 'col = @@t % col_tiles@@0@@ * kTile'),
    ('entries beyond the last column', PRODUCT, '&& @@c < right.rows@@true@@) {'),
    ('products beyond the first of a block', PRODUCT, 't += @@gridDim.x@@count@@) {'),
    ('bias of another column', DENSE, 'load(b[@@c@@c > 0 ? c - 1 : c@@])'),
    ('gradients without the slope', DENSE, 'g = {@@params.activates@@false@@ ? on.g : dy,'),
    ('g where the sums of its bias are', DENSE, 'parts + @@sums(call.inputs)@@0@@)'),
    ('workspace without room for the sums', DENSE, 'return @@sums(in)@@0@@ * acc_size'),
    ('sums for a bias that is not there', BIAS, 'if (@@!partial@@false@@) return;'),
    ('gradient of data from the last layer alone', LAYERS,
     'store<T>(@@load(dx[i])@@Acc<T>(0)@@ + load(part[i]))'),
    ('workspace without room for a share of dx', LAYERS, '+ @@volume(in[0].shape)@@0@@ * size_of'),
    ('third result that is not written', LAYERS, 'if (@@layers == kMostLayers@@true@@) return 0;'),
    ('positions that do not go on from past', POSITIONS, 'sincos((@@past@@0@@ + row)'),
    ('cosine behind the last column', POSITIONS, 'if (@@2 * pair + 1 < cols@@true@@) at[1]'),
    ('pairs beyond the first of a grid', POSITIONS, 't += @@step@@steps * pairs@@) {'),
    ('kernel for the dtype of the input', CUDA,
     'switch (@@kernel_dtype<Twin>(call, nullptr)@@call.inputs[0].dtype@@) {\n'
     '      case DType::kFloat32: return Twin::template forward'),
    (OVERREAD, CUDA, 'if (@@c < n@@true@@) pack[p]'),
]


def _find(text, pattern):
    """Where the right code starts and ends, and what is wrong in its place."""
    before, right, wrong, after = pattern.split('@@')
    whole = before + right + after
    if text.count(whole) != 1:
        raise ValueError('{} times in the source, must be once: {!r}'.format(
            text.count(whole), whole))
    start = text.index(whole) + len(before)
    return (start, start + len(right)), wrong


def _with_faults(right, wrong):
    """The right code, and the wrong one for each number of a fault."""
    if right.endswith(';'):
        branches = ['if (d2l_fault == {}) {{ {} }} else '.format(*item) for item in wrong.items()]
        return ''.join(branches) + '{ ' + right + ' }'
    branches = ['d2l_fault == {} ? ({}) : '.format(*item) for item in wrong.items()]
    return '(' + ''.join(branches) + '(' + right + '))'


def planted_sources(folder):
    """A copy of src/operators in folder, with all faults; what is there already stays untouched."""
    texts = {str(p.relative_to(SOURCES)): p.read_text()
             for p in SOURCES.rglob('*') if p.suffix in ('.h', '.cc', '.cu')}
    places = {name: {} for name in texts}  # file -> (start, end) -> number -> wrong code
    for number, (_, name, pattern) in enumerate(FAULTS, 1):
        span, wrong = _find(texts[name], pattern)
        places[name].setdefault(span, {})[number] = wrong
    for name, spans in places.items():
        text = texts[name]
        for (start, end), wrong in sorted(spans.items(), reverse=True):
            text = text[:start] + _with_faults(text[start:end], wrong) + text[end:]
        texts[name] = 'extern "C" int d2l_fault;\n' + text if spans else text
    texts['common/fault.cc'] = 'extern "C" {\nint d2l_fault = 0;\n}\n'
    for name, text in texts.items():
        path = Path(folder) / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return Path(folder)


def build_planted(sanitize=''):
    folder = ROOT / 'build' / ('emulated-faults' + ('-sanitized' if sanitize else ''))
    return build(folder, planted_sources(ROOT / 'build' / 'emulated-faults' / 'src'), sanitize)


def number_of(name):
    return [fault[0] for fault in FAULTS].index(name) + 1


def likely_first(checks, file):
    """The same checks, those of the operator that a file is of before the others."""
    name = Path(file).stem.replace('_cuda', '')
    name = {'products': 'batch_dot', 'bias': 'bias_activation'}.get(name, name)
    return sorted(checks, key=lambda check: str(check).split()[0] != name)


def finding(library, number):
    """What the quick checks say about a fault: '' if nothing is wrong."""
    ctypes.c_int.in_dll(library.c, 'd2l_fault').value = number
    for check in likely_first(battery.quick(), FAULTS[number - 1][1] if number else ''):
        try:
            check.run(library, Guarded)
        except Exception as error:
            return '{}: {}: {}'.format(check, type(error).__name__, error)
    return ''


def in_child(function, seconds=60):
    """What function returns in a forked process; a text as well if that dies or hangs."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        os.write(write, function().encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    return text if status == 0 else 'ended with status {}'.format(status)


def main(path):
    library = Library(path)
    found = {name: in_child(lambda n=n: finding(library, n))
             for n, name in enumerate(['no fault'] + [fault[0] for fault in FAULTS])}
    json.dump(found, sys.stdout, indent=1)


if __name__ == '__main__':
    main(*sys.argv[1:])
