/* SPDX-License-Identifier: Apache-2.0
 *
 * Golden bytes: records in hex, each with its fields beside the bytes, as files in tests/data:
 *
 *     # Lines before the first part are for people.
 *     > key
 *     00 00 00 01                 # gateway: 1
 *     > value 2
 *     00 00 00 00 00 00 00 2a     # job: 42
 *     80                          # reports: 1
 *                                 # begun: 0            a second field of the same byte
 *     00 03                       # (bytes of the name)  no field: for people
 *     61 62 63                    # name: "abc"
 *     0a 01 78                    # row: {"job":"x"}     a message; its bytes are the line's
 *
 * A part is a name, a number (the format) and bytes with fields; a part `key` begins another
 * record. Numbers are decimal, bytes are "text" or 0xhex, of a fixed array without the zeros at its
 * end.
 *
 * Tables say where the fields are in a struct; golden_expect() and golden_fill() go between both.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "sluice/types.h"

enum {
	GOLDEN_PARTS_MAX = 16,
	GOLDEN_FIELDS_MAX = 40,
	GOLDEN_BYTES_MAX = 1024,
	GOLDEN_TEXT_MAX = 2048
};

struct golden_field {
	char name[40];
	char text[GOLDEN_TEXT_MAX];
	struct sluice_slice bytes; /* of its line; they point into the part's */
};
struct golden_part {
	char name[16];
	unsigned format;
	uint8_t bytes[GOLDEN_BYTES_MAX];
	size_t len, field_count;
	struct golden_field fields[GOLDEN_FIELDS_MAX];
};
struct golden {
	char path[256];
	size_t part_count;
	struct golden_part parts[GOLDEN_PARTS_MAX];
};

/* Owned; golden_free(). Fails the test when there is no such file, or it is not of this form. */
struct golden *golden_load(const char *directory, const char *name);
void golden_free(struct golden *golden);

enum golden_type { GOLDEN_NUMBER, GOLDEN_SIGNED, GOLDEN_SLICE, GOLDEN_ARRAY, GOLDEN_MESSAGE };
struct golden_member {
	const char *name; /* NULL ends a table */
	enum golden_type type;
	size_t offset, size;
	const ProtobufCMessageDescriptor
		*message; /* GOLDEN_MESSAGE: a slice with its packed bytes */
};
#define GOLDEN_MEMBER(type, structure, member)                           \
	{                                                                \
#member, type, offsetof(struct structure, member),       \
			sizeof(((struct structure *)NULL)->member), NULL \
	}
#define N(structure, member) GOLDEN_MEMBER(GOLDEN_NUMBER, structure, member)
#define SIGNED(structure, member) GOLDEN_MEMBER(GOLDEN_SIGNED, structure, member)
#define S(structure, member) GOLDEN_MEMBER(GOLDEN_SLICE, structure, member)
#define A(structure, member) GOLDEN_MEMBER(GOLDEN_ARRAY, structure, member)
#define M(structure, member, descriptor)                                          \
	{                                                                         \
#member, GOLDEN_MESSAGE, offsetof(struct structure, member),      \
			sizeof(((struct structure *)NULL)->member), &(descriptor) \
	}

/* Fails the test unless the struct has the values of all fields of the part, and the part has all
 * fields of the table. */
void golden_expect(const struct golden *golden, const struct golden_part *part,
		   const struct golden_member *members, const void *structure);
/* Sets the members from the fields of the part; slices point into the part. */
void golden_fill(const struct golden *golden, struct golden_part *part,
		 const struct golden_member *members, void *structure);
/* Fails the test unless the part has these bytes, and prints the encoder's bytes in hex. */
void golden_bytes(const struct golden *golden, const struct golden_part *part,
		  struct sluice_slice bytes);
/* Unpacks the part's bytes as a message and packs it into buf, as an encoder would. */
struct sluice_slice golden_packed(const ProtobufCMessageDescriptor *message,
				  struct sluice_slice bytes, uint8_t buf[GOLDEN_BYTES_MAX]);

#endif
