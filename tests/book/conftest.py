"""A chapter is read without a screen, and its loops write plain text."""
import pytest
from matplotlib import pyplot as plt


@pytest.fixture
def reader(capfd):
    """Return a function that gives what has been printed since its last call.

    Neither output may hold escape sequences or the name of a figure, at any time.
    """
    def printed():
        out, err = capfd.readouterr()
        for text in (out, err):
            assert '\x1b' not in text and '\r' not in text and 'Figure(' not in text
            assert 'Traceback' not in text
        return out
    yield printed
    printed()
    plt.close('all')
