import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("KSCOUT_TEST_DATA")
    if not folder:
        pytest.skip("real scans are found through KSCOUT_TEST_DATA, which is not set")
    return Path(folder)


@pytest.fixture
def kspace() -> torch.Tensor:
    """Two slices of three coils on an odd plane."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 7, 10, dtype=torch.complex64, generator=generator)
