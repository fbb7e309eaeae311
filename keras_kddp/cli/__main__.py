"""`python -m keras_kddp.cli`."""

import sys

from keras_kddp.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
