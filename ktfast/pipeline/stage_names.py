"""The names of the stages and of their parts. Each has a folder of its name in the run folder."""

STAGES = {
    "prepare": "decode and resize every image once, and store it for fast loading",
    "pretext": "train the deep network on a pretext task, such as Jigsaw++ puzzles",
    "features": "extract the features that are clustered",
    "cluster": "cluster the features with K-means and give every image a pseudo-label",
    "transfer": "train the target network on the pseudo-labels or on the teacher's features",
    "evaluate": "test the target and its baselines with probes, or without labels",
    "voc": "fine-tune the target on PASCAL VOC: classification, detection, segmentation",
}
"""The stages in the order of their execution, each with its purpose."""
BASELINES = ("baseline_pretext", "baseline_labels")
"""Trainings that the stage `evaluate` does for its baselines; `redo` accepts their names."""
PARTS = (*BASELINES, "unlabelled")
"""Parts of the stage `evaluate` that have a folder of their own; `redo` accepts their names."""
