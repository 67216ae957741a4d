"""The bananas of chapter 13: pictures with one labelled box, in batches of MXNet's old kind."""
import os

import mxnet as mx
from mxnet import image

from d2l.data.arrays import positive_int
from d2l.utils.hub import download_extract

# What MXNet and its readers in Python raise on files that are cut off, foreign or mixed up.
_DAMAGE = (mx.base.MXNetError, ValueError, RuntimeError, UnboundLocalError, TypeError, KeyError)


class DetectionIter(image.ImageDetIter):
    """MXNet's ``ImageDetIter``, whose ``for`` loop starts anew after the last batch.

    MXNet's own must be told ``reset()`` before each further pass; a loop that forgets it sees no
    batches, or the pictures in the old order.  Here a loop over an iterator that has come to its
    end resets it first.  An explicit ``reset()`` still starts a pass, a loop after ``next()``
    still goes on with the following batch, and ``next()`` after the end raises ``StopIteration``
    until there is a reset.
    """

    _ended = False

    def __iter__(self):
        if self._ended:
            self.reset()
        return self

    def reset(self):
        """Start a new pass, shuffled anew where the iterator shuffles."""
        self._ended = False
        super().reset()

    def hard_reset(self):
        """The same, forgetting what ``last_batch_handle='roll_over'`` kept for the new pass."""
        self._ended = False
        super().hard_reset()

    def next(self):
        """The next ``DataBatch``.  Raises ``StopIteration`` at the end."""
        if self._ended:
            raise StopIteration
        try:
            return super().next()
        except StopIteration:
            self._ended = True
            raise


def load_data_bananas(batch_size, edge_size=256):
    """The banana pictures with their boxes.  Returns (train_iter, val_iter).

    Both are `DetectionIter`.  A batch is a ``DataBatch``: ``data[0]`` is float32 of shape
    (b, 3, edge_size, edge_size) with values 0 to 255, ``label[0]`` float32 of shape (b, 1, 5):
    class 0 and the left, top, right and bottom edge from 0 to 1.  b is always ``batch_size``; the
    last batch is filled up from the beginning of the set, and ``batch.pad`` says with how many.

    Training pictures are shuffled and cropped at random so that more than 95 % of the object
    stays (the whole picture if 200 tries fail).  Both come from Python's random numbers: seed
    them with ``random.seed`` before the call.  Validation pictures come in order, uncropped.

    Raises ``TypeError`` or ``ValueError`` for a wrong size, ``FileNotFoundError`` if the data
    folder lacks a file, and ``ValueError`` for a damaged one.  Book section 13.6.
    """
    batch_size = positive_int('load_data_bananas: batch_size', batch_size)
    edge_size = positive_int('load_data_bananas: edge_size', edge_size)
    data_dir = download_extract('bananas')
    rec, idx, val = (_existing(os.path.join(data_dir, name))
                     for name in ('train.rec', 'train.idx', 'val.rec'))
    shape = (3, edge_size, edge_size)
    train_iter = _opened(path_imgrec=rec, path_imgidx=idx, batch_size=batch_size,
                         data_shape=shape, shuffle=True, rand_crop=1, min_object_covered=0.95,
                         max_attempts=200)
    val_iter = _opened(path_imgrec=val, batch_size=batch_size, data_shape=shape, shuffle=False)
    return train_iter, val_iter


def _existing(path):
    if not os.path.isfile(path):
        raise FileNotFoundError(f'load_data_bananas: {path} is missing; remove the folder '
                                f'{os.path.dirname(path)} to have it unpacked anew')
    return path


def _opened(**arguments):
    """A ``DetectionIter``; making one reads all labels, and so finds a damaged file."""
    try:
        return DetectionIter(**arguments)
    except _DAMAGE as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ValueError(f'load_data_bananas: {arguments["path_imgrec"]} or its index is '
                         f'damaged: {reason[0]}') from error
