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

# Chapter 10, attention mechanisms
from d2l.nn.attention import masked_softmax

# Chapter 12, computational performance
from d2l.utils.timing import Benchmark

# The short names that all editions of the book share
from d2l.utils.arrays import (abs, arange, argmax, astype, concat, cos, cosh, exp, float32, int32,
                              linspace, log, matmul, meshgrid, normal, numpy, ones, reduce_sum,
                              reshape, sin, sinh, size, stack, tanh, tensor, to, transpose, zeros)

d2l = sys.modules[__name__]
