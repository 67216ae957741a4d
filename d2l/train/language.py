"""What a trained net says about a review or a pair of sentences (chapter 15)."""
from mxnet import np

from d2l.data.language import SNLI_LABELS
from d2l.utils.devices import devices_of


def predict_sentiment(net, vocab, sentence):
    """Return 'positive' or 'negative', what net says about a sentence (section 15.2).

    sentence is a str of words separated by spaces.  net takes their numbers in vocab, an int32
    array of shape (1, words) on the device of its first parameter, and returns scores of shape
    (1, 2), the second for positive.

    Raises TypeError when sentence is no str, ValueError when it has no words.
    """
    if not isinstance(sentence, str):
        raise TypeError(f'predict_sentiment: sentence must be a str, got {sentence!r}')
    words = sentence.split()
    if not words:
        raise ValueError(f'predict_sentiment: sentence must have at least one word, got '
                         f'{sentence!r}')
    scores = net(_row(vocab, words, devices_of(net)[0]))
    return 'positive' if int(scores.argmax(axis=1)) == 1 else 'negative'


def predict_snli(net, vocab, premise, hypothesis):
    """Return 'entailment', 'contradiction' or 'neutral' (section 15.5).

    premise and hypothesis are lists of words.  net takes a list of their numbers in vocab, two
    int32 arrays of shape (1, words) on the device of its first parameter, and returns scores of
    shape (1, 3), in the order of SNLI's labels.

    Raises TypeError when premise or hypothesis is no list of words, ValueError when it is empty.
    """
    device = devices_of(net)[0]
    pair = []
    for name, words in (('premise', premise), ('hypothesis', hypothesis)):
        # A str would be looked up as one word, which is unknown.
        if not isinstance(words, (list, tuple)):
            raise TypeError(f'predict_snli: {name} must be a list of words, got {words!r}')
        if not words:
            raise ValueError(f'predict_snli: {name} must have at least one word, got {words!r}')
        pair.append(_row(vocab, words, device))
    return SNLI_LABELS[int(net(pair).argmax(axis=1))]


def _row(vocab, words, device):
    """The words' numbers as a batch of one."""
    return np.array([vocab[list(words)]], dtype='int32', ctx=device)
