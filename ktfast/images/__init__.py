"""Images from files to batches.

`index` lists images, `prepare` decodes, resizes and stores each image once, `source` reads either,
and the feeds deliver batches (`feeds.make.make_feed` chooses one).
"""

from ktfast.images.index import ImageIndex, SkippedImage

__all__ = ["ImageIndex", "SkippedImage"]
