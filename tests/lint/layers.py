"""A folder includes itself, what its CMakeLists.txt lists under LAYERS, and system headers.

Also holds the ranks: a LAYERS entry must be of lower rank than the folder that lists it, and
includes are rooted ("crypto/shamir.h"), never relative.
"""
import pathlib
import re
import sys

RANK = {
    "common": 0, "crypto": 1, "dp": 1, "kernels": 1, "proto": 1, "model": 2, "net": 2,
    "ledger": 2, "secagg": 2, "federation": 3, "registry": 3, "client": 4, "coordinator": 4,
    "serve": 4, "cli": 5,
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def listed_layers(cmake: pathlib.Path, folder: str) -> set[str]:
    if folder == "cli":
        return set(RANK)
    match = re.search(r"dure_layer\(\s*%s\b(.*?)\)" % folder, cmake.read_text(), re.S)
    if not match:
        return set()
    words = match.group(1).split()
    if "LAYERS" not in words:
        return set()
    names = set()
    for word in words[words.index("LAYERS") + 1:]:
        if word.isupper():
            break
        names.add(word)
    return names


def main(root: pathlib.Path) -> int:
    errors = []
    for folder, rank in RANK.items():
        allowed = listed_layers(root / folder / "CMakeLists.txt", folder)
        for name in sorted(allowed - {folder}):
            if name not in RANK or (folder != "cli" and RANK[name] >= rank):
                errors.append(f"{folder}/CMakeLists.txt lists {name}, which is not of lower rank")
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".c", ".h", ".cu"):
                continue
            for target in INCLUDE.findall(path.read_text()):
                first = target.split("/")[0]
                where = path.relative_to(root)
                if "/" not in target or first not in RANK:
                    if not target.endswith(".pb-c.h"):
                        errors.append(f"{where} includes \"{target}\": use a rooted path")
                elif first != folder and first not in allowed:
                    errors.append(f"{where} includes {target}, but {folder} does not list {first}")
    print("\n".join(errors) or f"{len(RANK)} layers, every include allowed")
    return 1 if errors else 0


sys.exit(main(pathlib.Path(sys.argv[1])))
