from deepmem_integrations.errors import (
    DeepMemoryError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobRunningError,
)


def test_every_error_is_one_of_ours():
    for error in (JobCancelledError, JobFailedError, JobRunningError, JobNotFoundError):
        assert issubclass(error, DeepMemoryError)
