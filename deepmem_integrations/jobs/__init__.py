"""Run trainings as jobs: the state of a job and its inputs are files, so that a job can train in a separate process."""

from deepmem_integrations.jobs.folder import JobFolder, RunningJob
from deepmem_integrations.jobs.status import JobList, JobStatus

__all__ = ["JobFolder", "JobList", "JobStatus", "RunningJob"]
