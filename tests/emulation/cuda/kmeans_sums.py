"""The integer sums of K-means on the emulated GPU, with the function names of `_cuda`."""

from emulation.cuda.device import element_of


class EmulatedSums:
    """The functions of `_cuda` that `ktfast.ops.kmeans_sums` needs, for arrays of NumPy."""

    def __init__(self, cuda):
        self.cuda = cuda

    def kmeans_move_workspace_size(self, *, n_rows, n_clusters):
        return self.cuda.size("emulated_kmeans_move_workspace_size", n_rows, n_clusters)

    def kmeans_totals_workspace_size(self, *, n_rows):
        return self.cuda.size("emulated_kmeans_totals_workspace_size", n_rows)

    def kmeans_move(
        self, *, x, before, after, sample_weight, scale, workspace, sums, low, counts, **_
    ):
        n, d = x.shape
        self.cuda.call(
            "emulated_kmeans_move",
            *(n, len(sums), d, x, element_of(x), before, after, sample_weight, scale),
            *(workspace, sums, low, counts),
        )

    def kmeans_ranges(self, *, x, largest, **_):
        self.cuda.call("emulated_kmeans_ranges", *x.shape, x, element_of(x), largest)

    def kmeans_means(
        self, *, sums, low, counts, weights, step, previous, narrow, centers, shifts, **_
    ):
        arguments = (*sums.shape, sums, low, counts, weights, step, previous)
        self.cuda.call("emulated_kmeans_means", *arguments, int(narrow), centers, shifts)

    def kmeans_costs(self, *, sums, low, counts, step, mean, centers, costs, errors, **_):
        arguments = (*sums.shape, sums, low, counts, step, mean, centers, costs, errors)
        self.cuda.call("emulated_kmeans_costs", *arguments)

    def kmeans_totals(self, *, distances, sample_weight, before, after, workspace, totals, **_):
        arguments = (len(distances), distances, sample_weight, before, after, workspace, totals)
        self.cuda.call("emulated_kmeans_totals", *arguments)
