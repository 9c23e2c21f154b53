"""Shared by all tests: tiny real checkpoints, and no network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny Llama (tied) with three experts, as checkpoint folders in bfloat16."""
    from tiny_models import make_family

    return make_family(tmp_path_factory.mktemp("tiny"), "llama")


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory):
    """A tiny Qwen3 (untied) with three experts, as checkpoint folders in float32."""
    from tiny_models import make_family

    return make_family(tmp_path_factory.mktemp("tiny_qwen3"), "qwen3")
