"""Pretrained BERT from the book's hub (section 15.7)."""
import json
import os

from mxnet import MXNetError

from d2l.data.text import Vocab
from d2l.nn.bert import BERTModel
from d2l.utils.devices import try_all_gpus
from d2l.utils.hub import download_extract


def load_pretrained_model(pretrained_model, num_hiddens, ffn_num_hiddens, num_heads, num_layers,
                          dropout, max_len, devices=None):
    """Return a pretrained `BERTModel` and its vocabulary (section 15.7).

    pretrained_model is a name of ``DATA_HUB``, 'bert.small' or 'bert.base'; the sizes must be
    those it was trained with: 256, 512, 4, 2, max_len 512 and 768, 3072, 12, 12, max_len 512.
    devices, a device or a list of them, get the parameters; the default is all GPUs, or the CPU.

    Raises what `download_extract` raises, and ValueError where the files do not hold such a model.
    """
    folder = download_extract(pretrained_model)
    vocab = _read_vocab(os.path.join(folder, 'vocab.json'))
    bert = BERTModel(len(vocab), num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout,
                     max_len)
    path = os.path.join(folder, 'pretrained.params')
    try:
        bert.load_parameters(path, ctx=try_all_gpus() if devices is None else devices)
    except (MXNetError, AssertionError, ValueError) as error:
        raise ValueError(f'load_pretrained_model: {path} does not fit a BERTModel of these sizes '
                         f'and {len(vocab)} tokens: {_first_line(error)}') from error
    return bert, vocab


def _read_vocab(path):
    """A Vocab of the tokens in a JSON list, in that order."""
    try:
        with open(path, encoding='utf-8') as file:
            tokens = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f'load_pretrained_model: {path} must be a JSON list of tokens: '
                         f'{error}') from error
    vocab = Vocab()
    vocab.idx_to_token = tokens
    vocab.token_to_idx = {token: idx for idx, token in enumerate(tokens)}
    return vocab


def _first_line(error):
    lines = [line for line in str(error).splitlines() if line and not line.startswith('Traceback')]
    return lines[-1].strip() if lines else type(error).__name__
