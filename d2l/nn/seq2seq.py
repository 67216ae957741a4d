"""The recurrent encoder and decoder of section 9.7 (Sutskever et al., 2014).

Dropout is that of Gluon's LSTM, between its layers.  On the CPU, MXNet 1.9's LSTM leaves it out
without a word, unless the environment variable MXNET_USE_MKLDNN_RNN=0 chooses its slower kernel.
"""
from mxnet.gluon import nn, rnn

from d2l.nn.dense import Dense
from d2l.nn.encoder_decoder import Decoder, Encoder


class Seq2SeqEncoder(Encoder):
    """An embedding and an LSTM (section 9.7).

    X holds token numbers, of any dtype and of shape (batch, steps).  The result is the output of
    the LSTM, (steps, batch, num_hiddens), and its state, a list of two arrays of shape
    (num_layers, batch, num_hiddens).  dropout is the rate between the layers of the LSTM.

    Further arguments have no influence: the LSTM runs over all steps, padding too.
    """

    def __init__(self, vocab_size, embed_size, num_hiddens, num_layers, dropout=0, **kwargs):
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(vocab_size, embed_size)
        self.rnn = rnn.LSTM(num_hiddens, num_layers, dropout=dropout, input_size=embed_size)

    def forward(self, X, *args):
        # A graph should have no inputs that it does not use.
        return super().forward(X)

    def hybrid_forward(self, F, X):
        X = self.embedding(F.np.transpose(X))
        # The layer could make its first state only where the size of the batch is known.  One
        # zero for each example, (1, batch, 1), is what a graph can have, with the dtype of X.
        zero = F.np.zeros_like(F.npx.slice(X, (0, None, 0), (1, None, 1)))
        state = [F.np.tile(zero, (layers, 1, units)) for layers, _, units in
                 (info['shape'] for info in self.rnn.state_info())]
        return self.rnn(X, state)


class Seq2SeqDecoder(Decoder):
    """An embedding, an LSTM and a dense layer over the vocabulary (section 9.7).

    X holds token numbers, of any dtype and of shape (batch, steps); state is that of an LSTM with
    as many layers and units, such as `Seq2SeqEncoder`'s.  The result is the scores of the tokens
    that follow, (batch, steps, vocab_size), and the new state.  dropout is the rate between the
    layers of the LSTM.
    """

    def __init__(self, vocab_size, embed_size, num_hiddens, num_layers, dropout=0, **kwargs):
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(vocab_size, embed_size)
        self.rnn = rnn.LSTM(num_hiddens, num_layers, dropout=dropout, input_size=embed_size)
        self.dense = Dense(vocab_size, flatten=False, in_units=num_hiddens)

    def init_state(self, enc_outputs, *args):
        """Return the state that the encoder ended with; further arguments have no influence."""
        return enc_outputs[1]

    def hybrid_forward(self, F, X, state):
        out, state = self.rnn(self.embedding(F.np.transpose(X)), state)
        return F.np.swapaxes(self.dense(out), 0, 1), state
