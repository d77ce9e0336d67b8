"""These tests need Triton's interpreter from the first import on: ``test_interpreted.py`` sees to that.

With ``LACONIC_GPU_TESTS=1`` the kernels run on a GPU: what a test gives them is copied there, and back after
the call, so the same tests hold it against the plain forms on a CPU.
"""

import os

collect_ignore_glob = ["*.py"]
if os.environ.get("LACONIC_GPU_TESTS"):
    from on_gpu import run_on_gpu

    run_on_gpu()
    collect_ignore_glob = []
elif os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore_glob = []
