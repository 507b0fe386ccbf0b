"""The recipe of a run of every stage that takes about a minute on two cores."""

TINY = """
seed = 3
device = "cpu"
threads = 1

[data]
short_side = 90

[pretext]
width = 0.125
batch_norm = true
crop = 90
tile_size = 26
permutations = 12
tile_features = 16
hidden = 32
training = { epochs = 2, batch_size = 32, learning_rate = 0.02, log_every = 2 }

[features]
batch_size = 50

[cluster]
n_clusters = 10

[transfer]
width = 0.125
batch_norm = true
image_size = 90
crop = 80
training = { epochs = 2, batch_size = 32, learning_rate = 0.02, log_every = 2 }

[evaluate]
probe_epochs = 2
neighbors = 5
"""
