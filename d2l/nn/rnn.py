"""A language model around a recurrent layer."""
from d2l.nn._block import OpenBlock
from d2l.nn.dense import Dense


class RNNModel(OpenBlock):
    """A recurrent layer over one-hot tokens, and a dense layer over the vocabulary (section 8.6).

    inputs holds token numbers, of any dtype and of shape (batch, steps).  The scores of the
    tokens that follow have shape (steps * batch, vocab_size), all of the first step before those
    of the second.  With them comes the layer's new state.

    rnn_layer is Gluon's RNN, GRU or LSTM in the layout 'TNC', or any Block that is called with
    (steps, batch, vocab_size) and a state, and returns its output (steps, batch, ...) and the new
    state; for a plain Block, ``hybridize()`` compiles only what can be compiled.

    Raises ValueError for a layer in the layout 'NTC'.
    """

    def __init__(self, rnn_layer, vocab_size, **kwargs):
        super().__init__(**kwargs)
        layout = getattr(rnn_layer, '_layout', 'TNC')
        if layout != 'TNC':
            raise ValueError("RNNModel: rnn_layer must have the layout 'TNC', got the layout "
                             f'{layout!r}')
        self._dtype = getattr(rnn_layer, '_dtype', 'float32')
        self.rnn = rnn_layer
        self.vocab_size = vocab_size
        self.dense = Dense(vocab_size, dtype=self._dtype)

    def hybrid_forward(self, F, inputs, state):
        X = F.npx.one_hot(F.np.transpose(inputs), self.vocab_size, dtype=self._dtype)
        Y, state = self.rnn(X, state)
        return self.dense(F.npx.reshape(Y, (-5, -4))), state

    def begin_state(self, *args, **kwargs):
        """Return the layer's first state; the arguments are those of its ``begin_state``."""
        return self.rnn.begin_state(*args, **kwargs)

    def cast(self, dtype):
        """Compute in another dtype from now on."""
        super().cast(dtype)
        self._dtype = dtype
