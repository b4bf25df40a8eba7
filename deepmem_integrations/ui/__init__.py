"""The web application ``deepmem ui``: search, judge, train and switch models over one store.

It is a face over what the library does, and has no way of its own: thumbs and generated queries go into a `FeedbackLog`,
trainings are the jobs of `DeepMemory.train`, and models are put in use with a line in the audit log.
"""
