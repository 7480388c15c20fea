"""Memory that is freed, asked for again: pages that the system has to clear are counted."""

import platform
import subprocess
import sys

import pytest


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])  # of 4 bytes each
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_memory_that_is_freed_is_not_asked_for_again(size: int) -> None:
    program = (
        "import resource, torch\n"
        "from segline.process import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20):\n"
        f"        parts = [torch.ones({size}) for _ in range(5)]\n"
        "        del parts\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "before = faults()\n"
        "keep_freed_memory()\n"
        "faults()\n"
        "print(before, faults())\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, after = map(int, said.split())
    assert after < 100 < before  # 4 MB are 1,000 pages
