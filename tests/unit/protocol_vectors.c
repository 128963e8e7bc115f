/* SPDX-License-Identifier: Apache-2.0 */
#include "protocol_vectors.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sluice_slice vector_load(const char *name)
{
	char path[512], line[512];
	uint8_t *bytes = malloc(4096);
	size_t len = 0;
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s.hex", PROTOCOL_DATA, name);
	file = fopen(path, "r");
	cr_assert(file != NULL && bytes != NULL, "%s", path);
	while (fgets(line, sizeof(line), file) != NULL) {
		for (const char *at = line; *at != 0 && *at != '#'; at++) {
			unsigned byte;

			if (isspace((unsigned char)*at))
				continue;
			cr_assert(sscanf(at, "%2x", &byte) == 1 && isxdigit((unsigned char)at[1]) &&
					  len < 4096,
				  "%s: %s", path, line);
			bytes[len++] = (uint8_t)byte;
			at++;
		}
	}
	(void)fclose(file);
	cr_assert(len > 0, "%s is empty", path);
	return (struct sluice_slice){bytes, len};
}

struct sluice_slice vector_body(const char *name, uint8_t type, uint32_t corr)
{
	struct sluice_slice frame = vector_load(name), body;
	struct frame_header header;
	uint8_t again[FRAME_HEADER_BYTES];
	const char *why = NULL;

	cr_assert(frame.len >= FRAME_HEADER_BYTES, "%s", name);
	cr_assert(frame_header_decode(frame.data, 1 << 20, &header, &why) == 0, "%s: %s", name,
		  why);
	cr_assert(header.type == type && header.corr == corr && header.flags == 0,
		  "%s: type %u, correlation %u", name, header.type, header.corr);
	cr_assert(header.body_bytes + FRAME_HEADER_BYTES == frame.len, "%s: %u body bytes in %zu",
		  name, header.body_bytes, frame.len);
	frame_header_encode(again, &header);
	cr_assert(memcmp(again, frame.data, sizeof(again)) == 0, "%s", name);
	body = slice_copy((const uint8_t *)frame.data + FRAME_HEADER_BYTES, header.body_bytes);
	free((void *)(uintptr_t)frame.data);
	return body;
}

void vector_body_equals(const char *name, const void *bytes, size_t len)
{
	struct sluice_slice frame = vector_load(name);

	cr_assert(frame.len == FRAME_HEADER_BYTES + len,
		  "%s: %zu bytes were encoded, %zu are expected", name, len,
		  frame.len - FRAME_HEADER_BYTES);
	for (size_t i = 0; i < len; i++)
		cr_assert(((const uint8_t *)frame.data)[FRAME_HEADER_BYTES + i] ==
				  ((const uint8_t *)bytes)[i],
			  "%s: byte %zu differs", name, i);
	free((void *)(uintptr_t)frame.data);
}

struct sluice_slice slice_copy(const void *bytes, size_t len)
{
	uint8_t *copy = malloc(len != 0 ? len : 1);

	cr_assert(copy != NULL);
	if (len > 0)
		memcpy(copy, bytes, len);
	return (struct sluice_slice){copy, len};
}

struct sluice_slice text(const char *text)
{
	return (struct sluice_slice){text, strlen(text)};
}

bool slice_is(struct sluice_slice slice, const char *text)
{
	return slice.len == strlen(text) && memcmp(slice.data, text, slice.len) == 0;
}
