/* SPDX-License-Identifier: Apache-2.0
 * The allocator hook and byte buffers. */
#include <stdlib.h>
#include <string.h>

#include "client/base/error.h"
#include "client/base/memory.h"
#include "client/base/sized.h"
#include "sluice/client.h"

static sluice_allocator hook;

int sluice_allocator_set(const sluice_allocator *allocator)
{
	sluice_allocator own;
	int rc = allocator_take(&allocator, &own);

	if (rc == 0 && allocator != NULL &&
	    (allocator->alloc == NULL || allocator->resize == NULL || allocator->release == NULL))
		rc = error_set(SLUICE_E_INVAL, "an allocator needs alloc, resize and release");
	if (rc == 0)
		hook = allocator != NULL ? *allocator : SLUICE_ALLOCATOR(.alloc = NULL);
	return rc;
}

static __thread bool lacked;

bool mem_lacked(void)
{
	bool was = lacked;

	lacked = false;
	return was;
}

void *mem_alloc(size_t bytes)
{
	void *block = hook.alloc != NULL ? hook.alloc(bytes) : malloc(bytes);

	if (block != NULL)
		memset(block, 0, bytes);
	else
		lacked = true;
	return block;
}

void *mem_resize(void *old, size_t bytes)
{
	void *block = hook.resize != NULL ? hook.resize(old, bytes) : realloc(old, bytes);

	if (block == NULL)
		lacked = true;
	return block;
}

void mem_free(void *old)
{
	if (old == NULL)
		return;
	if (hook.release != NULL)
		hook.release(old);
	else
		free(old);
}

static void *protobuf_alloc(void *user, size_t bytes)
{
	(void)user;
	return mem_alloc(bytes);
}

static void protobuf_free(void *user, void *old)
{
	(void)user;
	mem_free(old);
}

ProtobufCAllocator mem_protobuf = {.alloc = protobuf_alloc, .free = protobuf_free};

char *mem_text(const char *text, size_t len)
{
	char *copy = mem_alloc(len + 1);

	if (copy != NULL && len > 0)
		memcpy(copy, text, len);
	return copy;
}

uint8_t *buffer_room(struct buffer *buffer, size_t bytes)
{
	if (buffer->start == buffer->end)
		buffer->start = buffer->end = 0;
	if (buffer->capacity - buffer->end < bytes && buffer->start > 0) {
		memmove(buffer->bytes, buffer->bytes + buffer->start, buffer_len(buffer));
		buffer->end -= buffer->start;
		buffer->start = 0;
	}
	if (buffer->capacity - buffer->end < bytes) {
		size_t capacity = (buffer->end + bytes) * 2;
		uint8_t *grown = mem_resize(buffer->bytes, capacity);

		if (grown == NULL)
			return NULL;
		buffer->bytes = grown;
		buffer->capacity = capacity;
	}
	return buffer->bytes + buffer->end;
}

void buffer_free(struct buffer *buffer)
{
	mem_free(buffer->bytes);
	*buffer = (struct buffer){0};
}
