"""The comparison of dynamic pruning with its controls and its peers."""

import sys

# PyTorch tries to import its compiler, and with TensorFlow in the same process
# triton 3.8 ends it by a segmentation fault. Nothing here is compiled.
sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
