"""Pretext tasks: what the deep network learns without labels, and how to add a task.

`ktfast.pretext.protocol.Pretext` says what a task has to do. `ktfast.pretext.registry` lists the
tasks.
"""
