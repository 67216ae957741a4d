"""The encoder-decoder architecture (section 9.6): interfaces that readers fill in, and a search."""
import contextlib

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

    With returns_state=False, which can also be set later, None stands in the place of the state.
    Training needs only the output, and is faster so where the block is hybridized: MXNet runs what
    makes a result of a graph apart from the rest of its fixed sequence, forward and backward.

    It hybridizes if encoder and decoder do.
    """

    def __init__(self, encoder, decoder, returns_state=True, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.returns_state = returns_state

    def _kind(self):
        return bool(self.returns_state)

    def hybrid_forward(self, F, enc_X, dec_X, *args):
        enc_outputs = self.encoder(enc_X, *args)
        dec_state = self.decoder.init_state(enc_outputs, *args)
        outputs = self.decoder(dec_X, dec_state)
        return outputs if self.returns_state else (outputs[0], None)


@contextlib.contextmanager
def without_state(model):
    """Within this scope a model that is an `EncoderDecoder` returns no state."""
    if not isinstance(model, EncoderDecoder):
        yield
        return
    before, model.returns_state = model.returns_state, False
    try:
        yield
    finally:
        model.returns_state = before


class GreedySearch(OpenBlock):
    """Translate: at each step, take the token with the highest score (section 9.8).

    model is an `EncoderDecoder`.  enc_X holds the tokens of the sources, (batch, steps); further
    arguments, such as valid lengths, go where `EncoderDecoder` has them go.  The result,
    (batch, num_steps), are the tokens after the one with the number bos, int32.  They do not end
    at '<eos>': what follows it is to be left out.

    Hybridized, the encoder and all steps are one graph, with no Python between the steps; exported,
    it is a translator in two files.
    """

    def __init__(self, model, bos, num_steps, **kwargs):
        super().__init__(**kwargs)
        self.bos, self.num_steps = bos, num_steps
        self.model = model

    def hybrid_forward(self, F, enc_X, *args):
        decoder = self.model.decoder
        state = decoder.init_state(self.model.encoder(enc_X, *args), *args)
        newest = F.np.full_like(F.npx.slice(enc_X, (None, 0), (None, 1)), self.bos)
        tokens = []
        for _ in range(self.num_steps):
            scores, state = decoder(newest, state)
            newest = F.np.argmax(scores, axis=2).astype('int32')
            tokens.append(newest)
        return F.np.concatenate(tokens, axis=1)
