"""Images from files to batches, and features on disk.

`index` lists images, `prepare` makes them small once, `source` reads either, the feeds deliver
batches (`feed.make_feed` chooses one), `feature_store` keeps what the network made of them.
"""

from ktfast.data.index import ImageIndex, SkippedImage

__all__ = ["ImageIndex", "SkippedImage"]
