"""English and French sentences: the hub's own file, and the sample that ships with the package."""
import os
import shutil

from d2l.utils.hub import download


def fra_eng(shared, folder):
    shutil.copy(os.path.join(shared, 'd2l-data', 'fra-eng.zip'), folder)


def fra_eng_of_samples(folder):
    shutil.copy(download('fra-eng'), os.path.join(folder, 'fra-eng.zip'))


REAL = {'fra-eng': fra_eng}
SAMPLES = {'fra-eng': fra_eng_of_samples}
