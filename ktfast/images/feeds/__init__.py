"""Feeds deliver batches of equal squares from an image source.

`make` chooses a feed for a source. `base` defines what a feed, its plan and a batch are.
`torch` decodes with Pillow in threads. `dali` decodes with NVIDIA DALI, which gets its files from
`encoded_batches` and tunes a GPU's hardware decoder with `hardware_decoder`.
`resident` keeps all decoded squares in memory. `balanced` shows groups of images equally often.
"""
