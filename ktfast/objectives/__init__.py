"""Objectives of the stage transfer that learn the teacher's features instead of pseudo-labels.

`ktfast.objectives.protocol.Objective` says what an objective has to do.
`ktfast.objectives.registry` lists the objectives. The method's own objective, pseudo-labels, is
`ktfast.training.classification.ClassificationTask`.
"""
