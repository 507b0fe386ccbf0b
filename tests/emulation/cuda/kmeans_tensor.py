"""The tensor-core screen on the emulated GPU, with the function names of `_cuda`."""

from emulation.cuda.device import element_of

CODES = ["int8", "float16"]
PATHS = ["fastest", "mma"]


class EmulatedKernels:
    """The functions of `_cuda` that `ktfast.ops.kmeans_tensor` needs, for arrays of NumPy."""

    def __init__(self, cuda):
        self.cuda = cuda

    def kmeans_tensor_prepared_size(self, *, n_clusters, n_features, code):
        return self.cuda.size(
            "emulated_tensor_prepared_size", n_clusters, n_features, CODES.index(code)
        )

    def kmeans_tensor_tile_bytes(self, *, n_features, code):
        return self.cuda.size("emulated_tensor_tile_bytes", n_features, CODES.index(code))

    def kmeans_tensor_workspace_size(self, *, n_rows):
        return self.cuda.size("emulated_tensor_workspace_size", n_rows)

    def kmeans_tensor_prepare(self, *, centers, mean, prepared, code, stream):
        prepared[:] = 0x55  # what was there before must not matter
        self.cuda.call(
            "emulated_tensor_prepare", *centers.shape, CODES.index(code), centers, mean, prepared
        )

    def kmeans_tensor_encode(self, *, x, mean, codes, constants, code, stream):
        codes[:] = 0x55
        self.cuda.call(
            "emulated_tensor_encode", *x.shape, x, element_of(x), CODES.index(code),
            mean, codes, constants,
        )  # fmt: skip

    def kmeans_tensor_assign(
        self, *, x, centers, prepared, code, codes, constants, labels, distances, guessed,
        certify, bounds, moves, others, path, workspace, n_passed, n_multiplied, stream,
    ):  # fmt: skip
        workspace[:] = 0x5555555555555555
        self.cuda.call(
            "emulated_tensor_assign", len(x), *centers.shape, x, element_of(x),
            centers, CODES.index(code), prepared, codes, constants, labels, distances,
            int(guessed), int(certify), int(bounds), moves, others, PATHS.index(path), workspace,
            n_passed, n_multiplied,
        )  # fmt: skip

    def kmeans_tensor_moves(self, *, centers, previous, moves, stream):
        self.cuda.call("emulated_tensor_moves", *centers.shape, centers, previous, moves)

    def kmeans_tensor_distances(self, *, x, centers, labels, distances, stream):
        arguments = (len(x), *centers.shape, x, element_of(x), centers, labels, distances)
        self.cuda.call("emulated_tensor_distances", *arguments)
