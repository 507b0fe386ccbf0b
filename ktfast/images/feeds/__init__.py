"""Feeds: batches of equal squares from an image source, by DALI, by torch, or from memory."""
