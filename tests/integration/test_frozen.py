#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs and plugins of older versions: tests/data/abi-*, with their own headers and today's
library.

Also checks that today's headers keep what the frozen ones promised: structs begin alike, prototypes
and values are the same. """
import os
import re
import subprocess
import tempfile

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TODAY = os.path.join(ROOT, "include")
DATA = os.path.join(ROOT, "tests/data")
VERSIONS = sorted(name[len("abi-") :] for name in os.listdir(DATA) if name.startswith("abi-"))
HEADERS = ("client.h", "error.h", "plugin.h", "types.h")
UNSTABLE = "sluice_listener"  # plugin.h says so


def library():
    return os.path.join(os.path.abspath(tap.BUILD), "client")


def sanitizers():
    with open(os.path.join(library(), "libsluice.so"), "rb") as file:
        image = file.read()
    if b"__tsan_init" in image:
        tap.skip("a program without TSan cannot load a library with it")
    return ["-fsanitize=address"] if b"__asan_init" in image else []


def compiled(include, source, *words):
    """Compiles with these headers and no others of the project; fails the test on a warning."""
    done = subprocess.run(
        [
            "cc",
            "-std=c11",
            "-D_DEFAULT_SOURCE",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
            include,
            source,
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    tap.equal(done.returncode, 0, f"cc {source}: {done.stderr}")


def text(include, header):
    """A header without its comments."""
    with open(os.path.join(include, "sluice", header), encoding="utf-8") as file:
        return re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)


def members(body):
    for one in body.split(";"):
        pointer = re.search(r"\(\*(\w+)\)", one)
        for name in [pointer.group(1)] if pointer else one.split(","):
            found = re.search(r"(\w+)\s*(?:\[[^\]]*\])?\s*$", name)
            if found:
                yield found.group(1)


def structs(include):
    """{type: [members]} of the public structs that may not change."""
    found = {}
    for header in HEADERS:
        plain = text(include, header)
        for name, body in re.findall(r"^typedef struct (\w+) \{(.*?)^\} \1;", plain, re.S | re.M):
            found[name] = list(members(body))
        for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", plain, re.S | re.M):
            found["struct " + name] = list(members(body))
    return {name: listed for name, listed in found.items() if UNSTABLE not in name}


def values(include):
    """Names whose numbers programs have in them."""
    found = ["SLUICE_PLUGIN_ABI_MAJOR"]
    for header in HEADERS:
        for body in re.findall(
            r"^(?:typedef )?enum \w+ \{(.*?)\}", text(include, header), re.S | re.M
        ):
            found += re.findall(r"^\s*(SLUICE_\w+)\b(?!\()", body.replace(",", "\n"), re.M)
    found += ["SLUICE_E_" + name for name in re.findall(r"\bX\((\w+),", text(include, "error.h"))]
    return [name for name in found if "SLUICE_ERROR" not in name]


def prototypes(include):
    return [
        one
        for header in ("client.h", "error.h")
        for one in re.findall(r"^SLUICE_API\b[^;]*;", text(include, header), re.M)
    ]


INCLUDES = "#include <stdio.h>\n#include <stddef.h>\n" + "".join(
    f'#include "sluice/{name}"\n' for name in HEADERS
)
# Prints what must hold of today's headers: the frozen ones say the numbers.
PROMISES = """
static void at(const char *type, const char *member, size_t offset, size_t size)
{
	printf("_Static_assert(offsetof(%s, %s) == %zu, \\"%s.%s moved\\");\\n", type, member, offset, type,
	       member);
	printf("_Static_assert(sizeof(((%s *)0)->%s) == %zu, \\"%s.%s has another size\\");\\n", type, member,
	       size, type, member);
}
/* What was appended lies behind the old end: an old program's padding is not zero. */
__attribute__((unused)) static void behind(const char *type, const char *member, size_t size)
{
	printf("_Static_assert(offsetof(%s, %s) >= %zu, \\"%s.%s is in the older struct\\");\\n", type,
	       member, size, type, member);
}
static void same(const char *name, long long value)
{
	printf("_Static_assert(%s == %lld, \\"%s has another value\\");\\n", name, value, name);
}
"""


def promises(include, top):
    lines = []
    for name, listed in structs(include).items():
        tap.check(listed, f"{name} has members")
        lines += [
            f'at("{name}", "{one}", offsetof({name}, {one}), sizeof((({name} *)0)->{one}));'
            for one in listed
        ]
        lines += [
            f'behind("{name}", "{one}", sizeof({name}));'
            for one in structs(TODAY).get(name, [])
            if one not in listed
        ]
    lines += [f'same("{name}", (long long){name});' for name in values(include)]
    source, program = os.path.join(top, "promises.c"), os.path.join(top, "promises")
    with open(source, "w", encoding="utf-8") as file:
        file.write(INCLUDES + PROMISES + "int main(void)\n{\n")
        file.write("\n".join("\t" + line for line in lines) + "\n\treturn 0;\n}\n")
    compiled(include, source, "-o", program)
    said = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout
    count = said.count("_Static_assert")
    tap.check(count > 300, f"the frozen headers promise {count} numbers")
    return said


def headers_hold(version):
    def test():
        include = os.path.join(DATA, f"abi-{version}", "include")
        tap.check(
            len(prototypes(include)) > 100, f"{len(prototypes(include))} prototypes are frozen"
        )
        with tempfile.TemporaryDirectory() as top:
            source = os.path.join(top, "today.c")
            with open(source, "w", encoding="utf-8") as file:
                file.write(
                    INCLUDES + promises(include, top) + "\n".join(prototypes(include)) + "\n"
                )
            compiled(TODAY, source, "-fsyntax-only")

    return test


def exports_hold(version):
    def test():
        include = os.path.join(DATA, f"abi-{version}", "include")
        names = [
            re.search(r"(\w+)\(", one[len("SLUICE_API") :]).group(1) for one in prototypes(include)
        ]
        done = subprocess.run(
            [
                "nm",
                "-D",
                "--defined-only",
                "--with-symbol-versions",
                os.path.join(library(), "libsluice.so"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        exported = dict(re.findall(r"\bT (sluice_\w+)@@?([\w.]+)", done.stdout))
        tap.equal([name for name in names if name not in exported], [], "functions that are gone")
        # The program calls each of them, too.
        with open(os.path.join(DATA, f"abi-{version}", "client.c"), encoding="utf-8") as file:
            program = file.read()
        tap.equal(
            [name for name in names if not re.search(rf"\b{name}\(", program)],
            [],
            "functions that client.c does not call",
        )

    return test


def client_runs(version):
    def test():
        folder = os.path.join(DATA, f"abi-{version}")
        with tempfile.TemporaryDirectory() as top, tap.Broker() as broker:
            program = os.path.join(top, "client")
            compiled(
                os.path.join(folder, "include"),
                os.path.join(folder, "client.c"),
                *sanitizers(),
                "-L",
                library(),
                "-lsluice",
                f"-Wl,-rpath,{library()}",
                "-o",
                program,
            )
            process = tap.Process([program, broker.address])
            tap.equal(process.wait(100), 0, f"a program of {version} runs: {process.tail(100)}")
            tap.check(
                f"all of {version} works" in process.text().decode(),
                f"and finds all data unchanged: {process.tail(100)}",
            )
            tap.check(
                not tap.SANITIZER_REPORT.search(process.text()),
                f"no sanitizer reports: {process.tail(200)}",
            )

    return test


def sluice(broker, *words):
    done = subprocess.run(
        [tap.program("client/cli/sluice"), "--address", broker.address, *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.equal(done.returncode, 0, f"sluice {' '.join(words)}: {done.stderr}")
    return done.stdout


def plugin_runs(version):
    def test():
        folder = os.path.join(DATA, f"abi-{version}")
        sanitizers()
        with tempfile.TemporaryDirectory() as top, tempfile.TemporaryDirectory() as data:
            path = os.path.join(top, "service.so")
            compiled(
                os.path.join(folder, "include"),
                os.path.join(folder, "service.c"),
                "-shared",
                "-fPIC",
                "-fvisibility=hidden",
                "-L",
                library(),
                "-lsluice",
                f"-Wl,-rpath,{library()}",
                "-o",
                path,
            )
            with tap.Broker(data=data) as broker:
                sluice(broker, "stream", "create", "plugin")
            with tap.Broker(data=data, args=["--plugin", f"{path} stream=plugin"]) as broker:
                tap.wait_until(
                    lambda: b"abi.published" in broker.text(),
                    60,
                    "the plugin in the broker publishes",
                )
                tap.check(
                    b"id=abi.init msg=plugin " in broker.text(),
                    f"init was called, with its setting: {broker.tail(20)}",
                )
                outside = tap.Process(
                    [
                        tap.program("broker/plugin/sluice-plugin"),
                        "--address",
                        broker.address,
                        "--set",
                        "stream=plugin",
                        path,
                    ]
                )
                tap.wait_until(
                    lambda: b"abi.published" in outside.text(), 60, "the plugin outside publishes"
                )
                outside.stop()
                events = sluice(broker, "follow", "plugin", "--from", "first", "--until-caught-up")
                tap.equal(events.count("from a plugin of"), 2, f"both events are there: {events}")

    return test


def test_there_are_frozen_headers():
    tap.check("0.1" in VERSIONS, f"tests/data has {VERSIONS}")


def test_structs_end_without_padding():
    """An appended member must not be in bytes that older programs leave undefined."""
    with tempfile.TemporaryDirectory() as top:
        source = os.path.join(top, "padding.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write(INCLUDES)
            for name, listed in structs(TODAY).items():
                if listed[0] == "size":
                    file.write(
                        f"_Static_assert(sizeof({name}) == offsetof({name}, {listed[-1]}) "
                        f'+ sizeof((({name} *)0)->{listed[-1]}), "{name} ends with padding");\n'
                    )
        compiled(TODAY, source, "-fsyntax-only")


for _version in VERSIONS:
    _name = _version.replace(".", "_")
    globals()[f"test_the_headers_have_what_those_of_{_name}_promised"] = headers_hold(_version)
    globals()[f"test_the_library_exports_what_{_name}_had"] = exports_hold(_version)
    globals()[f"test_a_program_of_{_name}_runs"] = client_runs(_version)
    globals()[f"test_a_plugin_of_{_name}_runs"] = plugin_runs(_version)


if __name__ == "__main__":
    tap.main(globals())
