"""The book's names in one place: ``from d2l import mxnet as d2l``.

Everything here is defined elsewhere; this module only gathers it, chapter by chapter.  Importing
it looks for no GPU and downloads nothing.
"""
# isort: skip_file
import collections
import hashlib
import math
import os
import random
import re
import shutil
import sys
import tarfile
import time
import zipfile
from collections import defaultdict

import pandas as pd
import requests
from matplotlib import pyplot as plt
from mxnet import autograd, context, gluon, image, init, np, npx
from mxnet.gluon import nn, rnn

from d2l.utils.notebook import display

# NumPy and matplotlib take MXNet arrays from here on.
from d2l.utils import interop

# Chapter 2, preliminaries
from d2l.utils.files import mkdir_if_not_exist
from d2l.utils.plotting import plot, set_axes, set_figsize, use_svg_display

# Chapter 3, linear networks
from d2l.data.arrays import load_array, synthetic_data
from d2l.data.vision import get_fashion_mnist_labels, load_data_fashion_mnist
from d2l.train.classification import (accuracy, evaluate_accuracy, predict_ch3, train_ch3,
                                      train_epoch_ch3)
from d2l.train.regression import linreg, sgd, squared_loss
from d2l.utils.animator import Animator
from d2l.utils.devices import get_dataloader_workers
from d2l.utils.plotting import show_images
from d2l.utils.timing import Accumulator, Timer

# Chapter 4, multilayer perceptrons
from d2l.train.regression import evaluate_loss
from d2l.utils.hub import DATA_HUB, DATA_URL, download, download_all, download_extract

# Chapter 5, deep learning computation
from d2l.utils.devices import try_all_gpus, try_gpu

# Chapter 6, convolutional neural networks
from d2l.nn.conv import corr2d
from d2l.train.classification import evaluate_accuracy_gpu, train_ch6

# Chapter 7, modern convolutional neural networks
from d2l.nn.conv import Residual

# Chapter 8, recurrent neural networks
from d2l.data.text import (SeqDataLoader, Vocab, count_corpus, load_corpus_time_machine,
                           load_data_time_machine, read_time_machine, seq_data_iter_random,
                           seq_data_iter_sequential, tokenize)
from d2l.nn.rnn import RNNModel
from d2l.train.language_model import (RNNModelScratch, grad_clipping, predict_ch8, train_ch8,
                                      train_epoch_ch8)

# Chapter 9, modern recurrent neural networks
from d2l.data.translation import (build_array, load_data_nmt, preprocess_nmt, read_data_nmt,
                                  tokenize_nmt, truncate_pad)
from d2l.nn.encoder_decoder import Decoder, Encoder, EncoderDecoder
from d2l.nn.loss import MaskedSoftmaxCELoss
from d2l.nn.seq2seq import Seq2SeqDecoder, Seq2SeqEncoder
from d2l.train.translation import predict_s2s_ch9, train_s2s_ch9

# Chapter 10, attention mechanisms
from d2l.nn.attention import (DotProductAttention, MLPAttention, MultiHeadAttention,
                              masked_softmax, transpose_output, transpose_qkv)
from d2l.nn.transformer import (AddNorm, EncoderBlock, PositionalEncoding, PositionWiseFFN,
                                TransformerEncoder)

# Chapter 11, optimization algorithms
from d2l.data.tabular import get_data_ch11
from d2l.train import optimizers as _optimizers  # noqa: F401  (d2l_sgd, d2l_adam, ...)
from d2l.train.optimization import show_trace_2d, train_2d, train_ch11, train_concise_ch11
from d2l.utils.plotting import annotate

# Chapter 12, computational performance
from d2l.models.vision import resnet18
from d2l.parallel.split import split_batch
from d2l.parallel.trainer import Trainer
from d2l.train.multi_device import evaluate_accuracy_gpus
from d2l.utils.timing import Benchmark

# Chapter 13, computer vision
from d2l.data.detection import load_data_bananas
from d2l.data.kaggle import copyfile, read_csv_labels, reorg_test, reorg_train_valid
from d2l.data.segmentation import (VOC_CLASSES, VOC_COLORMAP, VOCSegDataset,
                                   build_colormap2label, load_data_voc, read_voc_images,
                                   voc_label_indices, voc_rand_crop)
from d2l.train.multi_device import train_batch_ch13, train_ch13
from d2l.utils.boxes import bbox_to_rect, show_bboxes

# Chapter 14, natural language processing: pretraining
from d2l.data.embedding import TokenEmbedding
from d2l.data.pretraining import (_get_mlm_data_from_tokens, _get_next_sentence,
                                  _get_nsp_data_from_paragraph, _pad_bert_inputs, _read_wiki,
                                  _replace_mlm_tokens, _WikiTextDataset, get_tokens_and_segments,
                                  load_data_wiki)
from d2l.data.word2vec import (RandomGenerator, batchify, get_centers_and_contexts, get_negatives,
                               load_data_ptb, read_ptb, subsampling)
from d2l.nn.bert import BERTEncoder, BERTModel, MaskLM, NextSentencePred
from d2l.train.pretraining import _get_batch_loss_bert, train_bert

# Chapter 15, natural language processing: applications
from d2l.data.language import SNLIDataset, load_data_imdb, load_data_snli, read_imdb, read_snli
from d2l.deploy.pretrained import load_pretrained_model
from d2l.parallel.split import split_batch_multi_inputs
from d2l.train.language import predict_sentiment, predict_snli

# Chapter 16, recommender systems
from d2l.data.ctr import CTRDataset
from d2l.data.recommender import (load_data_ml100k, read_data_ml100k, split_and_load_ml100k,
                                  split_data_ml100k)
from d2l.nn.loss import BPRLoss, HingeLossbRec
from d2l.train.ranking import evaluate_ranking, hit_and_auc
from d2l.train.recommender import train_ranking, train_recsys_rating

# Chapter 17, generative adversarial networks
from d2l.train.gan import update_D, update_G

# The short names that all editions of the book share
from d2l.utils.arrays import (abs, arange, argmax, astype, concat, cos, cosh, exp, float32, int32,
                              linspace, log, matmul, meshgrid, normal, numpy, ones, reduce_sum,
                              reshape, sin, sinh, size, stack, tanh, tensor, to, transpose, zeros)

d2l = sys.modules[__name__]
