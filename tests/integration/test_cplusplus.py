#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The public headers from C++: each compiles by itself, every exported function links under its C
name, and a plugin exports its symbol."""
import os
import re
import shutil
import subprocess
import tempfile

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
INCLUDE = os.path.join(ROOT, "include")
HEADERS = sorted(
    name for name in os.listdir(os.path.join(INCLUDE, "sluice")) if name.endswith(".h")
)
STANDARDS = ("c++11", "c++14", "c++17", "c++20")
COMPILERS = {"g++": ("g++",), "clang++": ("clang++", "clang++-14")}

PLUGIN = """
#include "sluice/plugin.h"
static const sluice_service_ops ops = {sizeof(ops), nullptr};
const sluice_plugin SLUICE_PLUGIN_SYMBOL = {sizeof(sluice_plugin), SLUICE_PLUGIN_ABI_MAJOR, SLUICE_PLUGIN_ABI_MINOR, SLUICE_PLUGIN_SERVICE, "cpp", "1", nullptr, nullptr, &ops};
"""

# Structs are made with their size, empty and then assigned; from C++20 on also with named members.
STRUCTS = """
#include "sluice/client.h"
static sluice_queue_spec spec_of(const char *name)
{
	auto spec = SLUICE_QUEUE_SPEC();
	spec.name = name;
	return spec;
}
int main()
{
	const sluice_queue_spec spec = spec_of("q");
	sluice_job_info info = SLUICE_JOB_INFO();
	sluice_message message = SLUICE_MESSAGE();
	bool good = spec.size == sizeof(spec) && spec.lease_ms == 0 && spec.name[0] == 'q' &&
		    info.size == sizeof(info) && info.memory_peak_bytes == 0 &&
		    message.size == sizeof(message) && SLUICE_HAS(&message, time_ms);
#if __cplusplus >= 202002L
#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* g++ -Wextra wants all of them */
	const sluice_call call = SLUICE_CALL(.deadline_ms = 5);
	good = good && call.size == sizeof(call) && call.deadline_ms == 5 && call.user == nullptr;
#endif
	return good ? 0 : 1;
}
"""


def library():
    return os.path.join(os.path.abspath(tap.BUILD), "client")


def exported():
    names = subprocess.run(
        ["nm", "-D", "--defined-only", os.path.join(library(), "libsluice.so")],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return sorted(set(re.findall(r"\b(sluice_[a-z0-9_]+)\b", names)))


def sanitizers():
    with open(os.path.join(library(), "libsluice.so"), "rb") as file:
        image = file.read()
    if b"__tsan_init" in image:
        tap.skip("a program without TSan cannot load a library with it")
    return ["-fsanitize=address"] if b"__asan_init" in image else []


def compile_as(compiler, standard, *arguments):
    return subprocess.run(
        [
            compiler,
            f"-std={standard}",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-I",
            INCLUDE,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def from_cplusplus(family, standard):
    def test():
        compiler = next(filter(shutil.which, COMPILERS[family]), None)
        if compiler is None:
            tap.skip(f"there is no {' or '.join(COMPILERS[family])}")
        probe = subprocess.run(
            [compiler, f"-std={standard}", "-x", "c++", "-fsyntax-only", "-"],
            input="#include <cstddef>\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        if probe.returncode != 0:
            tap.skip(f"{compiler} cannot compile {standard}: {probe.stderr.splitlines()[:1]}")
        sanitize = sanitizers()
        if sanitize and family == "clang++":
            tap.skip(
                "clang's ASan cannot be in one process with that of gcc, which the library has"
            )
        names = exported()
        tap.check(
            "sluice_error_text" in names and "sluice_open" in names,
            f"what the library exports was found ({len(names)} names)",
        )
        with tempfile.TemporaryDirectory() as top:
            for header in HEADERS:
                alone = os.path.join(top, "alone.cc")
                with open(alone, "w", encoding="utf-8") as file:
                    file.write(
                        f'#include "sluice/{header}"\n#include "sluice/{header}"\nint main() {{'
                        " return 0; }\n"
                    )
                done = compile_as(
                    compiler, standard, "-c", alone, "-o", os.path.join(top, "alone.o")
                )
                tap.equal(done.returncode, 0, f"{header} compiles by itself: {done.stderr}")
            every = os.path.join(top, "every.cc")
            with open(every, "w", encoding="utf-8") as file:
                file.write(
                    "#include <cstdio>\n"
                    + "".join(f'#include "sluice/{header}"\n' for header in HEADERS)
                )
                file.write("int main() {\n\tusing any = void (*)();\n\tconst any all[] = {\n")
                file.write("".join(f"\t\treinterpret_cast<any>(&{name}),\n" for name in names))
                file.write(
                    "\t};\n\tint missing = 0;\n\tfor (any one : all)\n\t\tmissing += one =="
                    ' nullptr;\n\tstd::printf("%zu %d %s\\n", sizeof(all) / sizeof(all[0]),'
                    " missing, sluice_error_name(SLUICE_E_TIMEOUT));\n}\n"
                )
            program = os.path.join(top, "every")
            done = compile_as(
                compiler,
                standard,
                *sanitize,
                every,
                "-L",
                library(),
                "-lsluice",
                f"-Wl,-rpath,{library()}",
                "-o",
                program,
            )
            tap.equal(done.returncode, 0, f"every exported function links: {done.stderr}")
            done = subprocess.run([program], capture_output=True, text=True, timeout=60)
            tap.equal(done.stdout, f"{len(names)} 0 TIMEOUT\n", f"and it runs ({done.stderr})")
            structs = os.path.join(top, "structs.cc")
            with open(structs, "w", encoding="utf-8") as file:
                file.write(STRUCTS)
            program = os.path.join(top, "structs")
            done = compile_as(compiler, standard, structs, "-o", program)
            tap.equal(done.returncode, 0, f"structs are made: {done.stderr}")
            tap.equal(
                subprocess.run([program], timeout=60).returncode, 0, "and have the given values"
            )
            plugin = os.path.join(top, "plugin.cc")
            with open(plugin, "w", encoding="utf-8") as file:
                file.write(PLUGIN)
            done = compile_as(
                compiler,
                standard,
                "-fvisibility=hidden",
                "-shared",
                "-fPIC",
                plugin,
                "-o",
                os.path.join(top, "plugin.so"),
            )
            tap.equal(done.returncode, 0, f"a plugin compiles: {done.stderr}")
            symbols = subprocess.run(
                ["nm", "-D", "--defined-only", os.path.join(top, "plugin.so")],
                capture_output=True,
                text=True,
                timeout=60,
            ).stdout
            tap.check(
                re.search(r"\bsluice_plugin_v1\b", symbols),
                f"and exports its symbol under its C name: {symbols}",
            )

    return test


for _compiler in COMPILERS:
    for _standard in STANDARDS:
        globals()[f"test_{_compiler}_{_standard}".replace("+", "p").replace("-", "_")] = (
            from_cplusplus(_compiler, _standard)
        )


if __name__ == "__main__":
    tap.main(globals())
