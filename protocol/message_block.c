/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks, see message_block.h: a chunk that a usual request fits, and more chunks behind it for one that does not. What protobuf-c
 * allocates is bounded by message.c's look at the bytes before it.
 */
#include "protocol/message_block.h"

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM_BYTES = 960, ALIGN = alignof(max_align_t) };

struct chunk {
	struct chunk *next; /* older */
	size_t used, size;
	alignas(max_align_t) uint8_t room[];
};

/* Lies in its oldest chunk. */
struct message_block {
	struct chunk *newest;
};
static_assert(sizeof(struct message_block) <= ALIGN, "a block is the first thing taken");

static struct chunk *chunk_new(struct chunk *older, size_t size)
{
	struct chunk *chunk = malloc(sizeof(*chunk) + size);

	if (chunk == NULL)
		return NULL;
	chunk->next = older;
	chunk->used = 0;
	chunk->size = size;
	return chunk;
}

static void *chunk_take(struct chunk *chunk, size_t bytes)
{
	uint8_t *at = chunk->room + chunk->used;

	if (bytes > chunk->size - chunk->used)
		return NULL;
	chunk->used += bytes;
	return at;
}

static void *take(void *user, size_t bytes)
{
	struct message_block *block = user;
	size_t rounded = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	void *at;

	if (rounded < bytes)
		return NULL;
	at = chunk_take(block->newest, rounded);
	if (at == NULL) {
		/* As large again as all before it: few chunks, whatever comes. */
		size_t size = block->newest->size * 2 > rounded ? block->newest->size * 2 : rounded;
		struct chunk *chunk = chunk_new(block->newest, size);

		if (chunk == NULL)
			return NULL;
		block->newest = chunk;
		at = chunk_take(chunk, rounded);
	}
	return at;
}

static void keep(void *user, void *old)
{
	(void)user;
	(void)old;
}

void *message_block_alloc(struct message_block *block, size_t bytes)
{
	void *at = take(block, bytes);

	if (at != NULL)
		memset(at, 0, bytes);
	return at;
}

void message_block_free(struct message_block *block)
{
	struct chunk *chunk = block != NULL ? block->newest : NULL;

	while (chunk != NULL) {
		struct chunk *older = chunk->next;

		free(chunk);
		chunk = older;
	}
}

int message_unpack_block(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			 uint64_t max, struct message_block **ret_block, ProtobufCMessage **ret,
			 const char **ret_why)
{
	/* Strings are copied, so a large one is as large again. */
	size_t more = bytes.len <= max && bytes.len > ROOM_BYTES / 4 ? bytes.len : 0;
	struct chunk *chunk = chunk_new(NULL, ROOM_BYTES + more);
	struct message_block *block = chunk != NULL ? chunk_take(chunk, ALIGN) : NULL;
	ProtobufCAllocator allocator = {.alloc = take, .free = keep, .allocator_data = block};
	int rc;

	if (block == NULL) {
		*ret_why = "out of memory";
		return SLUICE_E_NOMEM;
	}
	block->newest = chunk;
	rc = message_unpack_with(descriptor, bytes, max, &allocator, false, ret, ret_why);
	if (rc != 0) {
		message_block_free(block);
		return rc;
	}
	*ret_block = block;
	return 0;
}
