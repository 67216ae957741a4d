"""The encoder-decoder architecture of section 9.6: interfaces that readers fill in."""
from d2l.nn._block import OpenBlock


class Encoder(OpenBlock):
    """The interface of encoders (section 9.6).

    A subclass defines ``hybrid_forward(self, F, X, *args)`` and hybridizes, or, as the book's
    cells do, ``forward(self, X, *args)``, and may then hold plain Blocks; its ``hybridize()``
    compiles the parts that can be.  It returns what the decoder's ``init_state`` takes.
    """

    def hybrid_forward(self, F, X, *args):
        raise NotImplementedError(f'{type(self).__name__} must define forward(X, *args) or '
                                  'hybrid_forward(F, X, *args)')


class Decoder(OpenBlock):
    """The interface of decoders (section 9.6).

    A subclass defines ``init_state`` and, as with `Encoder`, ``hybrid_forward(self, F, X, state)``
    or ``forward(self, X, state)``, which return the output and the new state.
    """

    def init_state(self, enc_outputs, *args):
        """Return the state to begin with, made from what the encoder returned."""
        raise NotImplementedError(f'{type(self).__name__} must define '
                                  'init_state(enc_outputs, *args)')

    def hybrid_forward(self, F, X, state):
        raise NotImplementedError(f'{type(self).__name__} must define forward(X, state) or '
                                  'hybrid_forward(F, X, state)')


class EncoderDecoder(OpenBlock):
    """An encoder and a decoder in one block (section 9.6).

    Call it with the input of the encoder, that of the decoder, and further arguments, such as
    valid lengths, for the encoder and ``decoder.init_state``.  It returns what the decoder
    returns: the output and the state.

    It hybridizes if encoder and decoder do.
    """

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder

    def hybrid_forward(self, F, enc_X, dec_X, *args):
        enc_outputs = self.encoder(enc_X, *args)
        dec_state = self.decoder.init_state(enc_outputs, *args)
        return self.decoder(dec_X, dec_state)
