"""The pipeline: the runner, the run folder, one file per stage, and the steps that stages share."""
