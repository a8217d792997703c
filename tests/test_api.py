import subprocess
import sys

import numpy as np
import pyarrow as pa

import ulcmod_dist as um
from ulcmod_dist.store.modules import StoredModules


def test_api__every_public_name_is_there() -> None:
    assert [name for name in um.__all__ if getattr(um, name, None) is None] == []


def test_api__import_loads_neither_torch_nor_ray() -> None:
    code = "import sys, ulcmod_dist; print(sorted({'torch', 'ray', 'dask'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_api__dir_lists_the_public_names() -> None:
    assert dir(um) == sorted(um.__all__)


def test_modules__show_themselves_briefly_and_as_a_table() -> None:
    values = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
    found = um.discover(values, 3, restarts=2)
    assert len(repr(found)) < 80
    assert repr(found).endswith("40 units, 60 samples)")
    html = found._repr_html_()
    assert html.count("<tr>") == 4
    assert "background:rgba" in html


def test_stored_modules__show_categories_as_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    modules = StoredModules(
        units=pa.table({"module": [0, 1, 1]}),
        samples=pa.table({"module": [0, 0, 1, 1], "category": [hostile, "b", "b", None]}),
        history=pa.table({}),
        metrics={"num_modules": 2, "objective": 12.5},
    )
    html = modules._repr_html_()
    assert "<img" not in html
    assert "&lt;img" in html
    assert repr(modules) == "StoredModules(K = 2, L = 12.5, 3 units, 4 samples)"
