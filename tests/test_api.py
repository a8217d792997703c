import subprocess
import sys

import ulcmod_dist as um


def test_api__every_public_name_is_there() -> None:
    assert [name for name in um.__all__ if getattr(um, name, None) is None] == []


def test_api__import_loads_neither_torch_nor_ray() -> None:
    code = "import sys, ulcmod_dist; print(sorted({'torch', 'ray', 'dask'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
