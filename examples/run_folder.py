"""Run the pipeline from Python on a folder of photographs: python examples/run_folder.py FOLDER.

HOG features, a narrow network and few epochs keep the run of a hundred photographs under a minute.
Without a folder, the script cuts photographs of scikit-image and scikit-learn into small views.
"""

import sys
import tempfile
from pathlib import Path

import ktfast

work = Path(tempfile.mkdtemp(prefix="ktfast-example-"))
if len(sys.argv) > 1:
    photographs = Path(sys.argv[1])
else:
    from ktfast.cli.demo import write_views

    write_views(work / "views", {"train": 8, "test": 1})
    photographs = work / "views" / "train"

options = {
    "data.pretext": photographs,
    "data.short_side": 64,
    "features.source": "hog",
    "features.crop": 64,
    "pretext.crop": 64,
    "pretext.tile_size": 16,
    "cluster.n_clusters": 10,
    "transfer.width": 0.125,
    "transfer.batch_norm": True,
    "transfer.image_size": 64,
    "transfer.crop": 63,
    "transfer.training.epochs": 2,
    "transfer.training.batch_size": 32,
}
print("report:", ktfast.run(options, work / "run"))
