"""The pretext task Jigsaw++: its network, its loss, its held-out accuracy and its pictures."""
