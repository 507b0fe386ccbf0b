"""Images from files to batches.

`index` lists the images of a folder. `decode` turns the bytes of any image file into RGB pixels.
`prepare` decodes, resizes and stores each image once, with threads from `in_order`. `source` reads
either the original files or a prepared set. `feeds` deliver batches; `feeds.make.make_feed` chooses
a feed. `balance` orders an epoch so that groups of images come equally often. `augment` crops,
mirrors and normalises batches.
"""

from ktfast.images.index import ImageIndex, SkippedImage

__all__ = ["ImageIndex", "SkippedImage"]
