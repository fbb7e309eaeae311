"""How many units leave: limits of size and accuracy."""
