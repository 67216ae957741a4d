"""Tables of numbers."""
import numpy as onp

from d2l.data.arrays import load_array, positive_int
from d2l.utils.hub import download


def get_data_ch11(batch_size=10, n=1500):
    """Load the airfoil noise measurements; return (loader, number of features) (section 11.5).

    The loader gives the first n rows in shuffled batches of five features, shape (batch_size, 5),
    and the sound level, shape (batch_size,), float32; MXNet's seed fixes their order.  Each of
    the six columns is standardised over the whole table, as in the book the sound level too: the
    loss of predicting its mean is about 0.5.

    Raises ValueError for a batch_size or n below 1, and for a table of another shape.
    """
    batch_size, n = positive_int('batch_size', batch_size), positive_int('n', n)
    path = download('airfoil')
    try:
        data = onp.genfromtxt(path, dtype='float64', delimiter='\t', encoding='utf-8')
    except ValueError as error:  # also for lines of different length
        raise ValueError(f'get_data_ch11: {path} must hold rows of six numbers: {error}') from error
    if data.ndim != 2 or data.shape[1] != 6 or not onp.isfinite(data).all():
        raise ValueError(f'get_data_ch11: {path} must hold rows of six numbers')
    data = ((data - data.mean(axis=0)) / data.std(axis=0)).astype('float32')[:n]
    return load_array((data[:, :-1], data[:, -1]), batch_size), data.shape[1] - 1
