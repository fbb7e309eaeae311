"""What surgery does to each layer class: `python -m keras_kddp.surgery`."""

import sys

from keras_kddp.surgery.explanation import coverage_table

if __name__ == "__main__":
    sys.stdout.write(coverage_table() + "\n")
