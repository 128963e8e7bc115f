#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Includes point downward only (broker/core/README.md, client/README.md: folders).

usage: include_direction.py [--self-test] [ROOT]

Prints `file:line: reason` for each violation and exits with 1 if there is one. --self-test plants
wrong includes in a temporary copy, one at a time, and fails if one of them is not found.
"""
import fnmatch
import os
import re
import shutil
import sys
import tempfile

PUBLIC = ["include/sluice/*"]
WIRE = PUBLIC + ["protocol/*"]
# What every layer above core may include of it. Inner folders are for core alone.
CORE_DOORS = [
    "broker/core/core.h",
    "broker/core/command.h",
    "broker/core/effects.h",
    "broker/core/commands.def",
    "broker/core/queries.def",
]
CORE = (
    CORE_DOORS
    + WIRE
    + [
        "broker/store/store.h",
        "broker/util/bytes.h",
        "broker/util/crc.h",
        "broker/util/invariant.h",
        "broker/util/list.h",
        "broker/core/timers.def",
        "broker/core/owned.def",
        "broker/core/records.def",
        "broker/core/sweeps.def",
    ]
)
# What a layer of the broker above core may include, and what net adds: the engine's contract.
BROKER = CORE_DOORS + WIRE + ["broker/util/*"]
NET = BROKER + ["broker/engine/engine.h"]
# What a face includes: a protocol that is linked in (broker/plugin/faces.h). calls.py checks the
# names that its objects use.
FACE = BROKER + ["broker/net/conn/door.h", "broker/net/conn/protocol.h"]
PROTOCOL = FACE + ["broker/net/protocols.h"]
# Behind store_impl.h an implementation knows neither the common layer nor the other one.
STORE_IMPL = PUBLIC + ["broker/util/*", "broker/store/store.h", "broker/store/store_impl.h"]


def core(*folders):
    return CORE + [f"broker/core/{folder}/*" for folder in folders]


def client(*folders):
    return WIRE + [f"client/{folder}/*" for folder in folders]


# What each layer may include of the project, besides its own folder. A file belongs to the first
# pattern that matches its path, so the special cases stand first.
LAYERS = [
    # pattern, allowed project files
    ("include/*", []),
    ("protocol/*", PUBLIC),
    # The command is a program like any other: the public headers only.
    ("client/cli/*", PUBLIC),
    # What a reader copies.
    ("client/examples/*", PUBLIC),
    ("client/base/*", WIRE),
    ("client/link/*", client("base")),
    ("client/call/*", client("base", "link")),
    # A transaction that sets a cursor asks which stream is followed; it uses nothing else of sub.
    ("client/publish/*", client("base", "link", "call") + ["client/sub/streams.h"]),
    ("client/sub/*", client("base", "link", "call")),
    ("client/*", client("base", "link", "call", "publish", "sub")),
    ("broker/util/*", PUBLIC),
    ("broker/store/lmdb/*", STORE_IMPL),
    ("broker/store/mem/*", STORE_IMPL),
    ("broker/store/*", PUBLIC + ["broker/util/*"]),
    # core: base serves every folder, each folder includes those below it, dispatch includes all.
    ("broker/core/base/*", core("base")),
    ("broker/core/session/*", core("base", "session")),
    ("broker/core/lifecycle/*", core("base", "lifecycle")),
    ("broker/core/router/*", core("base", "router")),
    ("broker/core/stream/*", core("base", "router", "stream")),
    ("broker/core/queue/*", core("base", "session", "router", "stream", "queue")),
    ("broker/core/publish/*", core("base", "session", "router", "stream", "queue", "publish")),
    ("broker/core/job/*", core("base", "session", "lifecycle", "queue", "publish", "job")),
    ("broker/core/dispatch/*", CORE + ["broker/core/*"]),
    ("broker/core/*", CORE),
    ("broker/engine/*", BROKER + ["broker/store/store.h"]),
    ("broker/plugin/*", WIRE + ["broker/util/*", "broker/engine/*"]),
    # It reads the records of a store that no broker serves.
    (
        "broker/admin/dump.*",
        BROKER
        + [
            "broker/store/store.h",
            "broker/core/base/keys.h",
            "broker/core/base/topo.h",
            "broker/core/job/live.h",
            "broker/core/stream/segment.h",
        ],
    ),
    (
        "broker/admin/*",
        BROKER
        + ["broker/store/store.h", "broker/engine/*", "broker/plugin/*", "broker/admin/dump.h"],
    ),
    # net: conn calls a protocol by its table only; a protocol knows the door and no other protocol;
    # the loop is above conn; protocols.h is where the table of a protocol is registered.
    ("broker/net/conn/*", NET),
    ("broker/net/io/*", NET + ["broker/net/conn/*"]),
    ("broker/net/native/*", PROTOCOL),
    ("broker/net/foreign/*", PROTOCOL),
    ("broker/net/*", NET + ["broker/net/conn/*", "broker/net/io/*"]),
    (
        "broker/*",
        BROKER
        + [
            "broker/store/*",
            "broker/engine/*",
            "broker/net/*",
            "broker/admin/*",
            "broker/plugin/*",
        ],
    ),
    # The process half knows files and processes; the shepherd is built of it, without a client.
    ("plugins/local/attempt/*", ["include/sluice/error.h"]),
    ("plugins/local/*", PUBLIC + ["plugins/local/attempt/*"]),
    ("plugins/*", PUBLIC),
    ("bench/replay/*", PUBLIC),
    # The floor must not change with the systems on it, nor the harness with a system that it
    # measures.
    ("bench/floor/*", []),
    ("bench/harness/*", []),
    ("bench/drivers/*", WIRE + ["bench/harness/driver.h", "bench/floor/*"]),
    # The oracle must not share a mistake with the broker.
    ("tests/sim/oracle*", PUBLIC + ["tests/sim/oracle*"]),
    ("tests/line/face/*", FACE),
    ("tests/*", ["*"]),
]

# Where a system header may be named. A header that matches no row here may be included by every
# layer.
CONFINED = [
    # pattern of the header, patterns of files that may include it
    ("lmdb.h", ["broker/store/lmdb/*", "bench/*", "tests/*"]),
    (
        "event2/*",
        [
            "broker/net/conn/*",
            "broker/net/io/*",
            "broker/admin/*",
            "client/examples/*",
            "bench/*",
            "tests/*",
        ],
    ),
    ("event.h", []),
    ("openssl/*", ["broker/net/conn/tls.c", "client/link/tls.c", "bench/*", "tests/*"]),
    # Its default ends the process without memory, so each side includes it with its own settings.
    ("uthash.h", ["broker/util/hash.h", "client/base/hash.h", "bench/*", "plugins/*", "tests/*"]),
    ("msgpack*", ["protocol/*", "broker/*", "client/*", "bench/*", "tests/*"]),
]

# Layers that may name these system headers and no others, neither directly nor through a header
# of the project. The rules know no I/O, clock, thread or randomness, so what they may include is
# listed, not what they may not. <sys/uio.h> is there for struct iovec in store.h.
ONLY_SYSTEM = {
    "broker/core/*": [
        "assert.h",
        "ctype.h",
        "errno.h",
        "inttypes.h",
        "limits.h",
        "math.h",
        "protobuf-c/*",
        "stdalign.h",
        "stdarg.h",
        "stdbool.h",
        "stddef.h",
        "stdint.h",
        "stdio.h",
        "stdlib.h",
        "string.h",
        "sys/uio.h",
        "uthash.h",
        "utlist.h",
    ]
}

# Functions of permitted headers that use time, randomness or I/O.
FORBIDDEN_CALLS = {
    "broker/core/*": [
        "rand",
        "random",
        "srand",
        "drand48",
        "getenv",
        "setenv",
        "system",
        "mkstemp",
        "time",
        "clock",
        "printf",
        "fprintf",
        "puts",
        "fopen",
        "fdopen",
        "fwrite",
        "fread",
        "qsort_r",
        "exit",
    ]
}

# Headers that the build makes: name as included -> the layer's file that it stands for.
GENERATED = {"sluice.pb-c.h": "protocol/sluice.pb-c.h"}

# Folders with code, and where a quoted include is looked for after the file's own folder.
SOURCE_DIRS = ["include", "protocol", "client", "broker", "plugins", "bench", "tests"]
INCLUDE_DIRS = ["", "include"]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
COMMENT_OR_STRING = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S
)

# For --self-test: (file that gets the line, line, part of the reason if it is not the name of the
# included header).
PLANTED = [
    ("broker/core/planted.c", "#include <event2/event.h>"),
    ("broker/core/planted.c", "#include <lmdb.h>"),
    ("broker/core/planted.c", "#include <pthread.h>"),
    ("broker/core/planted.c", "#include <time.h>"),
    ("broker/core/planted.c", "#  include <sys/socket.h>"),
    ("broker/core/planted.c", "#include <stdatomic.h>"),
    ("broker/core/planted.c", '#include "broker/util/clock.h"'),
    ("broker/core/planted.c", '#include "broker/engine/engine.h"'),
    ("broker/core/planted.c", '#include "../net/net.h"', "broker/net/net.h"),
    ("broker/core/planted.c", "int planted(void) { return rand(); }", "rand()"),
    ("broker/core/planted.h", "#include <threads.h>"),
    ("broker/core/planted.c", '#include "broker/core/base/apply.h"'),
    ("broker/core/base/planted.c", '#include "broker/core/session/session.h"'),
    ("broker/core/session/planted.c", '#include "broker/core/queue/queue.h"'),
    ("broker/core/lifecycle/planted.c", '#include "broker/core/job/job.h"'),
    ("broker/core/router/planted.c", '#include "broker/core/queue/queue.h"'),
    ("broker/core/stream/planted.c", '#include "broker/core/session/session.h"'),
    ("broker/core/queue/planted.c", '#include "broker/core/job/job.h"'),
    ("broker/core/publish/planted.c", '#include "broker/core/job/job.h"'),
    ("broker/core/job/planted.c", '#include "broker/core/dispatch/dispatch.h"'),
    ("broker/engine/planted.c", '#include "broker/core/queue/queue.h"'),
    ("broker/net/planted.c", '#include "broker/core/job/job.h"'),
    ("client/examples/planted.c", '#include "client/base/client.h"'),
    ("broker/store/store.h", "#include <pthread.h>"),
    ("broker/store/planted.c", '#include "protocol/frame.h"'),
    ("broker/store/planted.c", "#include <lmdb.h>"),
    ("broker/store/mem/planted.c", "#include <lmdb.h>"),
    ("broker/store/planted.c", '#include "broker/store/lmdb/lmdb_dir.h"'),
    ("broker/store/mem/planted.c", '#include "broker/store/lmdb/lmdb_dir.h"'),
    ("broker/store/mem/planted.c", '#include "broker/store/store_internal.h"'),
    ("broker/store/lmdb/planted.c", '#include "broker/store/store_internal.h"'),
    ("broker/store/lmdb/planted.c", '#include "broker/core/core.h"'),
    ("broker/net/conn/planted.c", '#include "broker/net/native/native.h"'),
    ("broker/net/conn/planted.c", '#include "broker/net/io/io.h"'),
    ("broker/net/conn/planted.c", "#include <openssl/ssl.h>"),
    ("client/link/planted.c", "#include <openssl/ssl.h>"),
    ("broker/net/conn/planted.c", '#include "broker/net/protocols.h"'),
    ("broker/net/conn/planted.c", '#include "broker/engine/batch.h"'),
    ("broker/net/conn/planted.c", '#include "broker/core/base/keys.h"'),
    ("broker/net/io/planted.c", '#include "broker/net/native/native.h"'),
    ("broker/net/io/planted.c", '#include "broker/net/net.h"'),
    ("broker/net/native/planted.c", '#include "broker/net/io/io.h"'),
    ("broker/net/native/planted.c", "#include <event2/event.h>"),
    ("broker/net/native/planted.c", '#include "broker/net/conn/conn.h"'),
    ("broker/net/native/planted.c", '#include "broker/engine/engine.h"'),
    ("broker/net/native/query.c", '#include "broker/net/conn/internal.h"'),
    ("broker/net/foreign/planted.c", '#include "broker/net/conn/sub.h"'),
    ("broker/net/foreign/planted.c", '#include "broker/net/native/native.h"'),
    ("broker/net/foreign/planted.c", '#include "broker/net/io/release.h"'),
    ("broker/net/planted.c", '#include "broker/net/native/native.h"'),
    ("broker/net/planted.c", "#include <uthash.h>"),
    ("broker/util/planted.c", '#include "broker/core/core.h"'),
    ("broker/engine/planted.c", '#include "broker/net/net.h"'),
    ("protocol/planted.c", '#include "sluice/planted_missing.h"'),
    ("protocol/planted.c", '#include "broker/util/bytes.h"'),
    ("client/planted.c", '#include "broker/util/bytes.h"'),
    ("client/planted.c", '#include "client/cli/cli.h"'),
    ("client/base/planted.c", '#include "client/link/link.h"'),
    ("client/link/planted.c", '#include "client/call/call.h"'),
    ("client/call/planted.c", '#include "client/sub/streams.h"'),
    ("client/call/planted.c", '#include "client/publish/publish.h"'),
    ("client/call/planted.c", "#include <uthash.h>"),
    ("client/call/planted.c", "#include <openssl/ssl.h>"),
    ("client/publish/planted.c", '#include "client/sub/subs.h"'),
    ("client/sub/planted.c", '#include "client/publish/publish.h"'),
    ("client/cli/planted.c", '#include "client/base/loop.h"'),
    ("client/cli/planted.c", '#include "protocol/utf8.h"'),
    ("plugins/local/planted.c", '#include "broker/plugin/plugin.h"'),
    ("plugins/local/planted.c", '#include "protocol/frame.h"'),
    ("plugins/local/attempt/planted.c", '#include "plugins/local/state.h"'),
    ("plugins/local/attempt/planted.c", '#include "sluice/client.h"'),
    ("bench/replay/planted.c", '#include "protocol/frame.h"'),
    ("bench/floor/planted.c", '#include "bench/harness/driver.h"'),
    ("bench/harness/planted.c", '#include "bench/drivers/redis.h"'),
    ("bench/drivers/planted.c", '#include "bench/harness/harness.h"'),
    ("tests/sim/oracle_planted.c", '#include "broker/core/core.h"'),
    ("tests/line/face/planted.c", '#include "broker/net/conn/conn.h"'),
    ("tests/line/face/planted.c", '#include "broker/net/native/native.h"'),
    ("tests/line/face/planted.c", '#include "broker/engine/engine.h"'),
    ("tests/line/face/planted.c", '#include "broker/store/store.h"'),
]


def source_files(root):
    for top in SOURCE_DIRS:
        for folder, names, files in os.walk(os.path.join(root, top)):
            names[:] = sorted(n for n in names if not n.startswith("."))
            for name in sorted(files):
                if name.endswith((".c", ".h", ".def")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def row_of(path, table):
    """The first row of a table {pattern: value} or [(pattern, value)] that fits the path, or
    None."""
    for pattern, value in table.items() if isinstance(table, dict) else table:
        if fnmatch.fnmatchcase(path, pattern):
            return pattern, value
    return None


class Tree:
    def __init__(self, root):
        self.root = root
        self.includes = {}
        self.reached = {}

    def text(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as file:
            return file.read()

    def exists(self, path):
        return os.path.isfile(os.path.join(self.root, path))

    def resolve(self, path, quoted, name):
        """The project's file that an include names, or None for a header of the system."""
        places = ([os.path.dirname(path)] if quoted else []) + INCLUDE_DIRS
        for place in places:
            candidate = os.path.normpath(os.path.join(place, name))
            if self.exists(candidate):
                # <limits.h> is the system's, whatever a folder on the include path holds.
                if quoted or "/" in name:
                    return candidate
        return GENERATED.get(name)

    def includes_of(self, path):
        """[(line number, quoted, name, project's file or None)] of one file."""
        if path not in self.includes:
            rows = []
            for number, line in enumerate(self.text(path).splitlines(), 1):
                found = INCLUDE.match(line)
                if found:
                    quoted, name = found.group(1) == '"', found.group(2)
                    rows.append((number, quoted, name, self.resolve(path, quoted, name)))
            self.includes[path] = rows
        return self.includes[path]

    def system_of(self, path):
        """{system header: (file, line) that includes it} reachable from a header through the
        project's headers."""
        if path not in self.reached:
            self.reached[path] = found = {}
            if self.exists(path):
                for number, _, name, target in self.includes_of(path):
                    if target is None:
                        found.setdefault(name, (path, number))
                    else:
                        for header, where in self.system_of(target).items():
                            found.setdefault(header, where)
        return self.reached[path]


def check_include(tree, path, row, quoted, name, target):
    """Yields the reasons for which one include is wrong."""
    pattern, allowed = row
    if target is not None:
        own = os.path.dirname(pattern)
        same_layer = row_of(target, LAYERS)[0] == pattern if row_of(target, LAYERS) else False
        own_folder = same_layer and (own != "plugins" or target.split("/")[1] == path.split("/")[1])
        if not own_folder and not matches(target, allowed):
            yield f'"{target}" is not below {own or path}'
    elif quoted:
        yield f'"{name}" is no file of the project (a header of the system is included with <>)'
    else:
        confined = row_of(name, CONFINED)
        if confined and not matches(path, confined[1]):
            yield f"<{name}> is not for {own_name(path)}"


def own_name(path):
    return os.path.dirname(path) or path


def check_system(tree, path):
    row = row_of(path, ONLY_SYSTEM)
    if row is None:
        return
    for number, _, name, target in tree.includes_of(path):
        if target is None:
            if not matches(name, row[1]):
                layer = own_name(path)
                yield number, f"<{name}> is not among the system headers that {layer} may know"
            continue
        for header, (file, line) in tree.system_of(target).items():
            if not matches(header, row[1]) and row_of(file, ONLY_SYSTEM) is None:
                through = f"<{header}> (through {file}:{line})"
                yield number, f"brings in {through}, which {own_name(path)} may not know"


def check_calls(tree, path):
    row = row_of(path, FORBIDDEN_CALLS)
    if row is None:
        return
    # Removes comments and strings and keeps their line breaks, so that line numbers stay right.
    code = COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), tree.text(path))
    call = re.compile(r"(?<![\w.>])(" + "|".join(row[1]) + r")\s*\(")
    for number, line in enumerate(code.splitlines(), 1):
        for found in call.finditer(line):
            name, layer = found.group(1), own_name(path)
            yield number, f"{name}() uses time, randomness or I/O, which {layer} may not"


def check(root):
    """[(file, line, reason)] of all violations below root, and how many files were read."""
    tree = Tree(root)
    violations = []
    count = 0
    for path in source_files(root):
        count += 1
        row = row_of(path, LAYERS)
        if row is None:
            violations.append((path, 1, "belongs to no layer of the table"))
            continue
        for number, quoted, name, target in tree.includes_of(path):
            for reason in check_include(tree, path, row, quoted, name, target):
                violations.append((path, number, reason))
        violations += [(path, number, reason) for number, reason in check_system(tree, path)]
        violations += [(path, number, reason) for number, reason in check_calls(tree, path)]
    return violations, count


def self_test(root):
    failures = 0
    with tempfile.TemporaryDirectory(prefix="include-direction-") as copy:
        for path in source_files(root):
            os.makedirs(os.path.dirname(os.path.join(copy, path)), exist_ok=True)
            shutil.copyfile(os.path.join(root, path), os.path.join(copy, path))
        before = set(check(copy)[0])
        for path, line, *reason in PLANTED:
            expected = reason[0] if reason else INCLUDE.match(line).group(2)
            target = os.path.join(copy, path)
            kept = open(target, encoding="utf-8").read() if os.path.exists(target) else None
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "a", encoding="utf-8") as file:
                file.write("\n" + line + "\n")
            planted_line = (kept or "").count("\n") + 2
            found = [v for v in check(copy)[0] if v not in before]
            exact = [v for v in found if v[:2] == (path, planted_line) and expected in v[2]]
            through = [v for v in found if expected in v[2] and f"{path}:{planted_line}" in v[2]]
            if not exact and not through:
                failures += 1
                print(f"planted `{line}` in {path}: not found")
            if kept is None:
                os.remove(target)
            else:
                with open(target, "w", encoding="utf-8") as file:
                    file.write(kept)
        if set(check(copy)[0]) != before:
            failures += 1
            print("the copy has changed: the self-test itself is wrong")
    print(f"include direction: {len(PLANTED)} wrong includes planted, {failures} not found")
    return 1 if failures else 0


def main():
    args = sys.argv[1:]
    planted = "--self-test" in args
    args = [a for a in args if a != "--self-test"]
    if len(args) > 1 or any(a.startswith("-") for a in args):
        print(__doc__, file=sys.stderr)
        return 2
    root = (
        args[0]
        if args
        else os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    )
    if planted:
        return self_test(root)
    violations, count = check(root)
    for path, number, reason in violations:
        print(f"{path}:{number}: {reason}")
    print(f"include direction: {count} files, {len(violations)} violations")
    if count == 0:
        print(f"no source file below {root}", file=sys.stderr)
    return 1 if violations or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
