/* SPDX-License-Identifier: Apache-2.0
 *
 * A message and all that it points to in one block, which is freed at once: a request is unpacked
 * on one thread and done with on another, so an allocation for each of its strings would cost more
 * than the rest of it; and so of replies. A block belongs to one thread at a time.
 */
#ifndef SLUICE_PROTOCOL_MESSAGE_BLOCK_H
#define SLUICE_PROTOCOL_MESSAGE_BLOCK_H

#include "protocol/message.h"

struct message_block;

/* An empty block with room for a usual message and `room` bytes more, and then as many as are asked
 * for. Memory comes from and goes back to `from`, which must outlive it; NULL: malloc. Owned; NULL:
 * no memory. */
struct message_block *message_block_new(size_t room, ProtobufCAllocator *from);
/* Without the checks of message_unpack(): for messages of one's own broker. NULL: malformed,
 * or no memory. */
ProtobufCMessage *message_block_unpack(struct message_block *block,
				       const ProtobufCMessageDescriptor *descriptor,
				       struct sluice_slice bytes);

/* As message_unpack(); *ret lives in *ret_block, which is owned (message_block_free), and is not to
 * be freed by protobuf-c. NOMEM when there is no memory for the block. Nothing is returned on
 * error. */
int message_unpack_block(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			 uint64_t max, struct message_block **ret_block, ProtobufCMessage **ret,
			 const char **ret_why) SLUICE_MUST_USE;
/* Room in the block for what goes with the message: zeroed, aligned for any type; lives as long as
 * the block. NULL: no memory. */
void *message_block_alloc(struct message_block *block, size_t bytes);
void message_block_free(struct message_block *block); /* accepts NULL */

/* message.c's, for message_block.c: message_unpack() with what protobuf-c allocates taken from
 * allocator. Unless frees, nothing of it is freed one by one. */
int message_unpack_with(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			uint64_t max, ProtobufCAllocator *allocator, bool frees,
			ProtobufCMessage **ret, const char **ret_why) SLUICE_MUST_USE;

#endif
