/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks, see message_block.h: a chunk that a usual request fits, and more chunks behind it for one
 * that does not. message.c checks the bytes first, which bounds what protobuf-c allocates.
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
	ProtobufCAllocator *from;
};
static_assert(sizeof(struct message_block) <= (size_t)ALIGN, "a block is the first thing taken");

static void *system_alloc(void *user, size_t bytes)
{
	(void)user;
	return malloc(bytes);
}

static void system_free(void *user, void *old)
{
	(void)user;
	free(old);
}

static ProtobufCAllocator system_memory = {.alloc = system_alloc, .free = system_free};

static struct chunk *chunk_new(ProtobufCAllocator *from, struct chunk *older, size_t size)
{
	struct chunk *chunk = from->alloc(from->allocator_data, sizeof(*chunk) + size);

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
		struct chunk *chunk = chunk_new(block->from, block->newest, size);

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
	ProtobufCAllocator *from = block != NULL ? block->from : NULL;

	while (chunk != NULL) {
		struct chunk *older = chunk->next;

		from->free(from->allocator_data, chunk);
		chunk = older;
	}
}

struct message_block *message_block_new(size_t room, ProtobufCAllocator *from)
{
	ProtobufCAllocator *memory = from != NULL ? from : &system_memory;
	struct chunk *chunk = chunk_new(memory, NULL, ROOM_BYTES + room);
	struct message_block *block = chunk != NULL ? chunk_take(chunk, ALIGN) : NULL;

	if (block == NULL)
		return NULL;
	block->newest = chunk;
	block->from = memory;
	return block;
}

/* Strings are copied, so a large message needs as much again. */
static size_t room_for(size_t bytes)
{
	return bytes > ROOM_BYTES / 4 ? bytes : 0;
}

ProtobufCMessage *message_block_unpack(struct message_block *block,
				       const ProtobufCMessageDescriptor *descriptor,
				       struct sluice_slice bytes)
{
	ProtobufCAllocator allocator = {.alloc = take, .free = keep, .allocator_data = block};

	return protobuf_c_message_unpack(descriptor, &allocator, bytes.len, bytes.data);
}

int message_unpack_block(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			 uint64_t max, struct message_block **ret_block, ProtobufCMessage **ret,
			 const char **ret_why)
{
	struct message_block *block =
		message_block_new(bytes.len <= max ? room_for(bytes.len) : 0, NULL);
	ProtobufCAllocator allocator = {.alloc = take, .free = keep, .allocator_data = block};
	int rc;

	if (block == NULL) {
		*ret_why = "out of memory";
		return SLUICE_E_NOMEM;
	}
	rc = message_unpack_with(descriptor, bytes, max, &allocator, false, ret, ret_why);
	if (rc != 0) {
		message_block_free(block);
		return rc;
	}
	*ret_block = block;
	return 0;
}
