"""Fine-tuning on PASCAL VOC: classification, detection and segmentation, one file per protocol.

Each has a task for `ktfast.training.loop.train`, and the function that tests what was trained.
"""
