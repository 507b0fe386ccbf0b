"""One row of a benchmark, in this process: `main("MODULE:FUNCTION", ARGUMENTS)`.

ARGUMENTS are keyword arguments as JSON. The function's result, a JSON object, is the last line of
the standard output; the libraries it calls may print what they like before.
"""

import importlib
import json

# Distributions whose module has another name.
_PACKAGES = {
    "cuml": "cuml-cu13",
    "cuvs": "cuvs-cu13",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "flash_kmeans": "flash-kmeans",
    "nvidia": "nvidia-dali-cuda130",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "sklearnex": "scikit-learn-intelex",
}


def main(target: str, arguments: str) -> None:
    """Call the function and print its result; a library that is not there is a result too."""
    module, _, name = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        result = {"problem": f"missing: pip install {_PACKAGES.get(missing, missing)}"}
    print(flush=True)
    print(json.dumps(result), flush=True)
