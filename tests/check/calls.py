#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No file calls in a circle: within a group of folders, neither files nor folders use each other's
names both ways. A protocol uses only the door of the broker.

usage: calls.py [--self-test] [--list] BUILD_DIRECTORY

Takes from nm which external names each object of a group defines and which it uses. An include rule
alone does not show this: a header may declare a function that a file of a higher layer defines.
Prints each circle with one use for each step, and each name that a protocol (FACES) uses past the
door: of the broker it may use door_*, util and core's readers. Exits with 1 if there is one. --list
prints the layers of each group, lowest first. --self-test compiles a planted circle of three files,
one of two folders and two calls past the door, and fails if they are not found, or if something is
found without them.
"""
import json
import os
import subprocess
import sys
import tempfile

# Files below a group's folders are checked together. A longer prefix takes its files out of a
# shorter one.
GROUPS = [
    "protocol",
    "client",
    "client/cli",
    "broker/util",
    "broker/store",
    "broker/core",
    "broker/engine",
    "broker/net",
    "broker/admin",
    "broker/plugin",
    "plugins/local",
    "bench/harness",
    "bench/drivers",
    "bench/floor",
    "bench/replay",
    "tests/line",
    "tests/sim",
    "tests/support",
]

# Folders of protocols: broker/net/conn/door.h is their way to the broker.
FACES = ["broker/net/native", "broker/net/foreign", "tests/line/face"]
# What they may use of the project besides their own folder.
FACE_FOLDERS = ["protocol", "broker/util"]
# Of core: what reads a request and nothing else.
FACE_CORE = {"core_request_is_query"}


def objects(build, root):
    """Yields (source path from root, object path), without what the build generates."""
    command = ["ninja", "-C", build, "-t", "compdb"]
    for entry in json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ):
        if not entry["output"].endswith(".o"):
            continue
        source = os.path.relpath(
            os.path.normpath(os.path.join(entry["directory"], entry["file"])), root
        )
        built = os.path.join(entry["directory"], entry["output"])
        made = os.path.normpath(os.path.join(entry["directory"], entry["file"])).startswith(
            build + os.sep
        )
        if (
            not made
            and not source.startswith("..")
            and source.endswith(".c")
            and os.path.exists(built)
        ):
            yield source, built


def names(object_path):
    """(names defined, names used) of one object, external ones only."""
    defined, used = set(), set()
    out = subprocess.run(
        ["nm", "--extern-only", "--format=posix", object_path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in out.splitlines():
        name, kind = line.split()[:2]
        (used if kind in "Uwv" else defined).add(name)
    return defined, used


def group_of(source):
    found = [group for group in GROUPS if source.startswith(group + "/")]
    return max(found, key=len) if found else None


def graph_of(files):
    """files: {source: (defined, used)}. Returns {source: {source it uses: a name}}."""
    where = {name: source for source, (defined, _) in files.items() for name in defined}
    graph = {source: {} for source in files}
    for source, (_, used) in files.items():
        for name in sorted(used):
            if where.get(name, source) != source:
                graph[source].setdefault(where[name], name)
    return graph


def folders_of(graph):
    folders = {}
    for source, uses in graph.items():
        folder = folders.setdefault(os.path.dirname(source), {})
        for other, name in uses.items():
            if os.path.dirname(other) != os.path.dirname(source):
                folder.setdefault(os.path.dirname(other), f"{os.path.basename(source)}: {name}")
    return folders


def circles(graph):
    """Tarjan's strongly connected components of more than one node, lowest first; and the order of
    all."""
    index, low, stack, on, order, found = {}, {}, [], set(), [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on.add(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in on:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while True:
                other = stack.pop()
                on.discard(other)
                part.append(other)
                if other == node:
                    break
            order.append(part)
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found, order


def walk(graph, part):
    """One way around: [(from, name, to), ...], the shortest from the part's first node."""
    start, inside = part[0], set(part)
    ways, queue = {start: []}, [start]
    while queue:
        node = queue.pop(0)
        for other, name in sorted(graph[node].items()):
            if other == start:
                return ways[node] + [(node, name, other)]
            if other in inside and other not in ways:
                ways[other] = ways[node] + [(node, name, other)]
                queue.append(other)
    return []


def layers(graph, order):
    """{node: layer}; a circle counts as one node."""
    layer = {}
    for part in order:
        inside = set(part)
        here = max(
            (layer[other] + 1 for node in part for other in graph[node] if other not in inside),
            default=0,
        )
        for node in part:
            layer[node] = here
    return layer


def check(files_of_group, listing):
    wrong = 0
    for group in sorted(files_of_group):
        graph, here = graph_of(files_of_group[group]), 0
        for what, these in (("files", graph), ("folders", folders_of(graph))):
            found, order = circles(these)
            for part in found:
                here += 1
                print(f"{group}: {len(part)} {what} call each other in a circle: {', '.join(part)}")
                for source, name, other in walk(these, part):
                    print(f"    {source} uses {name} of {other}")
            if listing and what == "files":
                layer = layers(these, order)
                print(
                    f"{group}: {len(these)} files,"
                    f" {max(layer.values()) + 1 if layer else 0} layers, {len(found)} circles"
                )
                for depth in sorted(set(layer.values())):
                    print(
                        f"  {depth}: "
                        + " ".join(
                            sorted(
                                os.path.relpath(node, group)
                                for node in these
                                if layer[node] == depth
                            )
                        )
                    )
        wrong += here
    return wrong


def within(source, folders):
    return any(source.startswith(folder + "/") for folder in folders)


def check_faces(files_of_group):
    """Prints each use of a protocol that is not the door's."""
    files = {source: names for group in files_of_group.values() for source, names in group.items()}
    where = {name: source for source, (defined, _) in files.items() for name in defined}
    wrong = 0
    for source, (_, used) in sorted(files.items()):
        if not within(source, FACES):
            continue
        allowed = FACE_FOLDERS + [folder for folder in FACES if within(source, [folder])]
        for name in sorted(used & where.keys()):
            of = where[name]
            door = name.startswith("door_") and within(of, ["broker/net/conn"])
            if not door and name not in FACE_CORE and not within(of, allowed):
                print(f"{source} uses {name} of {of}, past the door")
                wrong += 1
    return wrong


def read(build, root):
    files_of_group, alone = {}, 0
    for source, built in objects(build, root):
        group = group_of(source)
        # Programs of one file, and tests, which no file calls.
        if (
            group is None
            and not source.startswith("tests/")
            and os.path.dirname(source) != "broker"
        ):
            print(f"{source} belongs to no group of the table")
            alone += 1
        if group is not None:
            defined, used = names(built)
            have = files_of_group.setdefault(group, {}).setdefault(source, (set(), set()))
            have[0].update(defined)
            have[1].update(used)
    for group in GROUPS:
        if group not in files_of_group:
            print(f"{group} has no objects in {build}")
            alone += 1
    return files_of_group, alone


def self_test():
    planted = {
        "client/a.c": "int b(void); int a(void); int a(void) { return b(); }",
        "client/b.c": "int c(void); int b(void); int b(void) { return c(); }",
        "client/c.c": "int a(void); int c(void); int c(void) { return a(); }",
        "protocol/x/one.c": "int two(void); int one(void); int one(void) { return two(); }",
        "protocol/y/two.c": "int two(void); int two(void) { return 1; }",
        "protocol/y/three.c": "int four(void); int three(void); int three(void) { return four(); }",
        "protocol/x/four.c": "int four(void); int four(void) { return 1; }",
        "broker/net/conn/five.c": (
            "int conn_five(void), door_five(void); int conn_five(void) { return 1; }"
            " int door_five(void) { return 1; }"
        ),
        "broker/net/native/six.c": (
            "int conn_five(void), door_five(void), own(void), six(void);"
            " int own(void) { return 1; }"
            " int six(void) { return conn_five() + door_five() + own(); }"
        ),
        "tests/line/face/seven.c": "int own(void), seven(void); int seven(void) { return own(); }",
    }
    with tempfile.TemporaryDirectory() as folder:
        files_of_group = {}
        for source, text in planted.items():
            path = os.path.join(folder, source.replace("/", "_"))
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            subprocess.run(
                [os.environ.get("CC", "cc").split()[-1], "-c", "-o", path + ".o", path], check=True
            )
            files_of_group.setdefault(group_of(source), {})[source] = names(path + ".o")
    seen = check(files_of_group, False), check_faces(files_of_group)
    del files_of_group["client"]["client/c.c"]
    del files_of_group["protocol"]["protocol/x/four.c"]
    del files_of_group["broker/net"]["broker/net/conn/five.c"]
    del files_of_group["tests/line"]
    clean = check(files_of_group, False), check_faces(files_of_group)
    if (seen, clean) != ((2, 2), (0, 0)):
        print(f"self-test: {seen} of (2, 2) planted faults found, {clean} without them")
        return 1
    print("self-test: both planted circles and both calls past the door were found")
    return 0


def main():
    arguments = sys.argv[1:]
    if "--self-test" in arguments:
        return self_test()
    listing = "--list" in arguments
    arguments = [argument for argument in arguments if argument != "--list"]
    if len(arguments) != 1:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    files_of_group, alone = read(os.path.abspath(arguments[0]), root)
    if not files_of_group:
        print(f"{arguments[0]} has no objects of this tree: build it first", file=sys.stderr)
        return 2
    wrong = alone + check(files_of_group, listing) + check_faces(files_of_group)
    files = sum(len(files) for files in files_of_group.values())
    print(f"calls: {files} files in {len(files_of_group)} groups, {wrong} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
