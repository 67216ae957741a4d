"""Pretrained word vectors: GloVe and fastText."""
import contextlib
import os

import mxnet as mx
from mxnet import np

from d2l.data._vectors import read_vectors
from d2l.utils import hub
from d2l.utils.progress import bytes_bar

# Larger files take more than a second or two, and show how far they are.
_PROGRESS_BYTES = 128 << 20


class TokenEmbedding:
    """The word vectors of a ``DATA_HUB`` entry such as 'glove.6b.50d'.

    Sources: GloVe (Pennington, Socher and Manning, 2014) and fastText (Bojanowski et al., 2017).

    ``idx_to_token`` is a list of str with '<unk>' first, ``idx_to_vec`` a float32 array on the
    CPU of shape (len(self), d), whose row 0, for unknown tokens, is zeros.  ``token_to_idx`` is a
    dict; of a token that the file has twice, the last vector counts.  ``unknown_idx`` is 0.

    ``embedding[['hello', 'world']]`` has shape (2, d).  A single str gives the vector of that
    token, of shape (d,).  Tokens that are not known get row 0.  Both are copies.

    Raises what ``download_extract`` raises, ``FileNotFoundError`` where the archive has no
    ``vec.txt``, and ``ValueError`` with the number of the line where that file is damaged.  Book
    section 14.7.
    """

    def __init__(self, embedding_name):
        self.idx_to_token, self.idx_to_vec = self._load_embedding(embedding_name)
        self.unknown_idx = 0
        self.token_to_idx = {token: idx for idx, token in enumerate(self.idx_to_token)}

    def _load_embedding(self, embedding_name):
        """Read vec.txt.  Returns (idx_to_token, idx_to_vec)."""
        path = os.path.join(hub.download_extract(embedding_name), 'vec.txt')
        if not os.path.isfile(path):
            raise FileNotFoundError(f'TokenEmbedding: {embedding_name!r} should hold vec.txt, but '
                                    f'there is no {path}')
        size = os.path.getsize(path)
        with contextlib.ExitStack() as stack:
            on_bytes = None
            if size > _PROGRESS_BYTES:
                on_bytes = stack.enter_context(bytes_bar(embedding_name, size)).update
            tokens, vectors = read_vectors(path, on_bytes)
        # The memory is shared, not copied: nobody else holds it.
        return ['<unk>'] + tokens, mx.nd.from_numpy(vectors, array_cls=np.ndarray)

    def __getitem__(self, tokens):
        """Vectors of a list of tokens, (n, d); of one str, (d,)."""
        if isinstance(tokens, str):
            return self[[tokens]][0]
        indices = [self.token_to_idx.get(token, self.unknown_idx) for token in tokens]
        if not indices:
            return self.idx_to_vec[:0]
        return np.take(self.idx_to_vec, np.array(indices, dtype='int64', ctx=mx.cpu()), axis=0)

    def __len__(self):
        return len(self.idx_to_token)
