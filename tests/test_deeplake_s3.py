"""A data set on an S3 endpoint: moto's server, on this machine."""

import socket
import subprocess
import sys
import time
import urllib.request

import boto3
import numpy as np
import pytest

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def creds():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/")
                break
            except OSError:
                time.sleep(0.2)
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket="bucket")
        yield {**keys, "endpoint_url": endpoint, "aws_region": "us-east-1"}
    finally:
        process.terminate()
        process.wait()


def test_a_data_set_on_s3(creds):
    store = DeepLakeStore("s3://bucket/dataset", creds=creds)
    x = np.random.default_rng(0).normal(size=(20, 8))
    store.add([f"d{i}" for i in range(20)], x, [f"t{i}" for i in range(20)], [{"k": i % 2} for i in range(20)])
    store.delete(["d0"])
    again = DeepLakeStore("s3://bucket/dataset", creds=creds, read_only=True)
    assert len(again) == 19
    assert again.search(x[3], 1, filter={"k": 1})[0].text == "t3"
    with pytest.raises(StoreError, match="no local folder"):
        from deepmem_integrations import DeepMemory

        DeepMemory.from_deeplake(again, lambda texts: np.ones((len(texts), 8)))
