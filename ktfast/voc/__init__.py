"""Fine-tuning on PASCAL VOC by three protocols: classification, detection, segmentation.

One file per protocol holds its training task, its test and its metric:

- `classification`: which classes a photograph shows. The metric, average precision, is in
  `ktfast.evaluation.average_precision`.
- `detection`: where objects are, by Fast R-CNN. Arithmetic on boxes is in `boxes`.
- `segmentation`: the class of every pixel, by a fully convolutional network.

The protocols share:

- `data`: photographs and annotations of a VOC folder.
- `views`: crops and resizings of a photograph. `feed` delivers them in batches.
- `proposals`: regions that Fast R-CNN classifies.
- `heads`: the networks for detection and segmentation, built on a trunk.
"""
