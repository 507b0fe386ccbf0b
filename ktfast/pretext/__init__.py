"""The pretext task Jigsaw++: the puzzle network, its loss and its held-out accuracy."""
