"""Turns `proto/edgerm/wire/v1/*.proto` into `edgerm/wire/v1/*_pb2.py` and `*_pb2.pyi`: run by `make proto`.

Uses the compiler of grpcio-tools and the stubs of mypy-protobuf, both pinned in the `dev` extra, so the output is the
same on every machine; it is committed, and nothing that runs needs either package. Modules whose .proto is gone are
removed. `generate.py DIR` writes the same tree below DIR instead.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
PACKAGE = Path("edgerm/wire/v1")


def generate(target: Path) -> None:
    """Writes modules and stubs of every .proto below `target`.

    Raises RuntimeError when the compiler refuses a file; the target is then left as it was.
    """
    protos = sorted(str(path.relative_to(SOURCES)) for path in (SOURCES / PACKAGE).glob("*.proto"))
    # protoc finds the plugin protoc-gen-mypy on PATH; it lies beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    includes = [f"-I{SOURCES}", f"-I{files('grpc_tools') / '_proto'}"]
    with TemporaryDirectory() as scratch:
        status = protoc.main(["protoc", *includes, f"--python_out={scratch}", f"--mypy_out=quiet:{scratch}", *protos])
        if status != 0:
            raise RuntimeError(f"protoc ended with status {status}; its messages stand above")
        replace(Path(scratch) / PACKAGE, target / PACKAGE)


def replace(fresh: Path, package: Path) -> None:
    """Makes the generated files in `package` those of `fresh`; other files there stay."""
    package.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in fresh.iterdir()}
    for old in package.glob("*_pb2.py*"):
        if old.name not in names:
            old.unlink()
    for name in sorted(names):
        shutil.copyfile(fresh / name, package / name)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
