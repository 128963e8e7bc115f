#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs of other versions keep working: exported names, structs of another size."""
import os
import re
import subprocess

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY = os.path.join(os.path.abspath(tap.BUILD), "client/libsluice.so")
PROBE = "tests/integration/abi_probe"


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def code(header):
    """A public header without its comments."""
    return re.sub(r"/\*.*?\*/", "", text("include/sluice/" + header), flags=re.S)


def prototypes():
    """(name, parameters) of each function and function type of the public headers."""
    for header in ("client.h", "error.h"):
        plain = re.sub(r"^#(?:.*\\\n)*.*$", "", code(header), flags=re.M)
        yield from re.findall(r"\b([a-z]\w+)\(([^()]*)\)[^;()]*;", plain)


def declared():
    """The functions that the public headers declare; a plugin's symbol is the plugin's own."""
    return sorted(
        name
        for header in ("client.h", "error.h")
        for name in re.findall(r"SLUICE_API\b[^;(]*?\b(\w+)\(", code(header))
    )


def mapped():
    """{name: version node} of the symbol map."""
    found = {}
    for node, body in re.findall(r"^(\w[\w.]*) \{(.*?)^\}", text("client/sluice.map"), re.S | re.M):
        listed = re.search(r"global:(.*?)(?:local:|\Z)", body, re.S).group(1)
        found.update({name: node for name in re.findall(r"([^\s;]+);", listed)})
    return found


def exported():
    """{name: version node} of the library."""
    done = subprocess.run(
        ["nm", "-D", "--defined-only", "--with-symbol-versions", LIBRARY],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return dict(re.findall(r"\bT (sluice_\w+)@@?([\w.]+)", done.stdout))


def test_the_map_names_what_the_headers_declare():
    tap.check(len(declared()) > 100, f"the headers declare {len(declared())} functions")
    tap.equal(sorted(mapped()), declared(), "names of client/sluice.map")
    tap.equal(set(mapped().values()), {"SLUICE_0.1"}, "nodes of client/sluice.map")


def test_the_library_exports_what_the_map_names():
    tap.equal(exported(), mapped(), "names and versions that the library exports")


def test_every_public_prototype_names_its_parameters():
    tap.check(len(list(prototypes())) > 100, f"{len(list(prototypes()))} prototypes were found")
    tap.equal(
        [
            f"{name}: {one.strip()}"
            for name, parameters in prototypes()
            for one in parameters.split(",")
            if not re.search(r"\w+(?: \**|\*+)(?!const\b)[a-z]\w*(?:\[\d+\])?$|^void$", one.strip())
        ],
        [],
        "parameters without a name",
    )


def test_every_public_struct_begins_with_its_size():
    client = code("client.h")
    structs = re.findall(r"typedef struct (\w+) \{\s*([^;]*);", client)
    tap.check(len(structs) > 20, f"client.h has {len(structs)} structs")
    tap.equal(
        [name for name, first in structs if first != "uint32_t size"],
        [],
        "structs that begin with something else",
    )
    # Those that a program makes have a macro of their name.
    made = set(re.findall(r"#define (SLUICE_\w+)\([.]*\) SLUICE_MAKE", client))
    tap.equal(
        sorted(name for name, _ in structs if name.upper() not in made),
        ["sluice_delivery_view", "sluice_notice"],
        "structs that only the library makes",
    )


def scenario(name):
    def test():
        with tap.Broker() as broker:
            process = tap.Process([tap.program(PROBE), broker.address, name])
            tap.equal(process.wait(100), 0, f"it holds: {process.tail(100)}")
            tap.check(
                not tap.SANITIZER_REPORT.search(process.text()),
                f"no sanitizer reports: {process.tail(200)}",
            )

    return test


for _name in (
    "what_a_program_makes_has_a_size",
    "every_kind_of_call_has_a_size",
    "what_the_library_fills_has_a_size",
    "messages_of_a_batch_have_one_size",
    "what_the_library_makes_has_a_size",
    "an_allocator_has_a_size_and_all_functions",
):
    globals()["test_" + _name] = scenario(_name)


def test_every_scenario_of_the_probe_is_a_test():
    listed = subprocess.run(
        [tap.program(PROBE), "--list"], capture_output=True, text=True, timeout=60
    ).stdout.split()
    tap.check(listed, "the probe lists its scenarios")
    tap.equal(
        [name for name in listed if "test_" + name not in globals()],
        [],
        "scenarios that no test runs",
    )


if __name__ == "__main__":
    tap.main(globals())
