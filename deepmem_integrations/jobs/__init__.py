"""Trainings as jobs: their state on disk, what they need, and the process that works on them."""

from deepmem_integrations.jobs.folder import JobFolder, JobList, JobStatus

__all__ = ["JobFolder", "JobList", "JobStatus"]
