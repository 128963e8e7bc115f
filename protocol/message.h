/* SPDX-License-Identifier: Apache-2.0
 *
 * Control messages: protobuf-c with what it lacks. Thread-safe, no state.
 */
#ifndef SLUICE_PROTOCOL_MESSAGE_H
#define SLUICE_PROTOCOL_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

#include "sluice/error.h"
#include "sluice/types.h"

/* Unpacks input that came from outside: at most max bytes (LIMIT beyond), no groups, strings valid
 * UTF-8 without NUL, at most MESSAGE_DEPTH_MAX nested messages and MESSAGE_FIELDS_MAX fields;
 * unknown fields are dropped, so that packing again is canonical. In texts for people (evidence,
 * reasons, what a client calls itself) each bad byte becomes '?' instead. *ret is owned
 * (protobuf_c_message_free_unpacked). Errors: PROTOCOL, LIMIT, NOMEM with *ret_why: static, or this
 * thread's until its next call. */
enum { MESSAGE_DEPTH_MAX = 8 };
int message_unpack(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		   uint64_t max, ProtobufCMessage **ret, const char **ret_why) SLUICE_MUST_USE;

/* Unpacks what a broker packed itself: a stored record. Returns the descriptor's message, owned;
 * NULL with *ret_rc CORRUPT or NOMEM. */
void *message_unpack_own(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			 int *ret_rc) SLUICE_MUST_USE;

/* Mends the texts for people in a packed message, in place, as message_unpack() would. */
void message_texts_repair(const ProtobufCMessageDescriptor *descriptor, void *bytes, size_t len);

/* The name (static) of a string in the message, or in a message inside, that is not valid UTF-8;
 * NULL: all are. For assertions on what is about to be packed. */
const char *message_text_bad(const ProtobufCMessage *message);

/* Compact JSON of any message, through its descriptor; deterministic, one line. Names as in the
 * .proto; fields with default values are left out unless all is set; bytes as text when they are
 * valid UTF-8, else as base64 under NAME_base64; 64-bit numbers as numbers; enums as lower case
 * names without their prefix. *ret is malloc'd, owned, NUL-terminated. */
int message_json(const ProtobufCMessage *message, bool all, char **ret) SLUICE_MUST_USE;

#endif
