"""The comparison of dynamic pruning with its controls and its peers."""
