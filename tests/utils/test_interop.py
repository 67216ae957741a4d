import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, np, npx

from d2l.utils import interop

VALUES = onp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype='float32')


@pytest.fixture(params=['np', 'legacy', 'np before set_np'])
def x(request):
    """The same values as an np array, a legacy array, and with legacy shapes."""
    if request.param == 'np before set_np':
        npx.reset_np()
    yield mx.nd.array(VALUES) if request.param == 'legacy' else np.array(VALUES)
    npx.set_np()


@pytest.fixture(autouse=True)
def close_figures():
    plt.switch_backend('Agg')
    yield
    plt.close('all')


def same(result, expected):
    assert type(result) is onp.ndarray
    assert result.dtype == expected.dtype
    onp.testing.assert_array_equal(result, expected)


def test_conversion(x):
    same(onp.array(x), VALUES)
    same(onp.asarray(x, dtype='float64'), VALUES.astype('float64'))
    same(onp.array([x, x]), onp.array([VALUES, VALUES]))
    same(x.to_numpy(), VALUES)


@pytest.mark.parametrize('dtype', ['float16', 'float64', 'int8', 'uint8', 'int32', 'int64', 'bool'])
@pytest.mark.parametrize('make', [np.array, mx.nd.array])
def test_conversion_keeps_the_dtype(make, dtype):
    same(onp.asarray(make([0, 1, 1], dtype=dtype)), onp.array([0, 1, 1], dtype=dtype))


def test_conversion_is_a_copy(x):
    values = onp.asarray(x)
    values[:] = 0
    onp.testing.assert_array_equal(x.asnumpy(), VALUES)


def test_copy_argument_of_numpy_2(x):
    same(x.__array__(copy=True), VALUES)
    same(x.__array__('float64', copy=None), VALUES.astype('float64'))
    with pytest.raises(ValueError, match='cannot become a NumPy array without a copy'):
        x.__array__(copy=False)


def test_shapes_without_elements():
    assert onp.asarray(np.zeros((0, 3))).shape == (0, 3)
    assert onp.asarray(np.array(2.5)).shape == ()
    same(onp.array([np.array(1.0), np.array(2.0)]), onp.array([1, 2], dtype='float32'))
    assert float(mx.nd.array([2.5])) == 2.5


def test_nothing_is_installed_twice():
    before = dict(vars(np.ndarray)), dict(vars(mx.nd.NDArray))
    interop.install()
    assert (dict(vars(np.ndarray)), dict(vars(mx.nd.NDArray))) == before


def test_indexing_and_assignment(x):
    index = x[0].astype('int32') - 1
    same(VALUES[:, index], VALUES)
    target = onp.zeros((2, 3), dtype='float32')
    target[:] = x
    same(target, VALUES)
    target[0, 0] = float(x[1, 2])
    assert target[0, 0] == 6


# MXNet can do these, so it must still be the one that does them.
MXNET_DOES = {
    'ufunc': lambda x: onp.sin(x),
    'ufunc of two': lambda x: onp.add(x, x),
    'ufunc that falls back': lambda x: onp.isfinite(x),
    'operator with a NumPy scalar': lambda x: onp.float64(2) * x,
    'function': lambda x: onp.concatenate([x, x]),
    'function that falls back': lambda x: onp.interp(x[0], VALUES[0], VALUES[1]),
    'reduction': lambda x: onp.mean(x, axis=0),
}


@pytest.mark.parametrize('call', MXNET_DOES.values(), ids=list(MXNET_DOES))
def test_mxnet_comes_first(call):
    result = call(np.array(VALUES))
    assert type(result) is np.ndarray
    onp.testing.assert_allclose(result.asnumpy(), call(VALUES), rtol=1e-6)


def test_mxnet_writes_to_its_own_output():
    out = np.zeros((2, 3))
    assert onp.add(np.array(VALUES), np.array(VALUES), out=out) is out
    onp.testing.assert_array_equal(out.asnumpy(), 2 * VALUES)


# MXNet refuses these: NumPy computes them.
NUMPY_DOES = {
    'column_stack': lambda x, n: onp.column_stack([x, n]),
    'concatenate': lambda x, n: onp.concatenate([n, x]),
    'where': lambda x, n: onp.where(n > 2, x, 0),
    'mean with weights': lambda x, n: onp.average(n, weights=x),
    'add': lambda x, n: n + x,
    'add to a list': lambda x, n: onp.add(n.tolist(), x),
    'less': lambda x, n: n < x,
    'matmul': lambda x, n: n @ x.T,
    'in place': lambda x, n: onp.add(n, x, out=n.copy()),
    'masked': lambda x, n: onp.sqrt(x, where=n > 2, out=n.copy()),
    'reduce': lambda x, n: onp.add.reduce(x, axis=1),
    'outer': lambda x, n: onp.multiply.outer(x, n),
    'masked array': lambda x, n: onp.ma.masked_invalid(x).filled(0),
}


@pytest.mark.parametrize('call', NUMPY_DOES.values(), ids=list(NUMPY_DOES))
def test_numpy_comes_last(call):
    result, expected = call(np.array(VALUES), VALUES), call(VALUES, VALUES)
    assert isinstance(result, (onp.ndarray, onp.generic))
    assert not isinstance(result, np.ndarray)
    onp.testing.assert_array_equal(result, expected)


def test_a_named_tuple_of_results():
    # NumPy 1.25 and later return one, which MXNet cannot convert.
    _, values, _ = onp.linalg.svd(np.array(VALUES))
    onp.testing.assert_allclose(onp.asarray(values), onp.linalg.svd(VALUES)[1], rtol=1e-6)


def test_broadcast_arrays():
    same(onp.broadcast_arrays(np.array(VALUES), VALUES[0])[1], onp.stack([VALUES[0]] * 2))


def test_an_mxnet_array_is_not_the_output_of_numpy():
    out = np.zeros((2, 3))
    with pytest.raises(TypeError, match='numpy.add: out must be a NumPy array'):
        onp.add(VALUES, VALUES, out=out)
    with pytest.raises(TypeError, match='numpy.concatenate: out must be a NumPy array'):
        onp.concatenate([np.array(VALUES[:1]), VALUES[1:]], out=out)
    assert out.sum() == 0


def test_a_number_is_no_sequence():
    for number in (np.array(3.0), np.array(VALUES).sum()):
        with pytest.raises(TypeError, match='iteration over a 0-d array'):
            iter(number)
        assert not onp.iterable(number)
    assert [row.asnumpy().tolist() for row in np.array(VALUES)] == VALUES.tolist()
    assert list(np.zeros((0, 2))) == []


def test_gradients_through_iteration():
    x = np.array(VALUES)
    x.attach_grad()
    with mx.autograd.record():
        first, *_ = x
        y = (first * first).sum()
    y.backward()
    expected = onp.zeros_like(VALUES)
    expected[0] = 2 * VALUES[0]
    onp.testing.assert_array_equal(x.grad.asnumpy(), expected)


def test_errors_of_mxnet_stay():
    with pytest.raises(NotImplementedError):
        onp.sin(np.array(VALUES), dtype='float64')
    with pytest.raises(TypeError, match='not supported'):
        np.array(VALUES) + VALUES


@pytest.mark.parametrize('call, message', [
    (lambda x: VALUES + x, 'type .* not supported'),
    (lambda x: onp.column_stack([x, VALUES]), 'gradients do not pass through NumPy'),
    (lambda x: onp.add.reduce(x), 'gradients do not pass through NumPy'),
    (lambda x: onp.concatenate([x, x], dtype='float64'), 'unexpected keyword .*dtype')])
def test_numpy_does_not_step_in_while_recording(call, message):
    x = np.array(VALUES)
    x.attach_grad()
    assert isinstance(call(x), onp.ndarray)
    with autograd.record():
        with pytest.raises(TypeError, match=message):
            call(x)
        y = (x * x).sum()
    y.backward()
    onp.testing.assert_array_equal(x.grad.asnumpy(), 2 * VALUES)


def test_gradients_through_numpy_calls_that_mxnet_does():
    x = np.array(VALUES)
    x.attach_grad()
    with autograd.record():
        constant = onp.asarray(x)
        y = (onp.float32(3) * onp.square(onp.concatenate([x, x])) * float(constant[0, 0])).sum()
    y.backward()
    onp.testing.assert_array_equal(x.grad.asnumpy(), 12 * VALUES)


FIGURES = {
    'plot': lambda x: plt.plot(x, x),
    'scatter': lambda x: plt.scatter(x[0], VALUES[1], s=x[0], c=x[1]),
    'hist': lambda x: plt.hist(x[0], weights=VALUES[0]),
    'hist of several': lambda x: plt.hist([x[0], x[1]]),
    'bar': lambda x: plt.bar(x[0], x[1]),
    'imshow': lambda x: plt.imshow(x),
    'contour': lambda x: plt.contour(x, VALUES, x),
    'contourf': lambda x: plt.contourf(x),
    'fill_between': lambda x: plt.fill_between(x[0], x[1], VALUES[0]),
    'annotate': lambda x: plt.annotate('here', xy=(x[0, 0], x[0, 1]), xytext=(x[1, 0], x[1, 1]),
                                       arrowprops={'arrowstyle': '->'}),
    'lines at numbers': lambda x: plt.vlines(x[0, 0], 0, x[0, 1]),
    'limits': lambda x: plt.xlim([x[0, 0], x[0, 1]]),
    'rectangle': lambda x: plt.gca().add_patch(
        plt.Rectangle(xy=(x[0, 0], x[0, 1]), width=x[1, 0], height=x[1, 1])),
    'wireframe': lambda x: plt.figure().add_subplot(111, projection='3d').plot_wireframe(
        x, VALUES, x, rstride=1, cstride=1),
    'surface': lambda x: plt.figure().add_subplot(111, projection='3d').plot_surface(
        VALUES, x, x),
}


@pytest.mark.parametrize('draw', FIGURES.values(), ids=list(FIGURES))
def test_matplotlib(x, draw):
    draw(x)
    drawn = pixels()
    plt.close('all')
    draw(x.asnumpy())
    onp.testing.assert_array_equal(drawn, pixels())


def pixels():
    canvas = plt.gcf().canvas
    canvas.draw()
    return onp.asarray(canvas.buffer_rgba()).copy()
