"""The book's short names for array functions, the same in each of its editions."""
from mxnet import np

ones = np.ones
zeros = np.zeros
arange = np.arange
meshgrid = np.meshgrid
sin = np.sin
sinh = np.sinh
cos = np.cos
cosh = np.cosh
tanh = np.tanh
linspace = np.linspace
exp = np.exp
log = np.log
tensor = np.array
normal = np.random.normal
# Not np.matmul: they differ beyond two dimensions.
matmul = np.dot
int32 = np.int32
float32 = np.float32
concat = np.concatenate
stack = np.stack
abs = np.abs


def size(a):
    """Return the number of elements."""
    return a.size


def transpose(a):
    """Return the array with its axes in reverse order."""
    return a.T


def numpy(x, *args, **kwargs):
    """Return a NumPy array with the values of x."""
    return x.asnumpy(*args, **kwargs)


def reshape(x, *args, **kwargs):
    """Return x in another shape, ``reshape(x, (2, 3))`` or ``reshape(x, 2, 3)``."""
    return x.reshape(*args, **kwargs)


def to(x, *args, **kwargs):
    """Return x on a device, ``to(x, npx.gpu())``; x itself if it is there."""
    return x.as_in_ctx(*args, **kwargs)


def reduce_sum(x, *args, **kwargs):
    """Return the sum over all or some axes."""
    return x.sum(*args, **kwargs)


def argmax(x, *args, **kwargs):
    """Return the index of the largest element, over all elements or along an axis."""
    return x.argmax(*args, **kwargs)


def astype(x, *args, **kwargs):
    """Return x with another dtype."""
    return x.astype(*args, **kwargs)
