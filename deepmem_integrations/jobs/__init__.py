"""Trainings as jobs: their state on disk, their inputs, and the process that works on them."""

from deepmem_integrations.jobs.folder import JobFolder, RunningJob
from deepmem_integrations.jobs.status import JobList, JobStatus

__all__ = ["JobFolder", "JobList", "JobStatus", "RunningJob"]
