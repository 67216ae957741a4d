# setup.py puts this text as one line into d2l_gluon.pth beside the package, so that Python runs it
# when it starts.  `import mxnet` then imports d2l first, also in a program that never names d2l,
# as some sections of the book do: today's NumPy would refuse them.  Nothing is imported before
# that, and d2l is found where the program itself would find it.
import sys


def finder_of_d2l():
    for finder in sys.meta_path:
        if getattr(finder, 'is_d2l_compat', False):
            return finder


class D2LFirst:
    done = False

    def find_spec(self, fullname, path=None, target=None):
        # Where d2l was first, its own finder asks all others, and this one.
        if fullname != 'mxnet' or self.done or finder_of_d2l():
            return None
        self.done = True
        try:
            import d2l  # noqa: F401
        except ImportError:
            return None  # removed by hand, and this line forgotten
        # The loop that asks the finders has passed the place where d2l has just put its own.
        finder = finder_of_d2l()
        return finder and finder.find_spec(fullname, path, target)


sys.meta_path.insert(0, D2LFirst())
