"""``python -m d2l``: the same as the command ``d2l``."""
import sys

from d2l.cli import main

sys.exit(main())
