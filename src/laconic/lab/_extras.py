"""Check that the packages of the extra ``lab`` are installed."""

from importlib.util import find_spec

for _name in ("scipy", "sklearn", "threadpoolctl", "matplotlib"):
    if find_spec(_name) is None:
        raise ModuleNotFoundError(f"laconic.lab needs {_name}: pip install 'laconic[lab]'", name=_name)
