"""What saves test time, which is imports and compilation above all.

Set in the environment, before anything is imported: the workers, and the processes that
tests start, inherit it.
"""

import atexit
import gc
import os
import shutil
import sys
import tempfile

import pytest

SETTINGS = {
    # Tests are for CPUs; with libtpu installed (for tests/test_plan.py) JAX looks for more.
    "JAX_PLATFORMS": "cpu",
    # LLVM need not try hard, and the emitters of fusions give it twice the code.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

if sys.dont_write_bytecode:  # as containers have it: each process would compile all Python
    bytecode = tempfile.mkdtemp(prefix="w4d-tests-")
    atexit.register(shutil.rmtree, bytecode, ignore_errors=True)
    sys.dont_write_bytecode, sys.pycache_prefix = False, bytecode
    os.environ["PYTHONPYCACHEPREFIX"] = bytecode
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

gc.set_threshold(100_000, 20, 100)  # tracing makes many objects, and little garbage


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory):
    """Each is compiled once by all tests of a worker and the processes that they start."""
    import jax

    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
