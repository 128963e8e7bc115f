/* SPDX-License-Identifier: Apache-2.0
 * Structs of a program that was built against another header: see sized.h. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "client/base/error.h"
#include "client/base/sized.h"

static uint32_t size_of(const void *theirs)
{
	uint32_t size;

	memcpy(&size, theirs, sizeof(size));
	return size;
}

/* The macro of the struct has its name in capitals. */
static int refuse_size(const struct sized *of, uint32_t size)
{
	char macro[64];
	size_t i = 0;

	for (; of->name[i] != 0 && i < sizeof(macro) - 1; i++)
		macro[i] = (char)toupper((unsigned char)of->name[i]);
	macro[i] = 0;
	return error_format(SLUICE_E_INVAL,
			    "%s has a size of %u; expected at least %u and at most %u: make it "
			    "with %s()",
			    of->name, size, of->first, (uint32_t)SIZED_MAX, macro);
}

int sized_check(const struct sized *of, const void *theirs)
{
	uint32_t size = size_of(theirs);

	return size < of->first || size > SIZED_MAX ? refuse_size(of, size) : 0;
}

int sized_copy(const struct sized *of, const void *theirs, void *own)
{
	uint32_t size = size_of(theirs);
	const uint8_t *bytes = theirs;

	if (sized_check(of, theirs) != 0)
		return SLUICE_E_INVAL;
	for (uint32_t i = of->size; i < size; i++)
		if (bytes[i] != 0)
			return error_format(SLUICE_E_UNSUPPORTED,
					    "%s has %u bytes, of which this library knows %u; "
					    "expected 0 in "
					    "the rest, not at %u",
					    of->name, size, of->size, i);
	memset(own, 0, of->size);
	memcpy(own, theirs, size < of->size ? size : of->size);
	memcpy(own, &of->size, sizeof(of->size));
	return 0;
}

void sized_fill(const struct sized *of, void *theirs, const void *own)
{
	uint32_t size = size_of(theirs), known = size < of->size ? size : of->size;

	memcpy((uint8_t *)theirs + sizeof(size), (const uint8_t *)own + sizeof(size),
	       known - sizeof(size));
	memset((uint8_t *)theirs + known, 0, size - known);
}
