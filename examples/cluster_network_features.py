"""Cluster photographs by the features of a torchvision network.

The weights are random, so nothing is downloaded. With trained weights (``weights="DEFAULT"``), the
clusters follow the contents of the photographs.
"""

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torchvision.models import resnet18

import ktfast

SIDE = 96

torch.manual_seed(0)
network = resnet18(weights=None).eval()
network.fc = torch.nn.Identity()  # features are the input of the classifier

patches = []  # 2 photographs, cut into squares
for photograph in load_sample_images().images:
    for y in range(0, photograph.shape[0] - SIDE, SIDE):
        for x in range(0, photograph.shape[1] - SIDE, SIDE):
            patches.append(photograph[y : y + SIDE, x : x + SIDE])
images = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255

with torch.inference_mode():
    features = network(images)

kmeans = ktfast.KMeans(6, spherical=True, random_state=0).fit(features)
print("features:", tuple(features.shape), "inertia:", round(kmeans.inertia_, 4))
for cluster in range(6):
    members = torch.nonzero(kmeans.labels_ == cluster).ravel().tolist()
    print(f"cluster {cluster}: squares {members}")
