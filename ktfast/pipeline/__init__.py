"""The pipeline: runner, run folder, one file per stage, and the steps that stages share."""
