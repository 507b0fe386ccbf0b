"""Features of images: teachers that compute features, stores on disk, transforms."""
