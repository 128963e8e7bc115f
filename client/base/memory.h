/* SPDX-License-Identifier: Apache-2.0
 * The allocator hook and byte buffers. */
#ifndef SLUICE_CLIENT_BASE_MEMORY_H
#define SLUICE_CLIENT_BASE_MEMORY_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t bytes); /* zeroed */
void *mem_resize(void *old, size_t bytes);
void mem_free(void *old);
char *mem_text(const char *text, size_t len); /* a terminated copy */
/* Whether an allocation failed on this thread since its last call: distinguishes a malformed
 * message from lack of memory. */
bool mem_lacked(void);
extern ProtobufCAllocator mem_protobuf;

/* A growable byte buffer with a read position. */
struct buffer {
	uint8_t *bytes;
	size_t start, end, capacity;
};
uint8_t *buffer_room(struct buffer *buffer, size_t bytes); /* at the end; NULL: no memory */
static inline size_t buffer_len(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}
void buffer_free(struct buffer *buffer);

#endif
